"""`paper-table`: the rows of one table of the paper, run by `compare`, in the paper's layout with its figures beside ours."""

from recbole_molar.checkpoint import write_text
from recbole_molar.command_line import properties_dir, read_yaml
from recbole_molar.compare.comparison import carry_out, options_of
from recbole_molar.compare.runs import parse_models
from recbole_molar.compare.tables import aligned, markdown, mean_text, notes
from recbole_molar.lookup import did_you_mean


def paper_table(arguments):
    """Run what is missing of one table's rows; the same command goes on with what was cut.

    Args:
        arguments (list of str): `--table=NAME` (a file of `properties/paper_table/`), `--dataset=`, `--rows=[label, ...]` for some of its rows,
            `--seeds=`, `--jobs=`, `--report=False`, and any option of a run.

    Returns:
        tuple: the table as text, exit code (1 if a run failed).

    Raises:
        ValueError: no such table or row, or bad input of a run.
    """
    own, given, origins = options_of(arguments, ("table", "rows"))
    table = read_table(own.pop("table", None))
    rows = chosen_rows(table, own.pop("rows", None))
    entries, made = entries_of(rows, given)
    labels = [entry.label for entry in entries]
    paper = table.get("reference")  # the row of the paper's own model; by default the last
    found, folder, report = carry_out(entries, paper if paper in labels else labels[-1], given, origins, **own)
    lines = layout(table, rows, found)
    remarks = [*notes(found, tested=False), *(f"{label}: by {text}." for label, text in made.items())]
    title = f"{table['title']}, {found['dataset']}"
    write_text(folder / "paper_table.md", "\n\n".join([f"# {title}", markdown(lines), "\n".join(f"- {remark}" for remark in remarks)]) + "\n")
    return f"{title}\n\n{aligned(lines)}\n\n" + "\n".join(remarks) + f"\n{report}{folder}", 1 if found["failed"] else 0


def table_names():
    """Names of the tables there are."""
    return sorted(file.stem for file in (properties_dir() / "paper_table").glob("*.yaml"))


def read_table(name):
    """A table by name: dict of `title`, `columns`, `rows` and sometimes `reference`, a row's label; a row without a `recipe_for` of its own has the table's.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in table_names():
        raise ValueError(f"--table={name}: {'is missing' if name is None else 'no such table'}. Valid: {', '.join(table_names())}.")
    table = read_yaml(properties_dir() / "paper_table" / f"{name}.yaml")
    table["rows"] = {label: {"recipe_for": table.get("recipe_for", {}), **row} for label, row in table["rows"].items()}
    return table


def chosen_rows(table, wanted):
    """The rows to show: all, or those named.

    Raises:
        ValueError: a row that the table does not have, or none that can be run.
    """
    rows = table["rows"]
    wanted = list(rows) if wanted is None else [str(label) for label in (wanted if isinstance(wanted, list) else [wanted])]
    unknown = [label for label in wanted if label not in rows]
    if unknown or not any(rows[label]["recipe"] for label in wanted):
        valid = [f'"{label}"' for label in rows if rows[label]["recipe"]]
        wrong = f'no row "{unknown[0]}".{did_you_mean(unknown[0], valid)}' if unknown else "none can be run."
        raise ValueError(f"--rows={wanted}: {wrong} Valid: {', '.join(valid)}; a label with a comma needs its quotes.")
    return {label: rows[label] for label in rows if label in wanted}


def entries_of(rows, given):
    """The models of a comparison for rows that can be run; a row with a recipe made for the data set (`recipe_for`) has its values, but for what is given.

    Args:
        rows (dict): of :func:`chosen_rows`; given (dict): options of all runs, the data set among them.

    Returns:
        tuple: list of Entry, and label -> recipe made for the data set, and which of its properties are given otherwise.
    """
    entries = parse_models({label: row["recipe"] for label, row in rows.items() if row["recipe"]})
    made = {entry.label: rows[entry.label]["recipe_for"].get(given.get("dataset")) for entry in entries}
    for entry in entries:
        if made[entry.label]:
            [recipe] = parse_models({entry.label: made[entry.label]})
            left = recipe.properties.keys() - given.keys() - entry.properties.keys()
            entry.properties |= {key: recipe.properties[key] for key in left}
            entry.origins |= {key: recipe.origins[key] for key in left}
            over = sorted(key for key, value in recipe.properties.items() if key in given and given[key] != value)
            made[entry.label] += f", but for {', '.join(over)}" if over else ""
    return entries, {label: text for label, text in made.items() if text}


def layout(table, rows, found):
    """The paper's layout: a line for each row, each column ours and then the paper's; a row that was not run has the paper's alone.

    Args:
        table (dict): of :func:`read_table`; rows (dict): of :func:`chosen_rows`; found (dict): of :func:`recbole_molar.compare.comparison.examine`.

    Returns:
        list of list of str, the first the header.
    """
    data_set, ours = paper_data_set(rows, found["dataset"]), {model["label"]: model for model in found["models"]}
    header = ["", *(text for column in table["columns"] for text in (column, f"paper, {data_set}" if data_set else "paper"))]
    lines = [header]
    for label, row in rows.items():
        published = dict(zip(table["columns"], row["paper"].get(data_set, [])))
        cells = []
        for column in table["columns"]:
            spread = ours[label]["test"].get(column) if label in ours else None
            cells += [mean_text(spread) if spread else "-", f"{published[column]:.4f}" if column in published else "-"]
        lines.append([label, *cells])
    return lines


def paper_data_set(rows, dataset):
    """The paper's data set of this name; where the table lacks it, the first that it has; None where it has none."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row["paper"]))
    return next((name for name in names if str(dataset).lower().startswith(name.lower())), names[0] if names else None)
