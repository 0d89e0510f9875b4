"""Tables of one's own: forms, columns, times, filters, data frames, and what is wrong with them."""

import gzip
import json
import sys

import pandas as pd
import pytest
from raw_layouts import HOSTILE, interactions, read_back, write_csv

from dataset_converters.tabular import convert_frames

HEADER = ["user_id", "item_id", "timestamp"]


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def table(separator):
    return "".join(separator.join(map(str, row)) + "\n" for row in [("userId", "rating", "movie_id", "Date"), *((u, r, i, t) for u, i, r, t in interactions())])


@pytest.mark.parametrize("name, separator", [("x.csv", ","), ("x.csv", ";"), ("x.tsv", "\t"), ("x.csv.gz", "|"), ("x.jsonl", None), ("x.jsonl.gz", None)])
def test_forms(tmp_path, convert, trains, out, name, separator):
    records = "".join(json.dumps({"userId": f"{u}", "rating": r, "movie_id": i, "Date": t}) + "\n" for u, i, r, t in interactions())
    text = convert("tabular", write(tmp_path / name, table(separator) if separator else records), dataset=None)
    assert "12 users, 6 items, 60 interactions" in text and "Times were read as s (by their size)." in text
    inter, items, properties = read_back(out / "x")
    assert inter == [{"user_id": str(u), "item_id": str(i), "rating": str(r), "timestamp": str(t)} for u, i, r, t in interactions()]
    assert items == {} and "item_modalities" not in properties
    trains(text)


@pytest.mark.parametrize("values, words, seconds", [
    (["1700000000", "1700000001.5"], [], ["1700000000.0", "1700000001.5"]),
    (["1700000000123", "1700000000000"], [], ["1700000000.123", "1700000000.0"]),
    (["1700000000000000"], [], ["1700000000"]), (["1700000000000000000"], [], ["1700000000"]),
    (["5", "6"], ["--timestamp-unit", "ms"], ["0.005", "0.006"]), (["1", "2"], [], ["1", "2"]),
    (["2023-11-14T22:13:20Z", "2023-11-14 23:13:20+01:00", "2023-11-14"], [], ["1700000000", "1700000000", "1699920000"]),
    (["2023-11-14 23:13:20.25"], ["--timezone", "Europe/Berlin"], ["1700000000.25"]),
    (["2023-11-14T22:13:20Z", "2023-11-14T23:13:20"], ["--timezone", "Europe/Berlin"], ["1700000000", "1700000000"]),
    (["14/11/2023"], ["--timestamp-format", "%d/%m/%Y"], ["1699920000"]), (["20231114"], ["--timestamp-format", "%Y%m%d"], ["1699920000"]),
])  # fmt: skip
def test_times(tmp_path, convert, out, values, words, seconds):
    write_csv(tmp_path / "x.csv", HEADER, [(f"u{place}", "i", value) for place, value in enumerate(values)])
    convert("tabular", tmp_path / "x.csv", *words)
    assert [row["timestamp"] for row in read_back(out / "made")[0]] == seconds


def test_hostile_text_is_exact(tmp_path, convert, out, trains):
    write_csv(tmp_path / "x.csv", HEADER, [(f"u{u}", f"i{i}", t) for u, i, _, t in interactions()])
    texts = [HOSTILE, '"', "\\n", " spaces ", "", "\ufeffmark"]
    header = ["item_id", "title:odd name", "poster", "title"]
    write_csv(tmp_path / "items.csv", header, [(f"i{n}", text, f"http://x/{n}.jpg", n) for n, text in enumerate(texts, 1)])
    text = convert("tabular", tmp_path / "x.csv", "--items", tmp_path / "items.csv")
    _, items, properties = read_back(out / "made")
    assert [row["title"] for row in items.values()] == texts and [row["title_2"] for row in items.values()] == list("123456")
    assert items["i1"]["image_url"] == "http://x/1.jpg" and 'item_text_fields: ["title", "title_2"]' in properties
    assert "item_text_escaped: True" in properties
    trains(text)


