"""Which picture belongs to which item: `.item` columns, CSV files, folders and zips."""

import os
import zipfile
from types import SimpleNamespace

import pytest

from dataset_converters.causes import Refused
from dataset_converters.image_sources import Wanted, read_items, read_table, wanted_files, wanted_urls
from dataset_converters.local_files import Archive, Folder, by_stem, open_files
from hostile_server import GOOD


def write_item(tmp_path, text, settings=None):
    (tmp_path / "x.item").write_bytes(text.encode())
    if settings:
        (tmp_path / "dataset.yaml").write_text(settings)
    return tmp_path


def test_a_column_of_urls(tmp_path):
    folder = write_item(tmp_path, '\ufeffitem_id:token\ttitle:token_seq\timage_url:token\n1\ta "quoted\t http://a/1 \n2\tb\u2028c\t\n\n1\tagain\thttp://a/2\n')
    assert read_items(folder, "x", "image_url") == {"1": "http://a/1", "2": ""}
    assert read_items(folder, "x") == {"1": "", "2": ""}


def test_of_several_urls_the_first(tmp_path):
    folder = write_item(tmp_path, "item_id:token\timage_url:token_seq\n1\thttp://a/1 http://a/2\n2\t\n")
    assert read_items(folder, "x", "image_url") == {"1": "http://a/1", "2": ""}


def test_escaped_cells(tmp_path):
    text = "item_id:token\timage_url:token\n1\thttp://a/\\\\t\\tb\\x\n"
    assert read_items(write_item(tmp_path, text), "x", "image_url") == {"1": "http://a/\\\\t\\tb\\x"}
    assert read_items(write_item(tmp_path, text, "item_text_escaped: True"), "x", "image_url") == {"1": "http://a/\\t\tb\\x"}


