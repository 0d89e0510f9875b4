"""Ids, text and pictures with known defects."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from recbole_molar.data.item_content import Item, ItemContent
from recbole_molar.doctor.data_report import some
from recbole_molar.doctor.image_report import image_report
from recbole_molar.doctor.id_report import id_report
from recbole_molar.doctor.page import write_page
from recbole_molar.doctor.text_report import text_report


class Words:
    """A prompt of one token a word."""

    start, image_ids, max_tokens, compress = [0], [7, 7], 6, {(True, False): [1, 2], (False, False): [1], (True, True): [1, 2]}

    def encode(self, text):
        return text.split()


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    rows = ["item_id:token\ttitle:token_seq\tplot:token_seq", "a\tOne\t", "b\tTwo\ta b c d e", "b\tTwo again\t", "q\tNobody's\t", "r\tNobody's\t"]
    (folder / "shop.item").write_text("\n".join(rows) + "\n")
    for name in ("a.jpg", "stray.png", "notes.txt"):
        (folder / "images" / name).write_bytes(b"")
    return {
        "data_path": str(folder), "dataset": "shop", "field_separator": "\t", "ITEM_ID_FIELD": "item_id", "item_image_dir": "images",
        "item_text_fields": ["title", "plot"], "item_modalities": ["text", "image"], "encoding": None,
    }


def test_ids_are_counted_each_way(config):
    report = id_report(config, pd.DataFrame({"item": ["a", "a", "b", "z"]}))
    assert report == {
        "interactions": 3, "item_file": 4, "without_row": {"count": 1, "examples": ["z"]}, "without_interaction": {"count": 2, "examples": ["q", "r"]},
        "repeated": {"count": 1, "examples": ["b"]}, "pictures": 2, "without_picture": {"count": 2, "examples": ["b", "z"]},
        "picture_of_no_item": {"count": 1, "examples": ["stray"]},
    }


def test_ids_that_are_not_utf8_are_read_in_the_data_sets_encoding(config, tmp_path):
    (tmp_path / "shop" / "shop.item").write_bytes("item_id:token\ncafé\n".encode("latin-1"))
    report = id_report({**config, "encoding": "latin-1"}, pd.DataFrame({"item": ["café"]}))
    assert report["without_row"]["count"] == report["without_interaction"]["count"] == 0


def test_text_is_measured_and_what_is_cut(config):
    items = [Item(""), Item("a", {"title": "One"}), Item("b", {"title": "Two", "plot": "a b c d e"}), Item("z")]
    report = text_report(config, ItemContent(items, "plot"), Words())
    assert report["fields"] == {"title": {"filled": 0.666667, "median": 3, "p95": 3}, "plot": {"filled": 0.333333, "median": 9, "p95": 9}}
    assert report["without_text"] == 1 and report["description_field"] == "plot"
    tokens = report["tokens"]  # a: 3 + title: One = 5; b: 3 + title: Two plot: a b c d e = 11, cut at 6; z: 2
    assert (tokens["longest"], tokens["median"], tokens["cut"], tokens["share_cut"], tokens["limit"]) == (11, 5, 1, 0.333333, 6)
    assert "tokens" not in text_report(config, ItemContent(items, "plot"), None)


def test_tokens_are_counted_of_as_much_text_as_takes_seconds(config, monkeypatch):
    monkeypatch.setattr("recbole_molar.doctor.text_report.MOST_CHARACTERS", 5)
    items = [Item(""), *(Item(str(number), {"title": "Three words here"}) for number in range(9))]
    report = text_report(config, ItemContent(items), Words())
    assert report["items"] == 9 and report["tokens"]["counted_items"] == 1


def test_names_that_would_move_a_terminal_are_made_harmless():
    names = some(["\x1b[2Jcleared", "caf\udce9", "a" * 1000, "日本"])
    assert names == {"count": 4, "examples": ["日本", "caf�", "�[2Jcleared", "a" * 59 + "…"]}


def test_a_page_of_huge_texts_is_small(tmp_path):
    items = [Item(""), *(Item(str(number), {"plot": "<b>" * 1_000_000}, title="<i>" * 1_000_000) for number in range(3))]
    config = {"mirm_image_size": (28, 28), "dataset": "shop", "mirm_max_tokens": 9, "mirm_backbone": "nobody/nothing"}
    write_page(tmp_path / "items.html", config, ItemContent(items), None, np.zeros(4, dtype=int))
    page = (tmp_path / "items.html").read_text()
    assert len(page) < 100_000 and "characters more" in page and "<b>" not in page and "<i>" not in page


def test_pictures_missing_broken_tiny_and_twice(tmp_path):
    for name, side in (("a", 40), ("b", 40), ("c", 20), ("d", 40)):
        Image.fromarray(np.full((side, side, 3), 90 if name != "d" else 10, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "e.png").write_bytes(b"no picture")
    items = [Item(""), *(Item(name, image_path=tmp_path / f"{name}.png") for name in "abcde"), Item("f")]
    report = image_report(ItemContent(items), (28, 28))
    assert (report["items"], report["with_file"], report["missing"], report["checked"], report["all_checked"]) == (6, 5, 1, 5, True)
    assert report["broken"] == {"count": 1, "examples": ["e"]} and report["tiny"] == {"count": 1, "examples": ["c"]}
    assert report["duplicates"] == {"files": 1, "examples": [["a", "b"]]}


def test_a_bound_on_time_is_kept_and_said(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    report = image_report(ItemContent([Item(""), Item("a", image_path=tmp_path / "a.png")]), (28, 28), seconds=-1)
    assert report["checked"] == 0 and not report["all_checked"]
