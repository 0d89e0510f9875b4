"""Bad input to the converters: each row is a raw file or an option, and what the one line of the error must say."""

import gzip
import json
import os
import re

import pytest
from hostile_bytes import line_without_end, pickled, png, python_call, zip_of
from outcome import assert_short_error, listing
from raw_layouts import amazon, interactions, movielens, write_csv, write_lines, zipped

from dataset_converters.__main__ import main

HEADER = "user_id,item_id,timestamp,rating"
RATINGS = ["userId", "movieId", "rating", "timestamp"]


def write(path, content):
    """Bytes or text as they are; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cut(path, keep=0.5):
    """The first part of a file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


# ------------------------------------------------------------------ movielens


def broken_movielens(release, name, content):
    """A release with one file replaced (None: removed)."""

    def make(raw):
        root = movielens(raw, release)
        (root / name).unlink()
        if content is not None:
            write(root / name, content)
        return ["movielens", "--input-path", root]

    return make


def movielens_zip(spoil):
    def make(raw):
        path = zipped(movielens(raw, "ml-25m"))
        spoil(path)
        return ["movielens", "--input-path", path]

    return make


def lose_the_beginning(path):
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 2 :])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(bytes(data))


def directory_in_place_of_a_file(raw):
    root = movielens(raw, "ml-25m")
    (root / "movies.csv").unlink()
    (root / "movies.csv").mkdir()
    return ["movielens", "--input-path", root]


def lying_zip(raw):
    """A zip whose members are called ../… and hold nothing of MovieLens."""
    raw.mkdir()
    return ["movielens", "--input-path", zip_of(raw / "ml.zip", {"../../evil.csv": "a,b\n", "/abs.csv": "a\n"})]


def zip_bomb(raw):
    raw.mkdir()
    csv = ",".join(RATINGS) + "\n1,1,4.0," + "1" * (2 << 20)
    return ["movielens", "--input-path", zip_of(raw / "ml.zip", {"ratings.csv": csv, "movies.csv": "movieId,title,genres\n1,A,B\n"})]


def movie_bomb(raw):
    root = movielens(raw, "ml-1m")
    (root / "movies.dat").unlink()
    line_without_end(root / "movies.dat", 2)
    return ["movielens", "--input-path", root]


def item_file(content, name="plots.csv"):
    def make(raw):
        return ["movielens", "--input-path", movielens(raw, "ml-25m"), "--item-files", write(raw / name, content)]

    return make


