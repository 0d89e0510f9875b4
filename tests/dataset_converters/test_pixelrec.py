"""PixelRec: interactions, items and covers in the layout of the data set's README."""

from pathlib import Path

import pytest
from PIL import Image
from raw_layouts import HOSTILE, ITEMS, interactions, read_back, write_csv

INFO = ["item_id", "view_number", "comment_number", "thumbup_number", "share_number", "coin_number", "favorite_number", "barrage_number",
        "title_en", "title", "description", "tag"]  # fmt: skip


def pixelrec(folder, size="50K", factor=1):
    """Write interactions, items and covers; item 2 has no cover. The items' file is called as the interactions', but in the sample of 50K."""
    for name in ("interaction", "item_info", "cover"):
        (folder / name).mkdir(parents=True)
    write_csv(folder / "interaction" / f"Pixel{size}.csv", ["item_id", "user_id", "timestamp"],
              [(f"i{i}", f"u{u}", t * factor) for u, i, _, t in interactions()])  # fmt: skip
    write_csv(folder / "item_info" / ("item_info.csv" if size == "50K" else f"Pixel{size}.csv"), INFO,
              [(f"i{i}", *range(7), f"Title {i}", f"标题 {i}", HOSTILE if i == 1 else "", "tag") for i in range(1, ITEMS + 1)])  # fmt: skip
    for item in (1, 3, 4, 5, 6, 99):
        Image.new("RGB", (16, 16), (item, 0, 0)).save(folder / "cover" / f"i{item}.jpg")
    return folder


@pytest.mark.parametrize("size, factor", [("50K", 1), ("200K", 1000), ("1M", 1), ("8M", 1)])
def test_release(tmp_path, convert, trains, out, size, factor):
    raw = pixelrec(tmp_path / "raw", size, factor)
    text = convert("pixelrec", raw, dataset=None)
    folder = out / f"pixel{size.lower()}"
    assert "12 users, 6 items, 60 interactions" in text and f"Times were read as {'s' if factor == 1 else 'ms'} (by their size)." in text
    inter, items, properties = read_back(folder)
    assert inter == [{"user_id": f"u{u}", "item_id": f"i{i}", "timestamp": str(t)} for u, i, _, t in interactions()]
    assert items["i1"] == {"title": "标题 1", "title_en": "Title 1", "tag": "tag", "description": HOSTILE} and items["i2"]["description"] == ""
    assert "item_modalities: [text]" in properties and "item_description_field: description" in properties
    trains(text)


def test_covers(tmp_path, convert, trains, out):
    raw = pixelrec(tmp_path / "raw")
    text = convert("pixelrec", raw, "--covers", raw / "cover")
    assert "5 items have a cover, 1 have none." in text
    images = out / "made" / "images"
    assert sorted(path.name for path in images.iterdir()) == [f"i{item}.jpg" for item in (1, 3, 4, 5, 6)]
    assert (images / "i3.jpg").read_bytes() == (raw / "cover" / "i3.jpg").read_bytes()
    assert "item_modalities: [text, image]" in (out / "made" / "dataset.yaml").read_text()
    assert [path.name for path in out.iterdir()] == ["made"]
    trains(text, "Molar")


def test_an_id_like_a_path_stays_inside(tmp_path, convert, out):
    raw = pixelrec(tmp_path / "raw")
    file = raw / "interaction" / "Pixel50K.csv"
    file.write_text(file.read_text().replace("i1,", "../../../i1,"))
    Image.new("RGB", (4, 4)).save(tmp_path / "i1.jpg")
    convert("pixelrec", raw, "--covers", raw / "cover")
    assert {Path(row["item_id"]).name for row in read_back(out / "made")[0]} == {"..%2F..%2F..%2Fi1", *(f"i{item}" for item in range(2, 7))}
    assert sorted(path.name for path in (out / "made" / "images").iterdir()) == ["i3.jpg", "i4.jpg", "i5.jpg", "i6.jpg"]


def test_damaged(tmp_path, refused):
    assert "no such file or folder" in refused("pixelrec", tmp_path / "raw")
    raw = pixelrec(tmp_path / "raw")
    for covers, message in (("nowhere", "no such folder"), ("item_info", "holds no .jpg")):
        assert message in refused("pixelrec", raw, "--covers", raw / covers)
    (raw / "other").mkdir()
    Image.new("RGB", (4, 4)).save(raw / "other" / "x.jpg")
    assert "no file there is named after an item" in refused("pixelrec", raw, "--covers", raw / "other")
    assert "has no column item_id" in refused("pixelrec", raw, "--item-info", _csv(tmp_path / "x.csv", "a,b\n1,2\n"))
    file = raw / "interaction" / "Pixel50K.csv"
    _csv(raw / "Pixel1M.csv", file.read_text())
    assert "one CSV with the columns item_id,user_id,timestamp is needed, found" in refused("pixelrec", raw)
    (raw / "Pixel1M.csv").unlink()
    file.write_text(file.read_text().replace(",", ";"))
    assert "none among" in refused("pixelrec", raw)
    file.write_text("item_id,user_id,timestamp\n")
    assert "has a header at most, and no row" in refused("pixelrec", raw)
    file.write_text("item_id,user_id,timestamp\ni1,u1,5\ni1,u1,soon\n")
    assert "Pixel50K.csv, row 2: timestamp is 'soon', not a number" in refused("pixelrec", raw)


def _csv(path, text):
    path.write_text(text)
    return path
