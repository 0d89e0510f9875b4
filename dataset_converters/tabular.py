"""Your own tables: interactions, and items if you have them, as CSV, TSV, JSONL (each also as .gz) or Parquet; data frames by `convert_frames`.

Columns are found by their usual names or given; timestamps are numbers (s, ms, us, ns) or dates (ISO 8601 or a form that you give).
"""

import argparse
import re
from itertools import chain
from pathlib import Path

from dataset_converters.atomic import AtomicFolder, add_output_arguments, column_name, is_text
from dataset_converters.columns import UNITS, Times, check_ids, find_column, to_numbers
from dataset_converters.interactions import InteractionReader, add_filter_arguments
from dataset_converters.item_files import cell_text, image_text, plain, record_chunks


def add_arguments(parser):
    parser.add_argument("--input-path", required=True, metavar="FILE", help="the interactions")
    parser.add_argument("--items", metavar="FILE", help="the items: a column of ids and columns of text")
    add_output_arguments(parser)
    for kind, word in (("user", "users"), ("item", "items, in both files"), ("timestamp", "times"), ("rating", "ratings"), ("image", "image links or files")):
        parser.add_argument(f"--{kind}-column", metavar="NAME", help=f"column of {word} (default: by the usual names)")
    parser.add_argument("--items-id-column", metavar="NAME", help="column of ids in --items, where it has another name there")
    parser.add_argument("--text-columns", nargs="+", metavar="NAME", help="columns of --items to keep, in prompt order (default: all)")
    parser.add_argument("--timestamp-unit", choices=["auto", *UNITS], default="auto", help="of numbers (default: by their size)")
    parser.add_argument("--timestamp-format", metavar="FORM", help="of dates, for example %%d/%%m/%%Y (default: ISO 8601)")
    parser.add_argument("--timezone", default="UTC", metavar="ZONE", help="of dates that name none, for example Europe/Berlin (default: UTC)")
    parser.add_argument("--separator", metavar="C", help="of CSV files (default: tab for .tsv, else told from the header)")
    add_filter_arguments(parser)


def run(arguments):
    """Convert files; returns the summary.

    Raises:
        ValueError: a file, column or value is missing or wrong; names it.
    """
    dataset = arguments.dataset or re.sub(r"[^A-Za-z0-9_-]+", "-", Path(arguments.input_path).name.split(".")[0]).strip("-") or "data"
    items = record_chunks(arguments.items, arguments.separator, all_fields=True) if arguments.items else None
    return _convert(arguments, dataset, record_chunks(arguments.input_path, arguments.separator), items, arguments.input_path, arguments.items)


def convert_frames(interactions, items=None, output_path="dataset", dataset="data", **options):
    """Convert pandas data frames.

    Args:
        interactions (DataFrame): one row each; items (DataFrame, optional): one row for each item.
        output_path (str), dataset (str): where to write.
        options: those of the command line, with underscores: `user_column="member"`, `min_rating=4`, `overwrite=True`.

    Returns:
        str: the summary.

    Raises:
        ValueError: as the command; TypeError: an unknown option.
    """
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(["--input-path", "-", "--output-path", str(output_path)])
    unknown = sorted(set(options) - set(vars(arguments)))
    if unknown:
        raise TypeError(f"unknown options: {', '.join(unknown)}. Valid: {', '.join(vars(arguments))}.")
    vars(arguments).update(options)
    parts = [None if frame is None else iter([(1, plain(frame))]) for frame in (interactions, items)]
    return _convert(arguments, dataset, *parts, "interactions", "items")


def _convert(arguments, dataset, interactions, items, file, items_file):
    with AtomicFolder(arguments.output_path, dataset, arguments.overwrite) as folder:
        data, times_note = _read(arguments, interactions, file)
        folder.notes.append(times_note)
        folder.write_interactions(data.filter(arguments.min_rating, arguments.drop_duplicates, arguments.k_core))
        if items is not None:
            folder.write_items(*_items(arguments, items, items_file))
    return folder.summary()


def _read(arguments, chunks, file):
    """(interactions, what the times were read as)."""
    reader, columns = InteractionReader(), None
    times = Times(arguments.timestamp_unit, arguments.timestamp_format, arguments.timezone)
    for first, frame in chunks:
        if columns is None:
            given = {kind: getattr(arguments, f"{kind}_column") for kind in ("user", "item", "timestamp", "rating")}
            columns = {kind: find_column(frame.columns, kind, name, file, required=kind != "rating") for kind, name in given.items()}
            _check_distinct(columns)
        for name in filter(None, columns.values()):
            if name not in frame:  # JSON lines may leave a field out
                frame[name] = None
        when = times(frame[columns["timestamp"]], file, first, columns["timestamp"])
        rating = to_numbers(frame[columns["rating"]], file, first, columns["rating"]) if columns["rating"] else None
        users, items = frame[columns["user"]], frame[columns["item"]]
        check_ids(users, file, first, columns["user"])
        check_ids(items, file, first, columns["item"])
        reader.add(users, items, when, rating)
    data = reader.finish(file)
    return data, times.scale(data.time, columns["timestamp"])


def _check_distinct(columns):
    for kind, name in columns.items():
        other = next((other for other in columns if other != kind and name is not None and columns[other] == name), None)
        if other:
            raise ValueError(f"{name}: given as the column of {kind}s and of {other}s. Name another with --{other}-column.")


def _items(arguments, chunks, file):
    """(column names, rows, which names are text) of the items; the image column is called image_url or image_file."""
    first, frame = next(chunks, (1, None))
    if frame is None:
        raise ValueError(f"{file}: no item there.")
    given = arguments.items_id_column or (arguments.item_column if arguments.item_column in frame else None)
    usual = "id" if given is None and "id" in frame else None
    key = given or find_column(frame.columns, "item", None, file, required=usual is None) or usual
    find_column(frame.columns, "item", key, file)
    texts = arguments.text_columns or []
    for name in texts:
        find_column(frame.columns, "item", name, file)
        if name in (key, arguments.image_column) or texts.count(name) > 1:
            raise ValueError(f"--text-columns: {name} {'stands there twice' if texts.count(name) > 1 else 'is the column of ids or pictures'}. Leave it out.")
    image = find_column([name for name in frame.columns if name not in texts], "image", arguments.image_column, file, required=False)
    columns = list(texts or [name for name in frame.columns if name not in (key, image)])
    names = [str(name).split(":")[0] for name in columns]
    if image is not None:
        links = frame[image].map(image_text)
        kind = "image_url" if links[links != ""].head(1).str.match("https?://", case=False).any() else "image_file"
        names = [f"{name}_2" if name == kind else name for name in names] + [kind]  # the column that was chosen has the name
        columns.append(image)

    def rows():
        for _, part in chain([(first, frame)], chunks):
            part = part.reindex(columns=[key, *columns])
            for row in zip(*(part[name] for name in part.columns)):
                yield row[0], [(image_text if name == image else cell_text)(cell) for name, cell in zip(columns, row[1:])]

    given = {column_name(name) for name in names[: len(texts)]}
    return names, rows(), given.__contains__ if texts else is_text