CSV_HEAD = ",".join(RATINGS) + "\n"
MOVIELENS = {
    "no such folder": (lambda raw: ["movielens", "--input-path", raw / "nothing"], "nothing: no such file or folder"),
    "empty folder": (lambda raw: raw.mkdir() or ["movielens", "--input-path", raw], "not a release of MovieLens.*Found: nothing"),
    "a text file": (lambda raw: ["movielens", "--input-path", write(raw / "ml.zip", "text")], "ml.zip: neither a folder nor a zip"),
    "a zip cut off": (movielens_zip(cut), "neither a folder nor a zip"),
    "a zip without its beginning": (movielens_zip(lose_the_beginning), "ml-25m.zip.*damaged or cut off"),
    "a zip with a flipped byte": (movielens_zip(flip_a_byte), r"ml-25m.zip.*(damaged|row|line|header|not UTF-8|neither)"),
    "a zip of others' names": (lying_zip, "not a release.*Found: abs.csv, evil.csv"),
    "a zip bomb": (zip_bomb, "ratings.csv.*a line of more than 1 MiB"),
    "a bomb of one line in gzip": (movie_bomb, "movies.dat.*a line of more than 1 MiB"),
    "a folder in place of a file": (directory_in_place_of_a_file, "not a release"),
    "no genres": (broken_movielens("ml-100k", "u.genre", None), "not a release.*u.genre"),
    "empty ratings": (broken_movielens("ml-25m", "ratings.csv", ""), "ratings.csv: empty"),
    "a header alone": (broken_movielens("ml-25m", "ratings.csv", CSV_HEAD), "ratings.csv: has a header at most"),
    "another header": (broken_movielens("ml-25m", "ratings.csv", "user,movie,stars\n1,1,3\n"), "the header must have userId, movieId.*Found: user, movie"),
    "a number that is none": (broken_movielens("ml-25m", "ratings.csv", CSV_HEAD + "1,1,3.0,5\n1,2,good,6\n"), "ratings.csv, row 2: the rating is 'good'"),
    "a date for a number": (broken_movielens("ml-1m", "ratings.dat", "1::1::4::2000-01-01\n"), "ratings.dat, row 1: the timestamp is '2000-01-01'"),
    "rows too long": (broken_movielens("ml-25m", "ratings.csv", CSV_HEAD + "1,1,3.0,5\n1,2,3.0,6,7,8\n"), "ratings.csv: not a table.*line 3, saw 6"),
    "rows too short": (broken_movielens("ml-25m", "ratings.csv", CSV_HEAD + "1\n2\n"), "no interaction was read .2 without"),
    "an infinite rating": (broken_movielens("ml-25m", "ratings.csv", CSV_HEAD + "1,1,inf,5\n"), "ratings.csv, row 1: the rating is 'inf'"),
    "not UTF-8": (broken_movielens("ml-25m", "movies.csv", b"movieId,title,genres\n1,\xff\xfe\xfd,Drama\n"), "movies.csv: not UTF-8"),
    "binary rubbish": (broken_movielens("ml-1m", "ratings.dat", bytes(range(256)) * 20), "ratings.dat"),
    "ragged movies": (broken_movielens("ml-25m", "movies.csv", "movieId,title,genres\n1,Big\n"), "movies.csv, line 2: 2 columns, expected 3"),
    "ragged u.item": (broken_movielens("ml-100k", "u.item", "1|Toy Story (1995)|x\n"), "u.item, line 1: 3 columns"),
    "no separator": (broken_movielens("ml-1m", "movies.dat", "1,Toy Story,Comedy\n"), "movies.dat, line 1: .*is not id::title::genres"),
    "no shared id": (broken_movielens("ml-25m", "movies.csv", "movieId,title,genres\n99,Big (1988),Comedy\n"), "the items share no id"),
    "extra file without ids": (item_file("film;plot\n1;x\n"), "plots.csv: no column looks like the item"),
    "extra file of nested JSON": (item_file("[" * 100_000, "plots.jsonl"), "plots.jsonl, line 1: not a JSON object"),
}

# --------------------------------------------------------------------- amazon


def reviews(*rows, name="Toys.jsonl"):
    def make(raw):
        raw.mkdir()
        write_lines(raw / name, [row if isinstance(row, str) else json.dumps(row) for row in rows])
        return ["amazon", "--input-path", raw]

    return make


def metadata(content, release="2014"):
    def make(raw):
        amazon(raw, release)
        write(next(raw.glob("meta*")), gzip.compress(content.encode()) if release != "2023" else content)
        return ["amazon", "--input-path", raw]

    return make


def cut_reviews(raw):
    amazon(raw, "2014")
    cut(raw / "reviews_Toys_5.json.gz", 0.8)
    return ["amazon", "--input-path", raw]