def test_odd_ids(tmp_path, convert, out, trains):
    """Ids that RecBole's reader or a file name could not hold come out percent-encoded, in both files alike, and apart from each other."""
    ids = ["a\tb", 'a"b', "../x", "NA", "%41", "A", "100%", "naïve 🎬", "a\\b", " padded "]
    rows = [(user, item, 10 * place + user) for user in range(8) for place, item in enumerate(ids)]
    write_csv(tmp_path / "x.csv", HEADER, rows)
    write_csv(tmp_path / "items.csv", ["item_id", "title"], [(item, item) for item in ids])
    text = convert("tabular", tmp_path / "x.csv", "--items", tmp_path / "items.csv")
    inter, items, _ = read_back(out / "made")
    expected = ["a%09b", "a%22b", "..%2Fx", "%4EA", "%2541", "A", "100%", "naïve 🎬", "a%5Cb", "padded"]
    assert [row["item_id"] for row in inter[:10]] == expected == list(items)
    assert [row["title"] for row in items.values()] == ids and "percent-encoded" in text and "10 items have text, 0 have none" in text
    trains(text)


def test_columns_given(tmp_path, convert, out):
    write_csv(tmp_path / "x.csv", ["who", "what", "when", "stars"], [("u", "i", 1, 3), ("u", "j", 2, 5)])
    write_csv(tmp_path / "items.csv", ["code", "name", "text", "file"], [("i", "I", "long", "a.png"), ("j", "J", "more", "b.png")])
    said = convert("tabular", tmp_path / "x.csv", "--user-column", "who", "--item-column", "what", "--timestamp-column", "when", "--min-rating", 4, "--items",
            tmp_path / "items.csv", "--items-id-column", "code", "--image-column", "file", "--text-columns", "text", "name")  # fmt: skip
    inter, items, _ = read_back(out / "made")
    assert inter == [{"user_id": "u", "item_id": "j", "rating": "5", "timestamp": "2"}]
    assert items == {"j": {"text": "more", "name": "J", "image_file": "b.png"}}
    assert f"Pictures: python -m dataset_converters images --data-path={out} --dataset=made --from <their folder or zip>\nNext:" in said


def test_a_frame_trains(out, trains):
    """Nullable, categorical and zoned columns, as pandas has them."""
    users, items, ratings, times = zip(*interactions())
    when = pd.Series(pd.to_datetime(times, unit="s", utc=True)).dt.tz_convert("Asia/Tokyo")
    frame = pd.DataFrame({"user": pd.Categorical(users), "item": pd.array(items, "Int64"), "rating": pd.array(ratings, "Int8"), "time": when})
    years = pd.array([1, None, 3, 4, 5, 6], "Int64")
    about = pd.DataFrame({"item": pd.array(range(1, 7), "Int64"), "title": pd.Categorical(["a", None, *"cdef"]), "year": years,
                          "made": pd.to_datetime(["2020-01-02", None, *["2020-01-02 03:04"] * 4], format="ISO8601")})  # fmt: skip
    text = convert_frames(frame, about, output_path=out, dataset="frames")
    inter, rows, _ = read_back(out / "frames")
    assert inter == [{"user_id": str(u), "item_id": str(i), "rating": str(r), "timestamp": str(t)} for u, i, r, t in interactions()]
    assert rows["2"] == {"title": "", "year": "", "made": ""} and rows["1"] == {"title": "a", "year": "1", "made": "2020-01-02 00:00:00"}
    trains(text)


def test_frames(out):
    frame = pd.DataFrame({"user": [1.0, 2.0, None], "item": ["a", "b", "c"], "time": pd.to_datetime(["2023-11-14 22:13:20"] * 3)})
    items = pd.DataFrame({"item": ["a", "b"], "text": ["x\ny", None], "n": [1, 2]})
    text = convert_frames(frame, items, output_path=out, dataset="frames", user_column="user")
    assert "2 users, 2 items, 2 interactions" in text and "Left out: 1 without a user or item id." in text and list(frame.columns) == ["user", "item", "time"]
    inter, rows, _ = read_back(out / "frames")
    assert inter == [{"user_id": user, "item_id": item, "timestamp": "1700000000"} for user, item in (("1", "a"), ("2", "b"))]
    assert rows == {"a": {"text": "x\ny", "n": "1"}, "b": {"text": "", "n": "2"}}
    with pytest.raises(TypeError, match="unknown options: mn_rating"):
        convert_frames(frame, output_path=out, mn_rating=3)


