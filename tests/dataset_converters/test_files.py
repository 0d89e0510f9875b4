"""Reading raw files: gzip told by content, folders and zips, lines, JSON lines and tables, whole and damaged."""

import gzip
import json
import zipfile

import pytest

from dataset_converters import files
from dataset_converters.files import Plain, find_files, json_rows, lines, read_header, table_chunks


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return Plain(path)


def texts(file, **options):
    return [line for _, line in lines(file, **options)]


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    for name in ("x.csv", "x.csv.gz", "x"):
        assert texts(write(tmp_path / name, gzip.compress(b"a\nb\n"))) == texts(write(tmp_path / name, b"a\nb\n")) == ["a", "b"]
    assert texts(write(tmp_path / "two.gz", gzip.compress(b"a\n") + gzip.compress(b"b"))) == ["a", "b"]  # members one after another
    assert texts(write(tmp_path / "one", b"\x1f")) == ["\x1f"]


def test_only_a_line_feed_ends_a_line(tmp_path, monkeypatch):
    odd = "a\u2028b\u0085c\x0bd\x0ce\x1cf\rg"
    file = write(tmp_path / "x", f"\ufeff{odd}\r\n\n last ")
    for size in (1, 3, 1 << 20):  # read by parts of any size
        monkeypatch.setattr(files, "LINES", size)
        assert list(lines(file)) == [(1, odd), (2, ""), (3, " last ")]
    assert texts(write(tmp_path / "y", b"caf\xe9"), encoding="latin-1") == ["café"]


@pytest.mark.parametrize("data, message", [
    (b"caf\xe9\n", "x: not UTF-8 .*iconv"), (gzip.compress(b"abc" * 1000)[:-9], "x: damaged or cut off"), (b"\x1f\x8b\x08broken", "x: damaged or cut off"),
    (gzip.compress(b"abc")[:-8] + bytes(8), "x: damaged or cut off"), (gzip.compress(b"a\n") + b"trailing", "x: damaged or cut off"),
])  # fmt: skip
def test_damaged_streams(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        texts(write(tmp_path / "x", data))


def test_files_that_are_none(tmp_path):
    for path, message in ((tmp_path / "none", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(ValueError, match=message):
            Plain(path)
    with pytest.raises(ValueError, match="empty"):
        write(tmp_path / "x", b"")


def test_a_folder_and_what_lies_below(tmp_path):
    for name in ("top.csv", "inner/top.csv", "inner/deep.csv", "inner/more/no.csv", ".hidden/no.csv", "b/deep.csv"):
        write(tmp_path / name, name)
    found = find_files(tmp_path)
    assert {name: texts(file)[0] for name, file in found.items()} == {"top.csv": "top.csv", "deep.csv": "b/deep.csv"}
    write(tmp_path / "late.csv", "x")
    empty = find_files(tmp_path)["late.csv"]
    (tmp_path / "late.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="late.csv: empty"):
        texts(empty)


def test_members_of_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"ml/inner/a.csv": "deep", "ml/a.csv": "near", "__MACOSX/ml/b.csv": "no", "../../c.csv": "out", "ml/dir/": ""}.items():
            archive.writestr(name, text)
    found = find_files(tmp_path / "x.zip")
    assert {name: texts(file)[0] for name, file in found.items()} == {"a.csv": "near", "c.csv": "out"}
    assert str(found["a.csv"]).endswith("x.zip, ml/a.csv") and [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_damaged_zips(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.csv", "text " * 100)
    whole = (tmp_path / "x.zip").read_bytes()
    encrypted, method = bytearray(whole), bytearray(whole)
    for data, where, value in ((encrypted, 8, 1), (method, 10, 99)):
        data[whole.index(b"PK\x01\x02") + where] = value
        data[where - 2] = value  # the same field stands in the member's own header
    for data in (whole.replace(b"text text", b"test text", 1), bytes(encrypted), bytes(method)):
        (tmp_path / "x.zip").write_bytes(data)
        with pytest.raises(ValueError, match="x.zip.*: damaged or cut off"):
            texts(find_files(tmp_path / "x.zip")["a.csv"])
    for data in (whole[:-30], b"no zip"):
        (tmp_path / "x.zip").write_bytes(data)
        with pytest.raises(ValueError, match="x.zip: neither a folder nor a zip"):
            find_files(tmp_path / "x.zip")


def test_json_lines(tmp_path):
    rows = [{"a": "line\u2028end"}, {"a": None, "b": [1]}]
    file = write(tmp_path / "x.jsonl", "\n" + "\n  \n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert list(json_rows(file)) == [(2, rows[0]), (4, rows[1])]
    broken = {'{"a": 1': "not a JSON object .*cut off", "[1]": "holds '\\[1\\]', not an object", "[" * 99_999: "not a JSON object"}
    for text, message in broken.items():
        with pytest.raises(ValueError, match=f"x.jsonl, line 2: {message}"):
            list(json_rows(write(tmp_path / "x.jsonl", f"{{}}\n{text}\n")))


def test_tables(tmp_path, monkeypatch):
    """Cells are text as they stand, rows are numbered over parts, columns come by name in any order."""
    monkeypatch.setattr(files, "ROWS", 2)
    cells = [["007", "NA"], ["1e5", ""], [" x ", 'a "b"'], ["ü\u2028", "l1\nl2"], ["-", "null"]]
    text = "\ufeffid,name,more\r\n" + "".join(f'{a},"{b.replace(chr(34), chr(34) * 2)}",z\r\n' for a, b in cells)
    parts = list(table_chunks(write(tmp_path / "x.csv", text), ",", ["name", "id"]))
    assert [first for first, _ in parts] == [1, 3, 5]
    assert [[row["id"], row["name"]] for _, part in parts for _, row in part.iterrows()] == cells
    assert read_header(Plain(tmp_path / "x.csv"), ",") == ["id", "name", "more"]
    file = write(tmp_path / "x.tsv", 'a "b\tc\n"d\te\n')
    (_, frame), = table_chunks(file, "\t", names=["one", "two"], quoted=False)
    assert frame.values.tolist() == [['a "b', "c"], ['"d', "e"]]
    assert read_header(write(tmp_path / "q.csv", '"a,b","c ""d"""\n1,2\n'), ",") == ["a,b", 'c "d"']


@pytest.mark.parametrize("text, message", [
    ("a,b\n1,2\n1,2,3\n", "not a table separated by ','"), ('a,b\n1,"2\n', "not a table separated by ','"), ("a,b\n", "has a header at most, and no row"),
    ("\n\n", "not a table|empty"),
])  # fmt: skip
def test_damaged_tables(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"x.csv: .*({message})"):
        list(table_chunks(write(tmp_path / "x.csv", text), ","))