@pytest.mark.parametrize("text, message", [
    ("item_id:token\tposter:token\n", "no column image_url"), ("id:token\timage_url:token\n", "no column item_id"),
    ("item_id:token\timage_ur:token\n", "Did you mean image_ur"), ("item_id:token\timage_url:token\n1\n", "line 2: 1 columns"), ("", "no column"),
])
def test_wrong_item_files(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_items(write_item(tmp_path, text), "x", "image_url")


def test_no_item_file_and_no_utf8(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_items(tmp_path, "x")
    (tmp_path / "x.item").write_bytes(b"item_id:token\n\xff\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_items(tmp_path, "x")


def test_links(tmp_path):
    (tmp_path / "a.csv").write_text('\ufefftitle,item_id,url\n"a, b",1,http://a/1\n,2,\n,2,http://a/2\n,2,http://a/3\nshort\n')
    (tmp_path / "a.tsv").write_text("item_id\turl\n1\thttp://a/1,2\n")
    assert read_table(tmp_path / "a.csv", "url") == {"1": "http://a/1", "2": "http://a/2"}
    assert read_table(tmp_path / "a.tsv", "url") == {"1": "http://a/1,2"}
    for text, message in (("1,http://a\n", "no column item_id"), ('item_id,url\n1,"x\n', "not a CSV"), ("", "no column")):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_table(tmp_path / "b.csv", "url")


def test_what_is_wanted():
    assert wanted_urls({"1": "http://a", "9": "http://b", "../x": "http://c"}, ["1", "2", "../x"]) == [
        Wanted("1", "http://a"), Wanted("2", "", "no url"), Wanted("../x", "http://c", "unusable id")
    ]


@pytest.fixture
def files(tmp_path):
    """The same pictures as a folder and as a zip."""
    folder = tmp_path / "pictures"
    for name in ("1.png", "1.jpg", "deep/2.JPEG", "deep/._2.jpg", "3.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GOOD)
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
        archive.writestr("../../out.jpg", GOOD)
        archive.writestr("big.jpg", b"\0" * 1_000_000)
    return folder, tmp_path / "pictures.zip"


def test_names_equal_to_ids(files):
    for path in files:
        source = open_files(path)
        assert wanted_files(source, ["1", "2", "3"]) == [Wanted("1", "1.jpg"), Wanted("2", "deep/2.JPEG"), Wanted("3", "", "no file")]
        assert source.read("1.jpg", 10_000) == source.read("deep/2.JPEG", len(GOOD)) == GOOD
        source.close()


def test_a_mapping(files):
    mapping = {"a": "1.png", "b": "2.JPEG", "c": "deep/2.JPEG", "d": "gone.jpg"}
    for path in files:
        source = open_files(path)
        assert [item.source for item in wanted_files(source, "abcde", mapping)] == ["1.png", "deep/2.JPEG", "deep/2.JPEG", "gone.jpg", ""]
        with pytest.raises(Refused, match="no such file"):
            source.read("gone.jpg", 100)
        with pytest.raises(Refused, match="too many bytes"):
            source.read("1.jpg", len(GOOD) - 1)
        source.close()


def test_files_named_in_the_item_file(files, tmp_path):
    """By the end of the path, or, where that is no file's, by the id."""
    cells = {
        "a": ("pictures/1.png", "1.png"), "b": ("C:\\\\shop\\\\pictures\\\\deep\\\\2.JPEG", "deep/2.JPEG"), "c": ("2.JPEG", "deep/2.JPEG"),
        "d": ("deep/2.JPEG", "deep/2.JPEG"), "1": ("", "1.jpg"), "2": ("thumb.png", "deep/2.JPEG"), "e": ("pictures", ""), "f": ("../../x.png", ""),
    }  # fmt: skip
    text = "item_id:token\timage_file:token\n" + "".join(f"{key}\t{cell}\n" for key, (cell, _) in cells.items())
    named = read_items(write_item(tmp_path, text, "item_text_escaped: True"), "x", "image_file", required=False)
    for path in files:
        source = open_files(path)
        assert [item.source for item in wanted_files(source, list(cells), named=named)] == [found for _, found in cells.values()]
        source.close()
    assert read_items(write_item(tmp_path, "item_id:token\ttitle:token\na\tA\n"), "x", "image_file", required=False) == {"a": ""}


def test_a_mapping_cannot_lead_out_of_the_folder(files, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(GOOD)
    os.symlink(tmp_path / "secret.jpg", files[0] / "link.jpg")
    os.mkfifo(files[0] / "pipe.jpg")
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "pipe.jpg", "/dev/zero", "a\0b.jpg", "x" * 5000 + ".jpg"):
        with pytest.raises(Refused, match="no such file|cannot be read"):
            Folder(files[0]).read(name, 10_000)


def test_a_zip_is_bounded_whatever_it_says(files):
    archive = Archive(files[1])
    with pytest.raises(Refused, match="too many bytes"):
        archive.read("big.jpg", 1000)
    archive._members["big.jpg"].file_size = 10  # the header lies
    with pytest.raises(Refused, match="too many bytes|cannot be read"):
        archive.read("big.jpg", 5)


def test_broken_zips(files, tmp_path):
    whole = files[1].read_bytes()
    for name, data in (("cut.zip", whole[:-50]), ("none.zip", b"no zip"), ("empty.zip", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="not a zip file"):
            open_files(tmp_path / name)
    damaged = bytearray(whole)
    damaged[60:90] = b"\xff" * 30
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(Refused, match="cannot be read"):
        open_files(tmp_path / "damaged.zip").read("1.jpg", 10_000)
    encrypted = bytearray(whole)
    place = whole.index(b"PK\x01\x02")
    encrypted[place + 8] |= 1
    (tmp_path / "encrypted.zip").write_bytes(encrypted)
    with pytest.raises(ValueError, match="encrypted"):
        open_files(tmp_path / "encrypted.zip")
    with pytest.raises(ValueError, match="no such folder or zip"):
        open_files(tmp_path / "gone.zip")


def test_of_several_files_for_one_id():
    assert by_stem(["x/1.jpg", "1.webp", "1.jpg", "a/1.jpg"]) == {"1": "1.jpg"}


def test_raw_ids_in_links_and_file_names():
    """Ids that a converter has encoded are found as they were, too."""
    known = ["a%2Fb", "%4EA", "7"]
    links = {"a/b": "http://x/1", "%4EA": "http://x/2", "NA": "http://x/3"}
    assert [item.source for item in wanted_urls(links, known)] == ["http://x/1", "http://x/2", ""]
    assert [item.source for item in wanted_files(SimpleNamespace(names=["NA.jpg", "7.png"]), known)] == ["", "NA.jpg", "7.png"]
