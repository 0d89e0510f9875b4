"""The report as a page of plain, aligned text for the terminal."""

from recbole_molar.doctor.data_report import printable

WIDTH = 34  # of the names
BUSY = 1.2  # slowdown from which on other work is mentioned


def as_text(report):
    """All sections that there are, then the problems, as one string."""
    blocks = [f"{report['model']} on {report['dataset']}"]
    for title, write in SECTIONS:
        lines = write(report)
        if lines:
            blocks.append("\n".join([f"\n{title}", *lines]))
    found = [f"warning: {text}" for text in report["problems"]]
    closing = "A run would stop:" if report["error"] else f"A run would work. Problems found: {len(found) or 'none'}"
    lines = "\n".join([*blocks, f"\n{closing}", *([report["error"]] if report["error"] else []), *found]).split("\n")
    return "\n".join(map(printable, lines))


def _line(name, *values):
    return f"  {name:<{WIDTH}}" + "  ".join(str(value) for value in values)


def _machine(report):
    here = report.get("machine")
    if not here:
        return []
    packages = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    first, rest = packages[: packages.find(", accelerate")], packages[packages.find(", accelerate") + 2 :]
    on_gpu = here["device"].startswith("cuda")
    where = f"{here['device']}: {here['gpu']}" if on_gpu else f"cpu, although there is a {here['gpu']}" if here["gpu"] else "cpu; no GPU found"
    return [
        _line("versions", first), _line("", rest), _line("computes on", f"{where}; cores: {here['cores']}, threads: {here['threads']}"),
        _line("GPU memory free" if on_gpu else "memory free", f"{here['free_gib']:.1f} of {here['total_gib']:.1f} GiB"),
    ]


def _data(report):
    data = report.get("data")
    if not data:
        return []
    lines = [_line("", f"{'in the file':>12}", f"{'after the filter':>16}")]
    lines += [_line(name, f"{data['in_files'][name]:>12,}", f"{data['after_filter'][name]:>16,}") for name in data["in_files"]]
    lines.append(_line("same user and item again", *(f"{data['duplicates'][key]:>{width},}" for key, width in (("in_files", 12), ("after_filter", 16)))))
    history, rows = data["history"], data["rows"]
    lengths = f"median {history['median']:.0f}, 90% up to {history['p90']:.0f}, {history['shortest']} to {history['longest']}"
    lines += [
        _line("history", lengths), _line("longer than the model reads", f"{history['share_longer']:.1%} (MAX_ITEM_LIST_LENGTH={history['max_length']})"),
        _line("rows", ", ".join(f"{name} {count:,}" for name, count in rows.items()) + f"; {report['training']}"),
        _line("decided by a tie in time", f"{'here':>12}", f"{'plain RecBole (float32)':>24}"),
    ]
    ties = [data["ties"][name] for name in ("float64", "float32")]
    lines.append(_line("  same time as the item before", f"{ties[0]['share_of_steps']:>12.1%}", f"{ties[1]['share_of_steps']:>24.1%}"))
    for part in ("validation", "test"):
        lines.append(_line(f"  {part} item, of users", f"{ties[0][f'share_of_{part}_users']:>12.1%}", f"{ties[1][f'share_of_{part}_users']:>24.1%}"))
    return lines


def _cold(report):
    cold = report.get("cold")
    return [] if not cold else [
        _line("items without training", f"{cold['items_without_training']:,}"),
        *(_line(part, f"{cold[part]['cold_items']:,} items, {cold[part]['share_of_users']:.2%} of the users") for part in ("validation", "test")),
    ]


def _ids(report):
    ids = report.get("ids", {})
    names = {
        "interactions": "items with interactions", "item_file": "items in .item", "pictures": "pictures", "without_row": "interactions, but no row in .item",
        "without_interaction": "row in .item, no interaction", "repeated": "ids repeated in .item", "without_picture": "interactions, but no picture",
        "picture_of_no_item": "picture of no item",
    }
    return [_line(name, _counted(ids[key])) for key, name in names.items() if key in ids]


def _counted(entry):
    if not isinstance(entry, dict):
        return f"{entry:,}"
    more = ", …" if entry["count"] > len(entry["examples"]) else ""
    return f"{entry['count']:,}" + (f"  ({', '.join(entry['examples'])}{more})" if entry["examples"] else "")


