"""Item content: exact text, images by id, and errors that say what to do."""

from dataclasses import replace

import pytest
from toy_items import toy_content, write_content

from recbole_molar.data.item_content import ItemContent, _fingerprint


def read(file, ids, fields=("title",), **options):
    return ItemContent.read(file, ids, list(fields), **{"modalities": ["text"], **options})


def write(folder, text, name="x.item"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_text_is_kept_as_it_stands(tmp_path):
    file = write(tmp_path, 'item_id:token\ttitle:token_seq\n7\tA "quoted" , \'word\n8\t"open\n')
    content = read(file, ["[PAD]", "8", "7", "9"])
    assert [item.title for item in content.items] == ["", '"open', "A \"quoted\" , 'word", ""]
    assert content.report() == {"items": 3, "no_text": 1, "no_image": 3, "broken_images": 0}


def test_description_comes_last_whatever_the_order(tmp_path):
    content = toy_content(tmp_path)
    assert list(content.items[1].fields) == ["title", "genre", "plot"]
    assert content.items[0].fields == {} and content.items[0].image_path is None


def test_the_first_of_repeated_rows_wins(tmp_path, caplog):
    file = write(tmp_path, "item_id:token\ttitle:token\n7\tfirst\n7\tsecond\n")
    assert read(file, ["[PAD]", "7"]).items[1].title == "first"
    assert "1 rows repeat an id" in caplog.text


@pytest.mark.parametrize(
    "text, ids, fields, message",
    [
        ("item_id:token\ttitle:token\n7\tx\n", ["[PAD]", "7"], ["titel"], "no column titel. Did you mean title"),
        ("item_id:token\ttitle:token\n7\tx\n", ["[PAD]", "8"], ["title"], "shares no item_id"),
        ("item_id:token\ttitle:token\n7\tx\ty\n", ["[PAD]", "7"], ["title"], "line 2: 3 columns, but the header has 2"),
        ("movie:token\ttitle:token\n7\tx\n", ["[PAD]", "7"], ["title"], "no column item_id"),
        ("item_id:token\ttitle:token\n7\tx\n", ["[PAD]", "7"], [], "item_text_fields is empty"),
    ],
)
def test_errors_of_the_item_file(tmp_path, text, ids, fields, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, text), ids, fields)


def test_other_errors(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read(tmp_path / "none.item", ["[PAD]", "7"])
    (tmp_path / "latin.item").write_bytes(b"item_id:token\ttitle:token\n7\tcaf\xe9\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read(tmp_path / "latin.item", ["[PAD]", "7"])
    with pytest.raises(ValueError, match="item_modalities"):
        read(tmp_path / "none.item", ["[PAD]", "7"], modalities=["audio"])


def test_a_folder_that_matches_no_id(tmp_path):
    file, _ = write_content(tmp_path)
    with pytest.raises(ValueError, match="item_modalities=\\[text\\]"):
        ItemContent.read(file, ["[PAD]", "99"], [], image_dir=tmp_path / "images", modalities=["image"])
    with pytest.raises(ValueError, match="no such folder"):
        ItemContent.read(file, ["[PAD]", "i1"], [], image_dir=tmp_path / "posters", modalities=["image"])


def test_an_id_cannot_leave_the_folder(tmp_path):
    write_content(tmp_path)
    (tmp_path / "secret.png").write_bytes((tmp_path / "images" / "i1.png").read_bytes())
    ids = ["[PAD]", "../secret", str(tmp_path / "secret"), "i1", ".."]
    content = ItemContent.read(tmp_path / "toy.item", ids, [], image_dir=tmp_path / "images", modalities=["image"])
    assert [item.image_path is not None for item in content.items] == [False, False, False, True, False]


def test_a_modality_switched_off_is_not_read(tmp_path):
    image_only = toy_content(tmp_path, modalities=["image"])
    assert not any(image_only.texts) and image_only.has_images
    assert not toy_content(tmp_path, modalities=["text"]).has_images


def test_fingerprints_follow_text_and_image(tmp_path):
    before = toy_content(tmp_path).fingerprints()
    (tmp_path / "images" / "i1.png").write_bytes((tmp_path / "images" / "i2.png").read_bytes())
    file = tmp_path / "toy.item"
    file.write_text(file.read_text().replace("Title 5", "Title five"))
    item_ids = ["[PAD]", *(f"i{item}" for item in range(1, 13))]
    after = ItemContent.read(file, item_ids, ["plot", "title", "genre"], "plot", image_dir=tmp_path / "images").fingerprints()
    assert [item for item in range(13) if before[item] != after[item]] == [1, 5]


def test_a_picture_that_is_too_large_or_gone_has_a_fingerprint_without_being_read(tmp_path, monkeypatch):
    content = toy_content(tmp_path)
    paths = [item.image_path for item in content.items if item.image_path is not None]
    monkeypatch.setattr("recbole_molar.data.item_content.MAX_FILE_BYTES", 10)
    assert len({_fingerprint(replace(content.items[1], image_path=path)) for path in paths}) == 1 and len(paths) > 1
    paths[0].unlink()
    assert _fingerprint(replace(content.items[1], image_path=paths[0])) != _fingerprint(replace(content.items[1], image_path=paths[1]))


def test_links_out_of_the_folder_are_not_followed(tmp_path, caplog):
    write_content(tmp_path)
    (tmp_path / "secret.png").write_bytes((tmp_path / "images" / "i1.png").read_bytes())
    (tmp_path / "images" / "i3.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "images" / "i7.png").symlink_to("i1.png")
    content = ItemContent.read(tmp_path / "toy.item", ["[PAD]", "i1", "i3", "i7"], [], image_dir=tmp_path / "images", modalities=["image"])
    assert [item.image_path is not None for item in content.items] == [False, True, False, True] and "1 symbolic links" in caplog.text


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfitem_id:token\ttitle:token\n7\tx\n", b"item_id:token\ttitle:token\r\n7\tx\r\n"])
def test_byte_order_mark_and_dos_line_ends(tmp_path, raw):
    (tmp_path / "x.item").write_bytes(raw)
    assert read(tmp_path / "x.item", ["[PAD]", "7"]).items[1].title == "x"


@pytest.mark.parametrize("stored, given", [("latin-1", "latin-1"), ("utf-8", "latin-1"), ("utf-8", None), ("utf-16", "utf-16")])
def test_the_data_sets_encoding_where_a_file_is_not_utf8(tmp_path, stored, given):
    (tmp_path / "x.item").write_bytes("item_id:token\ttitle:token\n7\tcafé\n".encode(stored))
    assert read(tmp_path / "x.item", ["[PAD]", "7"], encoding=given).items[1].title == "café"


def test_escaped_text_is_read_back(tmp_path):
    text = 'a\tb\nc\r"d" \\n e\\ 🎬'
    escaped = text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    file = tmp_path / "x.item"
    file.write_text(f"item_id:token\ttitle:token_seq\ni1\t{escaped}\n", encoding="utf-8")
    for on, expected in ((True, text), (False, escaped)):
        content = ItemContent.read(file, ["[PAD]", "i1"], ["title"], modalities=["text"], escaped=on)
        assert content.items[1].fields["title"] == expected