REVIEW = {"user_id": "A", "parent_asin": "B", "rating": 5.0, "timestamp": 1500000000000}
AMAZON = {
    "no reviews": (lambda raw: raw.mkdir() or ["amazon", "--input-path", raw], "no reviews there"),
    "a gzip cut off": (cut_reviews, "reviews_Toys_5.json.gz.*(damaged or cut off|not a JSON object)"),
    "not a gzip": (lambda raw: ["amazon", "--input-path", write(raw / "Toys.json.gz", b"\x1f\x8bxx")], "Toys.json.gz: damaged or cut off"),
    "unknown fields": (reviews({"who": 1, "what": 2}), "Toys.jsonl, line 1: unknown layout.*Found: who, what"),
    "a list for an object": (reviews("[1, 2]"), r"Toys.jsonl, line 1: holds '\[1, 2\]'"),
    "a line cut off": (reviews(REVIEW, '{"user_id": "A", "par'), "Toys.jsonl, line 2: not a JSON object"),
    "brackets without end": (reviews("[" * 100_000), "Toys.jsonl, line 1: not a JSON object"),
    "objects without end": (reviews('{"a":' * 100_000), "Toys.jsonl, line 1: not a JSON object"),
    "a number of 5,000 digits": (reviews('{"user_id": ' + "9" * 5000 + "}"), "Toys.jsonl, line 1: not a JSON object"),
    "a list for an id": (reviews({**REVIEW, "user_id": ["A"]}), "Toys.jsonl, row 1: user_id is a list"),
    "an object for a rating": (reviews({**REVIEW, "rating": {"stars": 5}}), "Toys.jsonl, row 1: rating is .*stars"),
    "an object for a time": (reviews({**REVIEW, "timestamp": [1]}), "Toys.jsonl, row 1: timestamp is"),
    "a rating of 400 digits": (reviews({**REVIEW, "rating": 10**400}), "Toys.jsonl, row 1: rating is '1000.*not a number"),
    "a time of 400 digits": (reviews({**REVIEW, "timestamp": 10**400}), "Toys.jsonl, row 1: timestamp is '1000.*not a number"),
    "a word for a time": (reviews(REVIEW, {**REVIEW, "timestamp": "now"}), "Toys.jsonl, row 2: timestamp is 'now'"),
    "empty ids": (reviews({**REVIEW, "user_id": " "}), "no interaction was read .1 without a user or item id"),
    "an endless line": (lambda raw: raw.mkdir() or ["amazon", "--input-path", line_without_end(raw / "Toys.jsonl", 2)], "a line of more than 1 MiB"),
    "a call in the metadata": (lambda raw: metadata("{'asin': 'B000000001', 'title': " + python_call(raw / "ran") + "}\n")(raw), "line 1: not a JSON"),
    "a pickle for metadata": (lambda raw: metadata(repr(pickled(raw / "ran")))(raw), "meta_Toys.*line 1: (not a JSON object|metadata without asin)"),
    "nested literals": (metadata("{'asin': 'B000000001', 'title': " + "[" * 100_000 + "}"), "meta_Toys.*line 1: not a JSON object"),
    "metadata without asin": (metadata('{"title": "x"}\n'), "meta_Toys.*line 1: metadata without asin"),
}

# ------------------------------------------------------------------- pixelrec


def pixelrec(rows="1,a,1500000000\n2,b,1500000001\n", items=None, covers=None, header="item_id,user_id,timestamp\n"):
    def make(raw):
        write(raw / "p" / "Pixel.csv", header + rows)
        if items is not None:
            write(raw / "p" / "item_info.csv", items)
        words = ["pixelrec", "--input-path", raw / "p"]
        if covers:
            for name, content in covers.items():
                write(raw / "cover" / name, content)
            words += ["--covers", raw / "cover"]
        return words

    return make


PIXELREC = {
    "no interactions": (pixelrec(header="a,b,c\n"), "one CSV with the columns item_id,user_id,timestamp is needed, found none"),
    "a word for a time ": (pixelrec("1,a,1500000000\n2,b,soon\n"), "Pixel.csv, row 2: timestamp is 'soon'"),
    "commas without quotes": (pixelrec(items="item_id,title,tag\n1,A, and B,C\n"), "item_info.csv: its rows have more cells than its header"),
    "a quote without end": (pixelrec(items='item_id,title,tag\n1,"A,B\n'), "item_info.csv.*(EOF|end)"),
    "no covers": (pixelrec(covers={"a.txt": "x"}), "holds no .jpg"),
    "covers of others": (pixelrec(covers={"..%2Fx.jpg": "x", "9.jpg": "x"}), "no file there is named after an item"),
    "covers that are a folder": (lambda raw: [*pixelrec()(raw), "--covers", os.devnull], "--covers=.*no such folder"),
    "item info without ids": (lambda raw: [*pixelrec()(raw), "--item-info", write(raw / "i.csv", "a,b\n1,2\n")], "i.csv: has no column item_id"),
}

# -------------------------------------------------------------------- tabular


def table(content, *words, name="clicks.csv", items=None, items_name="items.csv"):
    def make(raw):
        extra = [] if items is None else ["--items", write(raw / items_name, items)]
        return ["tabular", "--input-path", write(raw / name, content), *extra, *words]

    return make