def _text(report):
    text, backbone = report.get("text"), report.get("backbone", {})
    if not text:
        return []
    lines = [_line("column", "filled", f"{'characters: median':>19}", f"{'95% up to':>10}")]
    for name, field in text["fields"].items():
        lines.append(_line(name, f"{field['filled']:>6.1%}", f"{field['median']:>19,}", f"{field['p95']:>10,}"))
    tokens = text.get("tokens")
    if tokens is None and not backbone:
        return lines
    if tokens is None:
        return [*lines, _line("tokens", f"not known: {backbone['name']}: {backbone['why_not']}")]
    part = "" if tokens["counted_items"] == text["items"] else f" ({tokens['counted_items']:,} items at random)"
    return [
        *lines, _line("tokens of an item", f"median {tokens['median']:,}, 95% up to {tokens['p95']:,}, longest {tokens['longest']:,}{part}"),
        _line("cut at the end", f"{tokens['cut']:,} of {tokens['counted_items']:,} items, {tokens['share_cut']:.1%} (mirm_max_tokens={tokens['limit']})"),
        _line("without any text", f"{text['without_text']:,}"),
    ]


def _images(report):
    images = report.get("images")
    if not images:
        return []
    basis = "all files" if images["all_checked"] else f"{images['checked']:,} files at random"
    lines = [_line("items with a file", f"{images['with_file']:,} of {images['items']:,}, {images['missing']:,} missing"), _line("looked at", basis)]
    lines += [_line(name, _counted(images[key])) for key, name in (("broken", "broken"), ("tiny", "side below 32 pixels"))]
    width, height = images["read_at"]
    return [*lines, _line("copies of another", f"{images['duplicates']['files']:,}"), _line("read at", f"{width} x {height} pixels")]


def _estimate(report):
    estimate = report.get("estimate")
    if not estimate:
        parts = [report.get("backbone", {}), *report.get("encoders", {}).values()]
        return [_line("not made", f"{part['name']}: {part['why_not']}") for part in parts if "why_not" in part]
    lines = [_line("", f"{'at most':>10}", f"{'at least':>9}")]
    for name, stage in estimate["stages"].items():
        memory = "-" if "skipped" in stage else "does not fit" if "does_not_fit" in stage else f"{stage['peak_gib']:.1f} GiB"
        time = None if "skipped" in stage else stage.get("seconds")
        lines.append(_line(name, f"{duration(time):>10}", f"{memory:>9}", stage.get("about", "")))
    total, peak = duration(estimate["total_seconds"]), f"{estimate['peak_gib']:.1f} GiB"
    lines.append(_line("together", f"{total:>10}", f"{peak:>9}", f"{estimate['free_gib']:.1f} GiB are free"))
    return lines + _busy(estimate)


def _busy(estimate):
    """What to think of times that were taken beside other work."""
    if estimate["slowdown"] < BUSY:
        return []
    return [
        _line("", f"The machine is busy: the trial batches took {estimate['slowdown']:.1f} times as long as alone, mostly waiting for a core. The waiting is"),
        _line("", "taken off, but caches are shared too, so these times may still be too high. Run doctor again once it is quiet."),
    ]


def _comparison(report):
    comparison = report.get("comparison")
    if not comparison:
        return []
    lines = [_line("", f"{'estimated':>10}", f"{'measured':>10}", f"{'ratio':>6}")]
    for name, row in comparison["stages"].items():
        lines.append(_line(name, f"{duration(row['estimated']):>10}", f"{duration(row['measured']):>10}", f"{_ratio(row):>6}", row["note"]))
    peak = comparison["peak_gib"]
    lines.append(_line("memory", f"{peak['estimated']:>6.1f} GiB", f"{peak['measured']:>6.1f} GiB", f"{_ratio(peak):>6}"))
    here, there = report["estimate"]["threads"], comparison["threads"]
    if there not in (None, here):
        lines.append(_line("", f"The run had {there} threads, this has {here}: set OMP_NUM_THREADS={there} and run doctor again."))
    if report["estimate"]["slowdown"] > BUSY:
        lines.append(_line("", "What was measured holds the run's own waiting for a core, the estimate does not: compare on a quiet machine."))
    if not comparison["same_model"]:
        own = report["estimate"]["parameters"]
        lines.append(_line("", f"The run's model had {comparison['parameters']:,} parameters, this one has {own:,}: a default has changed since."))
    return lines


def _ratio(row):
    return "" if row["ratio"] is None else f"{row['ratio']:.2f}"


def duration(seconds):
    """`45 s`, `12 min`, `3.4 h`; `-` for None."""
    if seconds is None:
        return "-"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


SECTIONS = (
    ("Machine", _machine), ("Interactions", _data), ("Ids", _ids), ("Cold items (in no training interaction)", _cold), ("Text", _text), ("Pictures", _images),
    ("Time and memory on this machine", _estimate), ("Estimated and measured", _comparison),
)
