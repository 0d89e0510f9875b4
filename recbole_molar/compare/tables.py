"""A comparison as terminal text, Markdown, CSV and LaTeX: pure functions of what `comparison.examine` returns."""

import csv
import io

SIGNIFICANT = 0.05
COST = {  # key -> (title, format)
    "train_seconds": ("training s", "{:,.0f}"), "seconds_to_best_epoch": ("s to best epoch", "{:,.0f}"), "best_epoch": ("best epoch", "{:.0f}"),
    "peak_memory_gib": ("peak GiB", "{:.1f}"), "gpu_memory_gib": ("GPU GiB", "{:.1f}"), "parameters": ("parameters", "{:,.0f}"),
    "latency_ms": ("ms for one user", "{:.1f}"), "users_per_second": ("users a second", "{:,.0f}"),
}  # fmt: skip


def as_text(found):
    """For a terminal."""
    blocks = [[f"{found['dataset']}: {found['users']:,} users, test figures at the best epoch by validation {found['valid_metric']}"]]
    for title, rows in sections(found):
        blocks.append([title, aligned(rows)])
    return "\n\n".join("\n".join(lines) for lines in [*blocks, notes(found)])


def aligned(rows):
    """Rows of cells as lines, columns under each other: the first to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(zip(row, widths))) for row in rows)


def as_markdown(found):
    """For a README or an issue."""
    blocks = [f"# {found['dataset']}"]
    for title, rows in sections(found, bold="**{}**", underlined="<u>{}</u>"):
        blocks.append(f"## {title}\n\n{markdown(rows)}")
    return "\n\n".join([*blocks, "\n".join(f"- {note}" for note in notes(found))]) + "\n"


def markdown(rows):
    """A table of Markdown out of rows of text, the first the header."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def as_csv(found):
    """One row for each model, segment and metric, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "part", "segment", "name", "mean", "std", "values"])
    for model in found["models"]:
        for part in ("test", "valid"):
            for metric, spread in model[part].items():
                writer.writerow([model["label"], part, "", metric, spread["mean"], spread["std"], " ".join(map(str, spread["values"]))])
        for axis, parts in model["segments"].items():
            for name, values in parts.items():
                for metric, value in values.items():
                    writer.writerow([model["label"], axis, name, metric, value, "", ""])
        for part in ("beyond", "cost"):
            for name, value in model[part].items():
                writer.writerow([model["label"], part, "", name, value, "", ""])
    for one in found["differences"]:
        for name in ("mean", "relative", "low", "high", "p", "p_holm", "effect"):
            writer.writerow([one["model"], f"minus {found['reference']}", one["metric"], name, one[name], "", ""])
    return text.getvalue()


def as_latex(found):
    """The main table, for booktabs."""
    rows = _accuracy(found, bold="\\textbf{{{}}}", underlined="\\underline{{{}}}", star="$^*$")
    escaped = [[_latex(row[0]), *(cell.replace(" ± ", " $\\pm$ ") for cell in row[1:])] for row in rows]
    escaped[0] = [_latex(cell) for cell in rows[0]]
    lines = [" & ".join(row) + " \\\\" for row in escaped]
    remarks = "\n".join(f"% {note}" for note in notes(found))
    begin = f"\\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    return "\n".join([remarks, begin, "\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule", "\\end{tabular}", ""])


def _latex(text):
    signs = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}}
    return "".join(signs.get(sign, sign) for sign in text)


def sections(found, bold="{}", underlined="{}"):
    """(title, rows) of each table; the first row is the header. `bold` and `underlined` are formats of one cell."""
    tables = [("Test items", _accuracy(found, bold, underlined, "*"))]
    if found["differences"]:
        tables.append((f"Against {found['reference']}", _differences(found)))
    metric = found["valid_metric"]
    for axis, parts in found["segment_users"].items():
        rows = [[f"{metric} by {axis}", *(f"{name}: {users:,}" for name, users in parts.items())]]
        rows += [[model["label"], *(f"{model['segments'][axis][name][metric]:.4f}" for name in parts)] for model in found["models"]]
        tables.append((f"By {axis}", rows))
    names = list(found["models"][0]["beyond"])
    tables.append(("Beyond accuracy", [["", *names], *([model["label"], *(f"{model['beyond'][name]:.3f}" for name in names)] for model in found["models"])]))
    keys = [key for key in COST if any(model["cost"][key] is not None for model in found["models"])]
    cost = [[model["label"], *("" if model["cost"][key] is None else COST[key][1].format(model["cost"][key]) for key in keys)] for model in found["models"]]
    tables.append(("Cost of a run", [["", *(COST[key][0] for key in keys)], *cost]))
    return tables


def _accuracy(found, bold, underlined, star):
    """Best bold, second underlined, a star where a model differs from the reference."""
    stars = {(one["model"], one["metric"]) for one in found["differences"] if one["p_holm"] < SIGNIFICANT}
    order = {metric: sorted(found["models"], key=lambda model: -model["test"][metric]["mean"]) for metric in found["metrics"]}
    rows = [["", "seeds", *found["metrics"], f"valid {found['valid_metric']}"]]
    for model in found["models"]:
        row = [model["label"], str(len(model["seeds"]))]
        for metric in found["metrics"]:
            cell = mean_text(model["test"][metric]) + (star if (model["label"], metric) in stars else "")
            place = [other["label"] for other in order[metric]].index(model["label"])
            row.append((bold if place == 0 else underlined if place == 1 else "{}").format(cell))
        rows.append([*row, mean_text(model["valid"][found["valid_metric"]])])
    return rows


def mean_text(spread):
    """Mean and standard deviation, where there are several seeds."""
    return f"{spread['mean']:.4f}" + ("" if spread["std"] is None else f" ± {spread['std']:.4f}")


def _differences(found):
    rows = [["", "metric", "difference", "relative", "95% interval", "p", "p (Holm)", "effect d_z"]]
    for one in found["differences"]:
        interval = f"{one['low']:+.4f} … {one['high']:+.4f}"
        numbers = [f"{one['mean']:+.4f}", f"{one['relative']:+.1%}", interval, _p(one["p"]), _p(one["p_holm"]), f"{one['effect']:+.3f}"]
        rows.append([one["model"], one["metric"], *numbers])
    return rows


def _p(value):
    return "<.0001" if value < 1e-4 else f"{value:.4f}"


def notes(found, tested=True):
    """What a reader must know of the figures, one sentence each; tested (bool): the table shows what differs from what."""
    lines = []
    if found["mode"] != "full":
        lines.append(f"Each test item is ranked among items drawn by eval_args.mode={found['mode']} alone: far higher figures than among all items.")
    if found["metrics_left_out"]:
        lines.append(f"Left out: {', '.join(found['metrics_left_out'])}, which are not metrics of one test item's rank.")
    if tested and found["differences"]:
        lines.append(f"* differs from {found['reference']}: p < {SIGNIFICANT} after Holm's correction over all models and metrics.")
        lines.append("p: paired t-test over users, with the variance between seeds in its error. Interval: paired bootstrap over users, widened by that.")
    single = [model["label"] for model in found["models"] if len(model["seeds"]) == 1]
    lines += [f"{model['label']} is tuned: {model['tuned']['about']}, chosen by validation." for model in found["models"] if model.get("tuned")]
    if single and found["differences"]:
        lines.append(f"One seed only, so its spread is unknown{' and p too small' if tested else ''}: {', '.join(single)}.")
    lines.append("± is the standard deviation over seeds. Costs are those of the machine that made each run, without stages that it reused.")
    lines += [f"FAILED {name}: {why}" for name, why in found["failed"].items()]
    return lines