ROWS = HEADER + "\n" + "".join(f"u{user},i{item},{time},{rating}\n" for user, item, rating, time in interactions())
LONG = {"user_id": "u", "item_id": "i", "timestamp": 5}
TABULAR = {
    "a folder": (lambda raw: raw.mkdir() or ["tabular", "--input-path", raw], "raw: not a file"),
    "empty file": (table(""), "clicks.csv: empty"),
    "blank lines": (table("\n\n\n"), "clicks.csv.*empty"),
    "no user": (table("a,item_id,timestamp\n1,2,3\n"), "no column looks like the user; name it with --user-column"),
    "a column that is not there": (table(ROWS, "--user-column=member"), "clicks.csv: has no column member"),
    "one column for two": (table(ROWS, "--user-column=item_id"), "item_id: given as the column of users and of items. Name another with --item-column"),
    "ragged": (table(ROWS + "u1,i1,5,4,3,2\n"), "clicks.csv: not a table separated by ','.*saw 6"),
    "UTF-16": (table(ROWS.encode("utf-16")), "clicks.csv: not UTF-8"),
    "NUL bytes": (table(HEADER.encode() + b"\n\0\0\0\0\n"), "no interaction was read|clicks.csv"),
    "a workbook": (lambda raw: raw.mkdir() or ["tabular", "--input-path", zip_of(raw / "clicks.csv", {"xl/a.xml": "<a/>" * 500})], "clicks.csv"),
    "days for times": (table(HEADER + "\nu,i,20240131,5\n"), "the numbers look like dates"),
    "a date of another form": (table(HEADER + "\nu,i,2024-01-31,5\nu,j,31/01/2024,5\n"), "clicks.csv, row 2: timestamp is '31/01/2024', not a date"),
    "a form of no date": (table(ROWS, "--timestamp-format=%"), "--timestamp-format=%: not a form of dates"),
    "an infinite time": (table(HEADER + "\nu,i,inf,5\n"), "clicks.csv, row 1: timestamp is 'inf', not a number"),
    "a zone that is not there": (table(ROWS, "--timezone=Mars/Base"), "--timezone=Mars/Base: unknown"),
    "a zone outside the zones": (table(ROWS, "--timezone=../../etc/passwd"), "--timezone=../../etc/passwd: unknown"),
    "a separator of two": (table(ROWS, "--separator=::"), "--separator=::: give one character"),
    "a separator that is a quote": (table(ROWS, '--separator="'), "--separator=\": give one character"),
    "a separator beyond ASCII": (table(ROWS, "--separator=€"), "--separator=€: give one character"),
    "a negative core": (table(ROWS, "--k-core=-2"), "--k-core=-2: must be 0 or more"),
    "a rating that is no number": (table(ROWS, "--min-rating=nan"), "--min-rating=nan: must be a number"),
    "no rating to filter by": (table("user_id,item_id,timestamp\nu,i,5\n", "--min-rating=4"), "--min-rating=4.0: the interactions have no rating"),
    "a filter that leaves nothing": (table(ROWS, "--k-core=100"), "no interaction is left after the filters: .*outside the 100-core"),
    "a name with a path": (table(ROWS, "--dataset=../../x"), "--dataset=../../x: a name is made of letters"),
    "a name with a NUL": (table(ROWS, "--dataset=a\0b"), "--dataset=a.b: a name is made of letters"),
    "an unknown option": (table(ROWS, "--k-cor=5", "--nonsense"), "unrecognized arguments: --nonsense"),
    "JSON lists for ids": (table(json.dumps({**LONG, "user_id": [1, 2]}), name="c.jsonl"), "c.jsonl, row 1: user_id is a list"),
    "JSON objects for times": (table(json.dumps({**LONG, "timestamp": {"a": 1}}), name="c.jsonl"), "c.jsonl, row 1: timestamp is"),
    "items that are no table": (table(ROWS, items=b"\x80\x03" + bytes(range(256))), "items.csv"),
    "items without ids": (table(ROWS, items="title,plot\na,b\n"), "items.csv: no column looks like the item"),
    "items of others": (table(ROWS, items="item_id,title\nzz,b\n"), "the items share no id with the interactions"),
    "a text column that is not there": (table(ROWS, "--text-columns", "plot", items="item_id,title\ni1,b\n"), "items.csv: has no column plot"),
    "no Parquet": (table(b"PAR1 no table PAR1", name="c.parquet"), "c.parquet: (not a Parquet file|reading Parquet needs pyarrow)"),
}

# --------------------------------------------------------------------- output


def to_output(change, *more):
    """A good conversion whose output folder (the last word) is not as it should be."""

    def make(raw):
        words = table(ROWS)(raw)
        return [*words, *more, "--output-path", change(raw)]

    return make


def is_a_file(raw):
    return write(raw / "out", "mine")


def holds_the_data_set(raw):
    write(raw / "out" / "made" / "made.inter", "mine")
    return raw / "out"


def holds_something_else(raw):
    write(raw / "out" / "made" / "thesis.txt", "mine")
    return raw / "out"


