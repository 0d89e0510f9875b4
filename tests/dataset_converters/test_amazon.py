"""Amazon's releases: values of each layout, filters, damaged input."""

import gzip

import pytest
from raw_layouts import HOSTILE, amazon, interactions, read_back, write_csv, write_lines

EXPECTED = {  # of item 1: brand, category, price, features, description, image
    "2014": ("Toys > Dress Up & Pretend Play", "3.17", "", HOSTILE, "http://ecx.images-amazon.com/images/I/1.jpg"),
    "2018": ("Toys > Dolls", "$7.99 - $8.52", "Cotton\nMachine wash", HOSTILE + "\nSecond.", "https://images-na.ssl-images-amazon.com/images/I/1.jpg"),
    "2023": ("Toys & Games > Dolls", "8.98", "Soft\nWashable", HOSTILE, "https://m.media-amazon.com/1.jpg"),
}


@pytest.mark.parametrize("release", EXPECTED)
def test_release(tmp_path, convert, trains, out, release):
    text = convert("amazon", amazon(tmp_path / "raw", release), dataset=None)
    assert "12 users, 6 items, 60 interactions" in text and "6 items have text, 0 have none" in text
    inter, items, properties = read_back(out / "amazon-toys") if release == "2023" else read_back(out / "amazon-toys-5")
    prefix, moment = ("AE", "{}.123") if release == "2023" else ("A", "{}")
    assert inter == [{"user_id": f"{prefix}{u}", "item_id": f"B00000000{i}", "rating": str(r), "timestamp": moment.format(t)} for u, i, r, t in interactions()]
    first = items["B000000001"]
    assert tuple(first[name] for name in ("category", "price", "features", "description", "image_url")) == EXPECTED[release]
    assert first["brand"] == "Coxlures" and first["title"] == ("Product 1's \"name\"" if release == "2014" else "Product 1")
    assert 'item_text_fields: ["title", "brand", "category", "price", "features", "description"]' in properties
    assert "item_description_field: description" in properties and "item_text_escaped: True" in properties
    if release == "2018":
        assert items["B000000002"]["price"] == "" and items["B000000003"]["title"] == ""
        assert items["B000000004"]["image_url"] == "https://images-na.ssl-images-amazon.com/images/I/4._US40_.jpg"
    if release == "2023":
        assert items["B000000002"]["price"] == "" and items["B000000004"]["image_url"] == "https://m.media-amazon.com/l.jpg"
    trains(text, "Molar" if release == "2023" else "SASRec")


@pytest.mark.parametrize("history", [False, True])
def test_ratings_of_2023(tmp_path, convert, trains, out, history):
    """`0core/rating_only/Toys.csv` beside the metadata: the same data set as the reviews give."""
    raw = amazon(tmp_path / "raw", "2023")
    convert("amazon", raw, dataset="reviews")
    (raw / "Toys.jsonl").unlink()
    header = ["user_id", "parent_asin", "rating", "timestamp", *(["history"] if history else [])]
    rows = [(f"AE{u}", f"B00000000{i}", f"{r}.0", t * 1000 + 123, *(["B1 B2"] if history else [])) for u, i, r, t in interactions()]
    write_csv(raw / "Toys.csv", header, rows)
    text = convert("amazon", raw, dataset=None)
    assert read_back(out / "amazon-toys") == read_back(out / "reviews")
    trains(text)


def test_other_tables_are_refused(tmp_path, refused):
    write_csv(tmp_path / "Toys.csv", ["A1", "B1", "5.0", "1"], [("A1", "B2", "5.0", "2")])  # 2014 and 2018: no header
    error = refused("amazon", tmp_path / "Toys.csv")
    assert "has no column user_id, parent_asin, rating, timestamp" in error and "converter tabular" in error


def review(user, item, rating=5, time=1):
    return f'{{"reviewerID": "{user}", "asin": "{item}", "overall": {rating}, "unixReviewTime": {time}}}'