BAD = {
    "empty": ("", [], "x.csv: empty"), "header only": ("user_id,item_id,timestamp\n", [], "a header at most, and no row"),
    "separator": ("user_id,item_id,timestamp\nu,i,1\n", ["--separator", ";"], "no column looks like the user; name it with --user-column"),
    "no time": ("user_id,item_id\nu,i\n", [], "no column looks like the timestamp; name it with --timestamp-column. Columns: user_id, item_id"),
    "column": ("user_id,item_id,time\nu,i,1\n", ["--user-column", "member"], "has no column member. Columns: user_id, item_id, time"),
    "number": ("user_id,item_id,time\nu,i,1\nu,j,x\n", [], "x.csv, row 2: time is 'x', not a number"),
    "date": ("user_id,item_id,time\nu,i,2020-01-01\nu,j,soon\n", [], "x.csv, row 2: time is 'soon', not a date (ISO 8601"),
    "form": ("user_id,item_id,time\nu,i,2020-13-01\n", ["--timestamp-format", "%Y-%m-%d"], "row 1: time is '2020-13-01', not a date of the form %Y-%m-%d"),
    "like dates": ("user_id,item_id,time\nu,i,20200101\n", [], "look like dates, e.g. 20200101. Give --timestamp-format %Y%m%d"),
    "zone": ("user_id,item_id,time\nu,i,1\n", ["--timezone", "Mars/Base"], "--timezone=Mars/Base: unknown"),
    "rating": ("user_id,item_id,time\nu,i,1\n", ["--min-rating", "3"], "the interactions have no rating"),
    "rated": ("user_id,item_id,time,rating\nu,i,1,high\n", [], "row 1: rating is 'high', not a number"),
    "ragged": ("user_id,item_id,time\nu,i,1\nu,i,1,9,9\n", [], "not a table separated by ','"),
    "quote": ('user_id,item_id,time\nu,"i,1\n', [], "not a table separated by ','"),
    "option": ("user_id,item_id,time\nu,i,1\n", ["--k-core", "many"], "argument --k-core: invalid int value: 'many'. See python -m dataset_converters tabular"),
    "no id": ("user_id,item_id,time\n,i,1\n", [], "no interaction was read (1 without a user or item id)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_damaged(tmp_path, refused, name):
    text, words, message = BAD[name]
    assert message in refused("tabular", write(tmp_path / "x.csv", text), *words)


def test_damaged_json_and_items(tmp_path, refused, monkeypatch):
    assert "no such file" in refused("tabular", tmp_path / "x.csv")
    assert "not a file" in refused("tabular", tmp_path)
    rows = '{"user_id": "u", "item_id": "i", "time": 1}\n'
    assert "x.jsonl, line 2: not a JSON object" in refused("tabular", write(tmp_path / "x.jsonl", rows + '{"user_id": "u", "ite'))
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"user_id,item_id,time\n" * 1000)[:-20])
    assert "damaged or cut off" in refused("tabular", tmp_path / "x.csv.gz")
    good = write(tmp_path / "good.jsonl", rows)
    assert "share no id with the interactions: these have ['i']" in refused("tabular", good, "--items", write(tmp_path / "i.csv", "item_id,title\nx,y\n"))
    assert "no column looks like the item" in refused("tabular", good, "--items", write(tmp_path / "i.csv", "code,title\nx,y\n"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in refused("tabular", write(tmp_path / "x.parquet", "PAR1"))


def parquet(path, **columns):
    """Write columns (lists, or arrays of pyarrow) to a Parquet file."""
    pytest.importorskip("pyarrow", reason="reads Parquet only where pyarrow is installed")
    from pyarrow import parquet, table

    parquet.write_table(table(columns), path)
    return path


def test_parquet(tmp_path, convert, out, trains):
    """Dictionary columns, integers with gaps, times with a zone and without, lists, structs, bytes, decimals; several row groups."""
    pa = pytest.importorskip("pyarrow", reason="reads Parquet only where pyarrow is installed")
    users, items, ratings, times = zip(*interactions(), (1, None, None, None))
    parquet(tmp_path / "x.parquet", user_id=pa.array([f"u{user}" for user in users]).dictionary_encode(), item_id=pa.array(items, pa.int32()),
            rating=pa.array(ratings, pa.decimal128(3, 1)), time=pa.array(times, pa.timestamp("s", tz="America/New_York")))  # fmt: skip
    more = {"item_id": pa.array(range(1, 7), pa.int64()), "title": pa.array(["A", "B", None, "", "NA", HOSTILE]).dictionary_encode(),
            "categories": [["Toys", "Dolls"], [], None, ["é"], ["a", None], []], "details": [{"a": ["x"], "b": 1}, *[None] * 5],
            "year": pa.array([1999, None, 2001, 1, 2, 3], pa.int16()), "made": pa.array([19675, *[None] * 5], pa.date32()),
            "raw": pa.array(["naïve".encode(), *[None] * 5]), "images": [["", "http://x/1.jpg", "http://x/2.jpg"], ["http://x/3.jpg"], None, [], [""], None]}
    parquet(tmp_path / "items.parquet", **more)
    text = convert("tabular", tmp_path / "x.parquet", "--items", tmp_path / "items.parquet", "--image-column", "images")
    inter, rows, _ = read_back(out / "made")
    assert inter == [{"user_id": f"u{u}", "item_id": str(i), "rating": str(r), "timestamp": str(t)} for u, i, r, t in interactions()]
    assert [row["title"] for row in rows.values()] == ["A", "B", "", "", "NA", HOSTILE]
    assert [row["categories"] for row in rows.values()] == ["Toys\nDolls", "", "", "é", "a\n", ""]
    assert [row["year"] for row in rows.values()] == ["1999", "", "2001", "1", "2", "3"]
    assert rows["1"] == {"title": "A", "categories": "Toys\nDolls", "details": '{"a": ["x"], "b": 1}', "year": "1999", "made": "2023-11-14", "raw": "naïve",
                         "image_url": "http://x/1.jpg"} and rows["2"]["image_url"] == "http://x/3.jpg" and rows["4"]["image_url"] == ""  # fmt: skip
    trains(text, "Molar")


def test_parquet_of_pandas(tmp_path, convert, out):
    """An index that pandas wrote is a column where it has a name, and nothing where it has none."""
    pytest.importorskip("pyarrow", reason="reads Parquet only where pyarrow is installed")
    frame = pd.DataFrame({"user_id": ["u", "v"], "item_id": [7, 8], "time": pd.to_datetime(["2023-11-14 22:13:20"] * 2)})
    frame.set_index("user_id").to_parquet(tmp_path / "x.parquet")
    pd.DataFrame({"item_id": [8, 7], "title": ["b", "a"]}, index=[5, 3]).to_parquet(tmp_path / "i.parquet")
    convert("tabular", tmp_path / "x.parquet", "--items", tmp_path / "i.parquet")
    inter, rows, _ = read_back(out / "made")
    assert inter == [{"user_id": user, "item_id": item, "timestamp": "1700000000"} for user, item in (("u", "7"), ("v", "8"))]
    assert rows == {"8": {"title": "b"}, "7": {"title": "a"}}


def test_damaged_parquet(tmp_path, refused):
    whole = parquet(tmp_path / "x.parquet", user_id=["u"] * 9, item_id=range(9), time=range(9)).read_bytes()
    for data in (b"PAR1 no table PAR1", whole[:-20], whole[: len(whole) // 2]):
        (tmp_path / "x.parquet").write_bytes(data)
        assert "x.parquet: not a Parquet file that can be read" in refused("tabular", tmp_path / "x.parquet")
    assert "no interaction was read" in refused("tabular", parquet(tmp_path / "none.parquet", user_id=[], item_id=[], time=[]))


def clicks(tmp_path):
    return write(tmp_path / "x.csv", "".join(",".join(map(str, row)) + "\n" for row in [HEADER, *((f"u{u}", f"i{i}", t) for u, i, _, t in interactions())]))


def item_table(tmp_path, columns, cells, name="items.csv", separator=","):
    ids = sorted({i for _, i, _, _ in interactions()})
    rows = [["item_id", *columns], *([f"i{i}", *(cell.format(i) for cell in cells)] for i in ids)]
    return write(tmp_path / name, "".join(separator.join(row) + "\n" for row in rows))


def test_quotation_marks_that_are_text(tmp_path, convert, out):
    """A tab-separated file of whole lines with a cell that opens a quotation and does not end in it has no quoting; one that has keeps it."""
    ids = sorted({i for _, i, _, _ in interactions()})
    titles = ['"Hello" she said', '"Open', "plain", 'Close"', '"Weird Al" live', "x"]
    for name, cells, expected in (("a.tsv", titles, titles), ("b.tsv", ['"a ""b"" c"', "d"] * 3, ['a "b" c', "d"] * 3)):
        table = "item_id\ttitle\tyear\n" + "".join(f"i{i}\t{cell}\t2001\n" for i, cell in zip(ids, cells, strict=True))
        convert("tabular", clicks(tmp_path), "--items", write(tmp_path / name, table), dataset=name[0])
        items = read_back(out / name[0])[1]
        assert [items[f"i{i}"]["title"] for i in ids] == expected


def test_text_columns_are_text_whatever_their_names(tmp_path, convert, out):
    items = item_table(tmp_path, ["title", "poster", "photo_caption"], ["T{}", "http://x/{}.jpg", "says {}"])
    convert("tabular", clicks(tmp_path), "--items", items, "--text-columns", "title", "poster", "photo_caption")
    _, found, properties = read_back(out / "made")
    assert found["i1"] == {"title": "T1", "poster": "http://x/1.jpg", "photo_caption": "says 1"} and '["title", "poster", "photo_caption"]' in properties


@pytest.mark.parametrize("words, message", [
    (["--text-columns", "item_id", "title"], "item_id is the column of ids or pictures"), (["--text-columns", "title", "title"], "title stands there twice"),
    (["--text-columns", "big", "--image-column", "big"], "big is the column of ids or pictures"),
])  # fmt: skip
def test_text_columns_that_cannot_be(tmp_path, refused, words, message):
    items = item_table(tmp_path, ["title", "big"], ["T{}", "http://x/{}.jpg"])
    assert message in refused("tabular", clicks(tmp_path), "--items", items, *words)


def test_the_chosen_pictures_have_the_name(tmp_path, convert, out):
    items = item_table(tmp_path, ["title", "image_url", "big"], ["T{}", "http://small/{}.jpg", "http://big/{}.jpg"])
    convert("tabular", clicks(tmp_path), "--items", items, "--image-column", "big")
    assert read_back(out / "made")[1]["i1"] == {"title": "T1", "image_url_2": "http://small/1.jpg", "image_url": "http://big/1.jpg"}


def test_pictures_alone(tmp_path, convert, out):
    """Without a column of text the links are none."""
    text = convert("tabular", clicks(tmp_path), "--items", item_table(tmp_path, ["image"], ["http://x/{}.jpg"]))
    properties = read_back(out / "made")[2]
    assert "item_modalities: [image]" in properties and "item_text_fields" not in properties and "Pictures: python" in text


def test_a_field_that_comes_late(tmp_path, convert, out, monkeypatch):
    monkeypatch.setattr("dataset_converters.item_files.record_chunks.__defaults__", (None, 2, False))
    rows = [{"item_id": f"i{i}", "title": f"T{i}", **({"plot": "late"} if i == 4 else {})} for i in sorted({i for _, i, _, _ in interactions()})]
    convert("tabular", clicks(tmp_path), "--items", write(tmp_path / "items.jsonl", "".join(map(lambda row: json.dumps(row) + "\n", rows))))
    items = read_back(out / "made")[1]
    assert items["i4"]["plot"] == "late" and items["i1"]["plot"] == ""


def test_ratings_as_they_were(tmp_path, convert, out):
    rows = "user_id,item_id,timestamp,rating\nu,a,1,12345.678\nu,b,2,1234567.5\nu,c,3,\n"
    convert("tabular", write(tmp_path / "x.csv", rows))
    assert [row["rating"] for row in read_back(out / "made")[0]] == ["12345.678", "1.2345675e+06", ""]


def test_times_of_two_units(tmp_path, refused):
    rows = "user_id,item_id,timestamp\nu,a,1600000000\nu,b,1600000001000\n"
    assert "1600000000 looks like s, 1600000001000 like ms" in refused("tabular", write(tmp_path / "x.csv", rows))


def test_links_and_ids_are_known_by_names_of_several_words(tmp_path, convert, out):
    convert("tabular", clicks(tmp_path), "--items", item_table(tmp_path, ["title", "Product Url", "IMDB ID"], ["T{}", "http://x/{}", "tt{}"]))
    assert 'item_text_fields: ["title"]' in read_back(out / "made")[2]


def test_some_cells_quoted_and_some_not(tmp_path, refused):
    """Neither way is right for all of them."""
    ids = sorted({i for _, i, _, _ in interactions()})
    cells = ['"Best Film"', '"Weird" Al', *"abcd"]
    table = "item_id\ttitle\n" + "".join(f"i{i}\t{cell}\n" for i, cell in zip(ids, cells, strict=True))
    assert "items.tsv, line 3: a cell begins with a quotation mark" in refused("tabular", clicks(tmp_path), "--items", write(tmp_path / "items.tsv", table))