def leads_elsewhere(raw):
    write(raw / "elsewhere" / "made.inter", "mine")
    (raw / "out").mkdir()
    (raw / "out" / "made").symlink_to(raw / "elsewhere")
    return raw / "out"


OUTPUT = {
    "output that is a file": (to_output(is_a_file), "out"),
    "output below a file": (to_output(lambda raw: is_a_file(raw) / "deep"), "out"),
    "output where nothing can be written": (to_output(lambda raw: "/proc/nothing"), "proc"),
    "output that exists": (to_output(holds_the_data_set), "made: exists. Choose another --dataset"),
    "output that is no data set": (to_output(holds_something_else, "--overwrite"), "made: a link, or holds no made.inter"),
    "output that is a link": (to_output(leads_elsewhere, "--overwrite"), "made: a link, or holds no made.inter"),
    "no such converter": (lambda raw: raw.mkdir() or ["tabluar"], "tabluar: no such converter. Did you mean tabular"),
    "no input": (lambda raw: raw.mkdir() or ["amazon"], "required: --input-path"),
}

# --------------------------------------------------------------------- images


def pictures(*words, item="item_id:token\timage_url:token\n1\thttp://127.0.0.1:9/1.jpg\n", settings=None, **files):
    """A data set `made` with pictures to store; `files` lie in raw/."""

    def make(raw):
        if item is not None:
            write(raw / "data" / "made" / "made.item", item)
        if settings:
            write(raw / "data" / "made" / "dataset.yaml", settings)
        for name, content in files.items():
            write(raw / name.replace("_", "."), content)
        return ["images", "--data-path", raw / "data", *(str(word).replace("RAW", str(raw)) for word in words)]

    return make


IMAGES = {
    "images: no .item": (pictures(item=None), "made.item: no such file"),
    "images: empty .item": (pictures(item=""), "made.item: no column"),
    "images: no column": (pictures(item="item_id:token\ttitle:token\n1\ta\n"), "made.item: no column image_url"),
    "images: ragged .item": (pictures(item="item_id:token\timage_url:token\n1\n"), "made.item, line 2: 1 columns"),
    "images: not UTF-8": (pictures(item=b"item_id:token\timage_url:token\n\xff\ta\n"), "made.item: not UTF-8"),
    "images: a YAML tag": (pictures(settings="load_col: !!python/name:os.system\n"), "dataset.yaml: not YAML"),
    "images: a size of nothing": (pictures("--size=0x0"), "--size=0x0: not <width>x<height>"),
    "images: no limit": (pictures("--max-bytes=-1"), "--max-bytes=-1: must be 1 or more"),
    "images: a rate that is no number": (pictures("--rate=nan"), "--rate=nan: must be"),
    "images: links that are missing": (pictures("--links=RAW/links.csv"), "links.csv: no such file"),
    "images: links without a column": (pictures("--links=RAW/links.csv", links_csv="item_id,poster\n1,x\n"), "links.csv: no column url"),
    "images: links with an open quote": (pictures("--links=RAW/links.csv", links_csv='item_id,url\n1,"x\n'), "links.csv: not a CSV file"),
    "images: a source that is no zip": (pictures("--from=RAW/p.zip", p_zip="PK\3\4 no zip"), "p.zip: not a zip file"),
    "images: a source that is missing": (pictures("--from=RAW/p.zip"), "--from=.*p.zip: no such folder or zip"),
    "images: mapping without a source": (pictures("--mapping=RAW/m.csv", m_csv="item_id,file\n1,x\n"), "--mapping names the files of --from"),
    "images: a proxy of files": (pictures("--proxy=file:///etc/passwd"), "--proxy=file.*not an http or https URL"),
    "images: a data set elsewhere": (pictures("--dataset=../made"), "--dataset=../made: a name is made of"),
}

CASES = {**MOVIELENS, **AMAZON, **PIXELREC, **TABULAR, **OUTPUT, **IMAGES}
assert len(CASES) == sum(map(len, (MOVIELENS, AMAZON, PIXELREC, TABULAR, OUTPUT, IMAGES)))


