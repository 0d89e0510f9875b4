"""The writer: escapes, all or nothing, overwriting, names."""

import os
import shlex

import numpy as np
import pytest
import yaml
from raw_layouts import HOSTILE, unescape

from dataset_converters.atomic import AtomicFolder, escape, is_text
from dataset_converters.interactions import Interactions


def some(time=(1.0, 2.0)):
    return Interactions(np.array(["u"], object), np.array(["i", "j"], object), np.array([0, 0]), np.array([0, 1]), np.array(time))


def write(out, name="made", overwrite=False, **_):
    with AtomicFolder(out, name, overwrite) as folder:
        folder.write_interactions(some())
        folder.write_items(["title"], [("i", ["x"]), ("j", [None])])
    return out / name


@pytest.mark.parametrize("text", [HOSTILE, "", "\\", "\\\\n", "\\t\t", "\r\n\r", "x" * 100_000, "\x00\x1f\u2028\u0085"])
def test_escape_has_an_inverse(text):
    cell = escape(text)
    assert not set("\t\n\r") & set(cell) and unescape(cell) == text


def test_half_a_character_becomes_the_replacement_character():
    assert escape("a\ud83db") == "a\ufffdb"


def test_files(tmp_path):
    folder = write(tmp_path / "new" / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.yaml", "made.inter", "made.item"] and len(list(folder.parent.iterdir())) == 1
    assert (folder / "made.inter").read_text() == "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nu\tj\t2\n"
    assert (folder / "made.item").read_text() == "item_id:token\ttitle:token_seq\ni\tx\nj\t\n"
    assert yaml.safe_load((folder / "dataset.yaml").read_text()) == {
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "item_modalities": ["text"], "item_text_fields": ["title"], "item_text_escaped": True,
    }  # fmt: skip
    mask = os.umask(0)
    os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_left_of_what_fails(tmp_path, error, overwrite):
    out = tmp_path / "a" / "b"
    if overwrite:
        write(out)
        old = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(error), AtomicFolder(out, "made", overwrite) as folder:
        folder.write_interactions(some((9.0, 9.0)))
        raise error
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == old if overwrite else not (tmp_path / "a").exists()


def test_a_failure_at_the_end_leaves_nothing_too(tmp_path, monkeypatch):
    monkeypatch.setattr(AtomicFolder, "_write_properties", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_overwrite_keeps_pictures_and_nothing_else_of_ours(tmp_path):
    folder = write(tmp_path)
    with pytest.raises(ValueError, match="exists. Choose another"):
        write(tmp_path)
    (folder / "images").mkdir()
    (folder / "images" / "i.jpg").write_text("picture")
    with AtomicFolder(tmp_path, "made", True) as new:
        new.write_interactions(some())
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.yaml", "images", "made.inter"]
    assert (folder / "images" / "i.jpg").read_text() == "picture" and "item_modalities: [image]" in (folder / "dataset.yaml").read_text()
    assert list(tmp_path.iterdir()) == [folder]
    (folder / "images" / "j.jpg").write_text("picture")
    with AtomicFolder(tmp_path, "made", True) as new:
        new.write_interactions(some())
        (new.images / "i.png").write_text("new")
    assert {path.name: path.read_text() for path in (folder / "images").iterdir()} == {"i.png": "new", "j.jpg": "picture"}


def test_a_folder_without_a_picture_holds_none(tmp_path):
    folder = write(tmp_path)
    (folder / "images").mkdir()
    (folder / "images" / "manifest.jsonl").write_text("{}")
    with AtomicFolder(tmp_path, "made", True) as new:
        new.write_interactions(some())
    assert "item_modalities" not in (folder / "dataset.yaml").read_text() and (folder / "images" / "manifest.jsonl").is_file()


def test_what_is_no_data_set_is_never_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("x")
    with pytest.raises(ValueError, match="is not overwritten"):
        AtomicFolder(tmp_path, "thesis", overwrite=True)


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp/x", ".hidden", "a b", "x\n"])
def test_names_that_are_paths_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="--dataset="):
        AtomicFolder(tmp_path, name)


def test_the_commands_to_run_next_can_be_pasted(tmp_path):
    out = tmp_path / "my data"
    with AtomicFolder(out, "made") as folder:
        folder.write_interactions(some())
        folder.write_items(["title", "image_url"], [("i", ["x", "http://x/1.jpg"])])
    pictures, run = folder.summary().splitlines()[-2:]
    assert shlex.split(pictures) == ["Pictures:", "python", "-m", "dataset_converters", "images", f"--data-path={out}", "--dataset=made"]
    assert shlex.split(run) == ["Next:", "python", "run_recbole_molar.py", "--model=Molar", f"--data_path={out}", "--dataset=made"]


def test_which_columns_are_text():
    assert all(map(is_text, ["title", "plot", "pathos", "idea", "urlaub", "profile", "release_year", "Kategorie"]))
    assert not any(map(is_text, ["image_url", "imageUrl", "imdb_id", "poster", "tmdbId", "cover", "image_file", "id"]))


def test_numbers_are_exact(tmp_path):
    with AtomicFolder(tmp_path, "made") as folder:
        folder.write_interactions(some((1588687728.923, 1e9 + 1 / 3)))
    values = [float(line.split("\t")[2]) for line in (tmp_path / "made" / "made.inter").read_text().splitlines()[1:]]
    assert values == [1588687728.923, 1e9 + 1 / 3]


def test_overwriting_takes_nothing_from_a_folder_that_is_linked_to(tmp_path):
    folder, shared = write(tmp_path / "out"), tmp_path / "shared"
    shared.mkdir()
    (shared / "i.jpg").write_text("picture")
    (folder / "images").symlink_to(shared)
    with AtomicFolder(tmp_path / "out", "made", True) as new:
        new.write_interactions(some())
        (new.images / "j.jpg").write_text("new")
    assert (shared / "i.jpg").is_file() and [file.name for file in (folder / "images").iterdir()] == ["j.jpg"]
