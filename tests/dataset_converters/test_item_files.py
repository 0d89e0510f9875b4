"""Tables of items of any form, cells as text, and columns joined by id."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from dataset_converters.item_files import ItemJoin, cell_text, ending, image_text, record_chunks


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows(path, **options):
    return [row for _, frame in record_chunks(path, **options) for row in frame.to_dict("records")]


@pytest.mark.parametrize("name, expected", [("x.csv", ".csv"), ("x.JSONL.GZ", ".jsonl"), ("a.b/x.tsv.gz", ".tsv"), ("x", ""), ("x.gz", "")])
def test_ending(name, expected):
    assert ending(name) == expected


@pytest.mark.parametrize("name, separator, given", [
    ("x.csv", ",", None), ("x.csv", ";", None), ("x.csv", "\t", None), ("x.txt", "|", None), ("x.tsv", "\t", None), ("x.csv.gz", ",", None),
    ("x.csv", "\t", "tab"), ("x.csv", "\t", "\\t"), ("x.csv", "~", "~"),
])  # fmt: skip
def test_tables(tmp_path, name, separator, given):
    text = "".join(separator.join(row) + "\n" for row in (["id", "the title", "n"], ["007", "A b", "NA"]))
    assert rows(write(tmp_path / name, text), separator=given) == [{"id": "007", "the title": "A b", "n": "NA"}]


def test_atomic_files_hold_quotes_as_text(tmp_path):
    assert rows(write(tmp_path / "x.item", 'item_id:token\ttitle:token\n1\t"open\n')) == [{"item_id:token": "1", "title:token": '"open'}]


def test_json_lines_by_parts(tmp_path):
    file = write(tmp_path / "x.jsonl.gz", "".join(json.dumps({"id": n, **({"late": n} if n > 2 else {})}) + "\n" for n in range(5)))
    parts = list(record_chunks(file, size=2))
    assert [first for first, _ in parts] == [1, 3, 5] and [list(frame.columns) for _, frame in parts] == [["id"], ["id", "late"], ["id", "late"]]


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="--separator=ab: give one character"):
        rows(write(tmp_path / "x.csv", "a,b\n1,2\n"), separator="ab")
    with pytest.raises(ValueError, match="no such file"):
        rows(tmp_path / "none.csv")


@pytest.mark.parametrize("value, text", [
    ("x", "x"), (" NaN ", " NaN "), (None, ""), (float("nan"), ""), (np.float32("nan"), ""), (pd.NA, ""), (pd.NaT, ""), (3, "3"), (3.0, "3"), (3.5, "3.5"),
    (np.int64(7), "7"), (np.float64(1999), "1999"), (2**60, str(2**60)), (True, "True"), (["a", None, 1.0], "a\n\n1"), ((), ""), ([["a", "b"], "c"], "a\nb\nc"),
    (np.array(["a", "é"], dtype=object), "a\né"), ({"a": [1], "é": None}, '{"a": [1], "é": null}'), ({"a": np.array(["x"], dtype=object)}, '{"a": ["x"]}'),
    (b"caf\xc3\xa9", "café"), (b"\xff", "\ufffd"), (pd.Timestamp("2020-01-02"), "2020-01-02 00:00:00"),
])  # fmt: skip
def test_cells(value, text):
    assert cell_text(value) == text


@pytest.mark.parametrize("value, text", [
    ("http://x/1.jpg", "http://x/1.jpg"), (" http://x/1.jpg http://x/2.jpg", "http://x/1.jpg"), (["http://x/1.jpg", "http://x/2.jpg"], "http://x/1.jpg"),
    (["", None, "HTTPS://x/3"], "HTTPS://x/3"), ("my cat.jpg", "my cat.jpg"), (["a b.jpg", "c.jpg"], "a b.jpg"), (None, ""), ([], ""), ("  ", ""),
])  # fmt: skip
def test_pictures_of_an_item(value, text):
    assert image_text(value) == text


def joined(columns, base, *paths, **options):
    names, found = ItemJoin(paths, **options).join(columns, base)
    return names, list(found)


def test_join(tmp_path):
    """Columns of the base first, then those of the files in order; a full cell stays, an empty one is filled, the first file wins."""
    first = write(tmp_path / "a.csv", "movieId,plot,title\n1,one,other\n2,,\n9,nine,\n1,again,\n")
    rows = '{"item_id": 2, "plot": "two", "cast": ["A", "B"]}\n{"item_id": 1.0, "plot": "late", "cast": []}\n{"plot": "of none"}\n'
    second = write(tmp_path / "b.jsonl", rows)
    names, found = joined(["title"], [("1", ["T1"]), (2, [""]), ("3", ["T3"])], first, second)
    assert names == ["title", "plot", "cast"] and found == [("1", ["T1", "one", ""]), (2, ["", "two", "A\nB"]), ("3", ["T3", "", ""])]


def test_join_by_odd_ids(tmp_path):
    """Ids are compared as they are written, so that both files may have them raw."""
    file = write(tmp_path / "a.tsv", "item_id:token\tplot:token_seq\n a/b \tslash\nNA\tnot missing\n%2F\tper cent\n")
    names, found = joined([], [("a/b", []), ("NA", []), ("%2F", []), ("/", [])], file)
    assert names == ["plot"] and [cells for _, cells in found] == [["slash"], ["not missing"], ["per cent"], [""]]


def test_join_without_files_or_ids(tmp_path):
    assert joined(["title"], [("1", ["T"])]) == (["title"], [("1", ["T"])])
    with pytest.raises(ValueError, match="a.csv: no column looks like the item"):
        joined([], [], write(tmp_path / "a.csv", "code,plot\n1,x\n"))
    assert joined([], [("1", [])], write(tmp_path / "b.csv", "code,plot\n1,x\n"), id_column="code") == (["plot"], [("1", ["x"])])