@pytest.mark.parametrize("name", CASES)
def test_bad_input(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr("dataset_converters.files.MAX_LINE", 1)  # MiB, so that bombs can be small
    make, message = CASES[name]
    words = [str(word) for word in make(tmp_path / "raw")]
    if words[0] in ("movielens", "amazon", "pixelrec", "tabular") and len(words) > 1:
        words += [] if any(word.startswith("--output-path") for word in words) else ["--output-path", str(tmp_path / "new" / "out")]
    if len(words) > 1 and not any(word.startswith("--dataset") for word in words):
        words += ["--dataset", "made"]
    before = listing(tmp_path)
    code = main(words)
    assert_short_error(code, *capsys.readouterr(), message)
    assert listing(tmp_path) == before


# --------------------------------------------------------- handled and counted

ODD_IDS = ["../../x", "a/b", "..", "~", "con", "x\0y", "-rf", "NaN", "[PAD]", "%2e%2e", "é" * 300, "u" * 100_000, "\u202egpj.1", "=cmd|' /C calc'!A0"]


def odd_rows(raw):
    raw.mkdir()
    write_csv(raw / "clicks.csv", HEADER.split(","), [(user, item, 5 + place, 4) for user in ODD_IDS for place, item in enumerate(ODD_IDS)])
    return ["tabular", "--input-path", raw / "clicks.csv"]


COUNTED = {
    "rows without an id or a time": (table(ROWS + ",i1,5,4\nu1,,5,4\nu1,i1,,4\n"), "2 without a user or item id, 1 without a time"),
    "empty lines and cells": (table(ROWS + "\n\n,,,\n"), "1 without a user or item id"),
    "ids that no file name can hold": (odd_rows, "ids hold a %"),
    "items twice": (table(ROWS, items="item_id,title\ni1,a\ni1,b\nzz,c\n"), "1 item rows repeat an item.*1 item rows have no interaction"),
    "a style sheet for a price": (lambda raw: ["amazon", "--input-path", amazon(raw, "2018")], "6 items have text"),
    "times before 1970": (table(HEADER + "\nu,i,-5,4\nu,j,-4,4\n"), "1 users, 2 items, 2 interactions"),
    "a byte-order mark": (table("\ufeff" + ROWS), "12 users, 6 items, 60 interactions"),
    "other members of a zip": (
        lambda raw: ["movielens", "--input-path", zip_of(raw.mkdir() or raw / "ml.zip", {
            "../../ratings.csv": CSV_HEAD + "1,1,4.0,5\n", "../../movies.csv": "movieId,title,genres\n1,A (1999),B\n", "../../evil.sh": "rm"})],
        "1 users, 1 items, 1 interactions",
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_handled_and_counted(tmp_path, capsys, name):
    make, message = COUNTED[name]
    words = [str(word) for word in make(tmp_path / "raw")]
    before = listing(tmp_path)
    code = main([*words, "--output-path", str(tmp_path / "out"), "--dataset", "made"])
    out, err = capsys.readouterr()
    assert code == 0 and re.search(message, out), (out, err)
    new = listing(tmp_path).keys() - before.keys()
    assert new and all(path == "out" or path == "out/made" or path.startswith("out/made/") for path in new)


PICTURES = {
    "not an image": (b"<html>", "1 not an image"), "empty": (b"", "1 not an image"), "cut off": (None, "1 broken image"),
    "a bomb": (png(60_000, 60_000), "1 too many pixels"), "a pickle": (b"\x80\x04cos\nsystem\n", "1 not an image"),
    "no pixels": (png(10, 10), "1 broken image"), "a size of nothing": (png(0, 10), "1 (not an image|broken image)"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_are_none_are_counted(tmp_path, capsys, name):
    """One good picture, one bad, and ids that would leave the folder: the first is stored, the others are counted."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (30, 30), (200, 10, 10)).save(buffer, "JPEG")
    good, (bad, message) = buffer.getvalue(), PICTURES[name]
    write(tmp_path / "data" / "made" / "made.item", "item_id:token\ttitle:token\n1\ta\n2\tb\n../../x\tc\na/b\td\n")
    for path, content in {"1.jpg": good, "2.jpg": good[: len(good) // 2] if bad is None else bad}.items():
        write(tmp_path / "raw" / path, content)
    (tmp_path / "raw" / "secret").symlink_to("/etc/passwd")
    before = listing(tmp_path)
    code = main(["images", "--dataset=made", f"--data-path={tmp_path / 'data'}", f"--from={tmp_path / 'raw'}"])
    out, err = capsys.readouterr()
    assert code == 0 and "4 items: 1 with a picture" in out and "2 unusable id" in out and re.search(message, out), (out, err)
    assert listing(tmp_path).keys() - before.keys() == {"data/made/images", "data/made/images/1.jpg", "data/made/images/manifest.jsonl"}