def test_filters_in_order(tmp_path, convert, out):
    """Rating, then duplicates, then the 2-core: u3's only other item falls, so u3 falls, and so does i3."""
    rows = [review("u1", "i1", time=9), review("u1", "i2"), review("u1", "i1", time=3), review("u2", "i1"), review("u2", "i2"), review("u3", "i3"),
            review("u3", "i4", rating=2), review("u4", "i3"), review("u4", "i1", rating=1)]  # fmt: skip
    write_lines(tmp_path / "reviews_X.json", rows)
    text = convert("amazon", tmp_path / "reviews_X.json", "--min-rating", 3, "--drop-duplicates", "--k-core", 2)
    assert "2 users, 2 items, 4 interactions. Left out: 2 rated below 3, 1 repeating a user and item, 2 outside the 2-core. 14.29% of the rows repeat" in text
    inter, items, _ = read_back(out / "made")
    assert [(row["user_id"], row["item_id"], row["timestamp"]) for row in inter] == [("u1", "i2", "1"), ("u1", "i1", "3"), ("u2", "i1", "1"), ("u2", "i2", "1")]
    assert items == {}
    text = convert("amazon", tmp_path / "reviews_X.json", dataset="kept")
    assert "9 interactions. No row was left out. 11.11% of the rows repeat a user and item (kept; --drop-duplicates removes them)" in text


def test_rows_without_a_field(tmp_path, convert):
    write_lines(tmp_path / "reviews_X.json", [review("u1", "i1"), '{"asin": "i2", "overall": 5, "unixReviewTime": 2}', '{"reviewerID": "u", "asin": "i"}'])
    assert "Left out: 1 without a user or item id, 1 without a time." in convert("amazon", tmp_path / "reviews_X.json")


def test_items_without_metadata_or_interactions(tmp_path, convert, out):
    raw = amazon(tmp_path / "raw", "2018")
    lines = gzip.decompress((raw / "meta_Toys.json.gz").read_bytes()).decode().splitlines()
    write_lines(raw / "meta_Toys.json.gz", [*lines[1:], lines[1].replace("Product 2", "Other"), '{"asin": "X1", "title": "never bought"}'])
    text = convert("amazon", raw)
    assert "5 items have text, 1 have none. 1 item rows repeat an item and were left out." in text
    assert read_back(out / "made")[1]["B000000002"]["title"] == "Product 2"


def test_damaged(tmp_path, refused):
    raw = amazon(tmp_path / "raw", "2018")
    whole = (raw / "Toys_5.json.gz").read_bytes()
    (raw / "Toys_5.json.gz").write_bytes(whole[: len(whole) // 2])
    assert "Toys_5.json.gz: damaged or cut off" in refused("amazon", raw)
    text = gzip.decompress(whole)
    (raw / "Toys_5.json.gz").write_bytes(gzip.compress(text[: text.rindex(b"reviewText")]))
    assert "Toys_5.json.gz, line 60: not a JSON object" in refused("amazon", raw)
    (raw / "Toys_5.json.gz").write_bytes(gzip.compress(b'{"user": 1, "film": 2}\n'))
    error = refused("amazon", raw)
    assert "line 1: unknown layout" in error and "reviewerID, asin, overall, unixReviewTime (2014 or 2018)" in error and "Found: user, film" in error
    (raw / "Toys_5.json.gz").write_bytes(gzip.compress(b"[1, 2]\n"))
    assert "line 1: holds '[1, 2]', not an object" in refused("amazon", raw)
    (raw / "Toys_5.json.gz").write_bytes(gzip.compress(b""))
    assert "no interaction was read" in refused("amazon", raw)
    (raw / "Toys_5.json.gz").write_bytes(gzip.compress(text.replace(b'"overall": 2.0', b'"overall": "two"', 1)))
    assert "overall is 'two', not a number" in refused("amazon", raw)
    (raw / "Toys_5.json.gz").write_bytes(gzip.compress(b"\xff\xfe" + text))
    assert "not UTF-8" in refused("amazon", raw)
    (raw / "Toys_5.json.gz").write_bytes(whole)
    assert "no interaction is left after the filters: 60 outside the 20-core" in refused("amazon", raw, "--k-core", 20)
    (raw / "meta_Toys.json.gz").write_bytes(gzip.compress(b"{'asin': 'B000000001', 'title': __import__('os').system('x')}\n"))
    assert "meta_Toys.json.gz, line 1: not a JSON object (unexpected '__import__')" in refused("amazon", raw)
    (raw / "meta_Toys.json.gz").write_bytes(gzip.compress(b'{"asin": "B9", "title": "x"}\n'))
    assert "the items share no id with the interactions" in refused("amazon", raw)
    (raw / "Other.json").write_text("{}\n")
    assert "several files of reviews" in refused("amazon", raw)
    (raw / "Other.json").unlink()
    (raw / "Toys_5.json").write_bytes(text)
    assert "several files of reviews (Toys_5.json, Toys_5.json.gz)" in refused("amazon", raw)
    (tmp_path / "none").mkdir()
    assert "no reviews there (.json, .jsonl or .csv" in refused("amazon", tmp_path / "none")
