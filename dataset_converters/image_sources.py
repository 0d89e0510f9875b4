"""Which picture belongs to which item: read from the `.item` file's column of URLs, a CSV of links, or the names of files."""

import csv
import dataclasses
import difflib
import re
import unicodedata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import yaml

from dataset_converters.local_files import by_stem
from dataset_converters.picture import usable_id

ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One item's picture: where it comes from (URL or file name; "" for nowhere), and why it cannot come, where that is known already."""

    id: str
    source: str = ""
    cause: str = ""


def read_items(folder, name, column=None, required=True):
    """Item id -> cell of `column` of `<folder>/<name>.item`, stripped; the first row of an id counts.

    The cell is "" without a column, and where the file has none of that name and `required` is False.

    Raises:
        ValueError: no such file or column, not UTF-8, a row of another length.
    """
    path = Path(folder) / f"{name}.item"
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Convert the data set first, or check --dataset and --data-path.")
    unescape = _unescape if _settings(folder).get("item_text_escaped") is True else str
    items = {}
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            header = file.readline().rstrip("\r\n").split("\t")
            columns = [title.rpartition(":")[0] or title for title in header]
            id_place = _place(path, columns, "item_id")
            place = _place(path, columns, column) if column and (required or column in columns) else None
            for number, line in enumerate(file, start=2):
                cells = line.rstrip("\r\n").split("\t")
                if len(cells) != len(columns) and cells != [""]:
                    raise ValueError(f"{path}, line {number}: {len(cells)} columns, but the header has {len(columns)}.")
                if cells != [""]:
                    items.setdefault(unescape(cells[id_place]), "" if place is None else unescape(cells[place]).strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}). Convert it, for example with `iconv -f latin1 -t utf8`.") from error
    if place is not None and header[place].endswith(":token_seq"):  # several URLs: the first is the item's picture
        items = {key: (cell.split() or [""])[0] for key, cell in items.items()}
    return items


def read_table(path, column):
    """Item id -> cell of a CSV (or TSV) with a header that has `item_id` and `column`; the first cell of an id that is not empty counts.

    Raises:
        ValueError: no such file or column, not UTF-8, no CSV.
    """
    path, cells = Path(path), {}
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = "\t" if "\t" in header else ","
            columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
            id_place, place = _place(path, columns, "item_id"), _place(path, columns, column)
            for row in csv.reader(file, delimiter=delimiter, strict=True):
                if len(row) > max(id_place, place) and not cells.get(row[id_place]):
                    cells[row[id_place]] = row[place].strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}). Convert it, for example with `iconv -f latin1 -t utf8`.") from error
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file ({error}).") from error
    return cells


def wanted_urls(cells, known):
    """One :class:`Wanted` for each known item; `cells` maps ids, as the converters write them or raw, to URLs."""
    return [_wanted(item_id, cells, "no url") for item_id in known]


def wanted_files(files, known, mapping=None, named=()):
    """One :class:`Wanted` for each known item; files are found by the mapping (id -> name), or else by names equal to ids, as written or raw.

    A name in the mapping is a path relative to the source; one without a folder is looked for in all folders too. Without a mapping `named` (id ->
    cell of the column `image_file`, which `tabular` writes) comes first where its end is a file's path: C:\\shop\\1.jpg is shop/1.jpg or 1.jpg.
    """
    names, bare = set(files.names), {}
    for name in sorted(names, reverse=True):
        bare[PurePosixPath(name).name] = name
    if mapping is not None:
        found = {item_id: name if name in names else bare.get(name, name) for item_id, name in mapping.items()}
    else:
        found = by_stem(files.names)
        for item_id, path in dict(named).items():
            parts = path.replace("\\", "/").split("/")
            ends = ("/".join(parts[start:]) for start in range(len(parts)))
            end = next((end for end in ends if end in names), bare.get(path))
            found.update({item_id: end} if end else {})
    return [_wanted(item_id, found, "no file") for item_id in known]


def apart(wanted):
    """For a file system that takes `A1.jpg` and `a1.jpg` for one: of ids that differ in case alone, the first keeps its picture."""
    first = {}
    return [
        item if first.setdefault(unicodedata.normalize("NFC", item.id).casefold(), item.id) == item.id
        else dataclasses.replace(item, cause="id differs from another in case alone")
        for item in wanted
    ]  # fmt: skip


def _wanted(item_id, sources, nowhere):
    source = sources.get(item_id) or sources.get(unquote(item_id), "")
    if not usable_id(item_id):
        return Wanted(item_id, source, "unusable id")
    return Wanted(item_id, source, "" if source else nowhere)


def _settings(folder):
    path = Path(folder) / "dataset.yaml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({error}).") from error
    return settings if isinstance(settings, dict) else {}


def _unescape(cell):
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[0]), cell)


def _place(path, columns, name):
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{path}: no column {name}.{hint} Columns: {', '.join(columns)}.")
    return columns.index(name)
