"""Item tables of any common form, row by row, and extra columns joined to a converter's own by item id."""

import json
import re
from pathlib import Path

import pandas as pd

from dataset_converters.columns import find_column
from dataset_converters.files import Plain, json_rows, quotes_are_text, read_header, table_chunks
from dataset_converters.interactions import id_text, safe_id

SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
JSON_ENDINGS = (".jsonl", ".json", ".ndjson")


def ending(path):
    """Ending of a file below `.gz`: `x.jsonl.gz` -> `.jsonl`."""
    path = Path(path)
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def separator_of(file, given=None):
    """The separator given, that of the ending, or the one that the first line has most of."""
    if given:
        return {"\\t": "\t", "tab": "\t"}.get(given, given)
    if ending(file.path) in (".tsv", ".tab", ".inter", ".item"):
        return "\t"
    header = "".join(read_header(file, "\x1f"))
    return max(SEPARATORS, key=header.count)


def record_chunks(path, separator=None, size=100_000, all_fields=False):
    """Yield (number of the first row, DataFrame) of a table: CSV, TSV, JSONL (each also as .gz) or Parquet.

    A tab-separated file whose quotation marks cannot be CSV's has them as text. With `all_fields`, each part of JSONL has the fields of all, for which
    the file is read twice.

    Raises:
        ValueError: the file cannot be read; names it, and the line.
    """
    if ending(path) in (".parquet", ".pq"):
        yield from _parquet_chunks(path, size)
    elif ending(path) in JSON_ENDINGS:
        rows, first = [], 1
        names = list(dict.fromkeys(name for _, row in json_rows(Plain(path)) for name in row)) if all_fields else None
        for number, row in json_rows(Plain(path)):
            rows.append(row)
            if len(rows) == size:
                yield first, pd.DataFrame(rows, columns=names, dtype=object)
                rows, first = [], number + 1
        if rows:
            yield first, pd.DataFrame(rows, columns=names, dtype=object)
    else:
        file = Plain(path)
        separator = separator_of(file, separator)
        if len(separator) != 1 or not separator.isascii() or separator in '"\r\n\0':
            raise ValueError(f"--separator={separator}: give one character.")
        quoted = ending(path) not in (".inter", ".item") and not (separator == "\t" and quotes_are_text(file, separator))
        yield from table_chunks(file, separator, quoted=quoted)


def _parquet_chunks(path, size):
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ValueError(f"{path}: reading Parquet needs pyarrow. Run `pip install pyarrow`, or give CSV, TSV or JSONL.") from error
    Plain(path)
    first = 1
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=size):
            # Columns as they are stored: pandas' own metadata would turn some into an index.
            frame = batch.to_pandas(integer_object_nulls=True, ignore_metadata=True)
            yield first, plain(frame[[name for name in frame.columns if not re.fullmatch(r"__index_level_\d+__", str(name))]])
            first += len(frame)
    except ArrowException as error:
        raise ValueError(f"{path}: not a Parquet file that can be read ({error}).") from error


def plain(frame):
    """The frame with its categorical (dictionary) columns as columns of their values."""
    coded = [name for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)]
    return frame.astype(dict.fromkeys(coded, object)) if coded else frame


def cell_text(value):
    """A cell as text: lists of texts joined by line breaks, other nested values as JSON, nothing for missing ones."""
    if hasattr(value, "tolist"):  # an array of Parquet, a NumPy number
        value = value.tolist()
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, (list, tuple)):
        return "\n".join(map(cell_text, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=lambda inner: inner.tolist() if hasattr(inner, "tolist") else cell_text(inner))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def image_text(value):
    """A cell that names a picture: the first of several."""
    text = cell_text(value).strip()
    lines = text.split() if re.match("https?://", text, re.I) else text.split("\n")
    return lines[0].strip() if lines else ""


class ItemJoin:
    """Extra columns by item id, held in memory: plots, posters and the like for `--item-files`.

    Args:
        paths (list): tables with a column of item ids; a cell of an earlier file wins.
        id_column (str, optional): its name; default by the usual names.
    """

    def __init__(self, paths, id_column=None):
        self.columns, self.cells, self.keys = [], {}, {}
        for path in paths or ():
            keys = self.keys[path] = set()
            for _, frame in record_chunks(path):
                names = [str(name).split(":")[0] for name in frame.columns]
                frame.columns = names
                usual = next((name for name in ("item_id", "movieId", "movie_id", "id") if name in names), None)
                key = find_column(names, "item", id_column or usual, path)
                self.columns += [name for name in names if name != key and name not in self.columns]
                for row in frame.to_dict("records"):
                    item = safe_id(id_text(row.pop(key)))
                    keys.add(item)
                    known = self.cells.setdefault(item, {})
                    for name, value in row.items():
                        if text := cell_text(value):
                            known.setdefault(name, text)

    def join(self, columns, rows):
        """(columns, rows) with the extra columns; where both have a column, the extra file fills its empty cells.

        Raises:
            ValueError: once all rows are through: a file has none of the items.
        """
        new = [name for name in self.columns if name not in columns]

        def joined():
            left, item = self.keys, "nothing"
            for key, cells in rows:
                item = safe_id(id_text(key))
                left = {path: keys for path, keys in left.items() if item not in keys}
                extra = self.cells.get(item, {})
                yield key, [cell or extra.get(name, "") for name, cell in zip(columns, cells)] + [extra.get(name, "") for name in new]
            for path, keys in left.items():  # the first
                raise ValueError(f"{path}: shares no id with the items; its ids look like {', '.join(sorted(keys)[:3])}, theirs like {item}.")

        return [*columns, *new], joined()
