"""The command as a person runs it: what is stored and reported, a second run, a killed run, wrong options."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dataset_converters.__main__ import main
from dataset_converters.manifest import NAME, Manifest
from hostile_server import GOOD, HostileServer

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def server():
    with HostileServer() as running:
        yield running


@pytest.fixture
def images(tmp_path):
    """Function that writes `.item` from a dict of id -> URL and runs the command; returns the exit code."""

    def run(urls, *options):
        folder = tmp_path / "data" / "x"
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["item_id:token\timage_url:token", *(f"{item_id}\t{url}" for item_id, url in urls.items())]
        (folder / "x.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return main(["images", "--dataset=x", f"--data-path={tmp_path / 'data'}", "--max-wait=0.05", "--rate=1000", *options])

    run.folder = tmp_path / "data" / "x" / "images"
    return run


def stored(images):
    return sorted(path.name for path in images.folder.iterdir() if path.name != NAME)


def lines_of(images):
    return [json.loads(line) for line in (images.folder / NAME).read_text().splitlines()]


def test_a_catalogue_with_everything_in_it(server, images, capsys):
    urls = {"1": f"{server.url}/good", "2": f"{server.url}/html", "3": f"{server.url}/missing", "4": "", "5": "ftp://x/y", "6": f"{server.url}/flaky",
            "7": f"{server.url}/lying", "8": f"{server.url}/loop", "../../x": f"{server.url}/good", "a/b": f"{server.url}/good", "..": f"{server.url}/good"}
    assert images(urls, "--allow-private", "--size=20x20") == 0
    assert stored(images) == ["1.jpg", "6.jpg"]
    assert not [path for path in images.folder.parent.parent.parent.rglob("*.jpg") if path.parent != images.folder]
    with Image.open(images.folder / "1.jpg") as image:
        assert image.size == (13, 20)
    out = capsys.readouterr().out
    assert "11 items: 2 with a picture (2 new in this run), 9 without" in out
    for line in ("3 unusable id", "1 not an image", "1 broken image", "1 http 404", "1 no url", "1 bad url", "1 redirect loop"):
        assert f" {line}\n" in out + "\n"
    entries = {entry["id"]: entry for entry in lines_of(images)}
    assert entries.keys() == urls.keys()
    assert entries["3"] == {"id": "3", "status": "failed", "source": urls["3"], "cause": "http 404"}
    assert entries["1"]["status"] == "stored" and entries["1"]["bytes"] == (images.folder / "1.jpg").stat().st_size and len(entries["1"]["sha256"]) == 64


def test_a_second_run_asks_for_nothing(server, images, capsys):
    urls = {"1": f"{server.url}/good", "2": f"{server.url}/missing", "3": ""}
    assert images(urls, "--allow-private") == 0
    before, lines = server.asked.copy(), lines_of(images)
    capsys.readouterr()
    assert images(urls, "--allow-private") == 0
    assert server.asked == before and lines_of(images) == lines
    out = capsys.readouterr().out
    assert "(0 new in this run)" in out and "1 of these failed in an earlier run" in out

    assert images(urls, "--allow-private", "--retry-failed") == 0
    assert server.asked == {"/good": 1, "/missing": 2}
    (images.folder / "1.jpg").unlink()
    assert images({**urls, "2": f"{server.url}/good/2"}, "--allow-private") == 0
    assert server.asked["/good"] == 2 and server.asked["/good/2"] == 1 and stored(images) == ["1.jpg", "2.jpg"]


def test_pictures_that_lie_there_already_are_kept(server, images):
    images.folder.mkdir(parents=True)
    (images.folder / "1.png").write_bytes(b"the user's own")
    (images.folder / "2.jpg").write_bytes(b"")
    (images.folder / ".123-4.part").write_bytes(b"of a killed run")
    assert images({"1": f"{server.url}/good/1", "2": f"{server.url}/good/2"}, "--allow-private") == 0
    assert stored(images) == ["1.png", "2.jpg"] and server.asked == {"/good/2": 1} and (images.folder / "2.jpg").stat().st_size
    assert images({"1": f"{server.url}/good/1", "2": f"{server.url}/good/2"}, "--allow-private", "--overwrite") == 0
    assert stored(images) == ["1.jpg", "1.png", "2.jpg"]


def test_private_addresses_are_refused_by_default(server, images, capsys):
    assert images({"1": f"{server.url}/good", "2": "http://localhost/x", "3": "http://169.254.169.254/latest"}) == 1
    assert "3 private address" in capsys.readouterr().out and not server.asked and stored(images) == []


def test_a_host_that_is_given_up_is_tried_by_the_next_run(images, monkeypatch, capsys):
    monkeypatch.setattr("dataset_converters.pace.DEAD_AFTER", 2)
    urls = {str(number): f"http://127.0.0.1:1/{number}" for number in range(6)}
    assert images(urls, "--allow-private", "--retries=0", "--concurrency=1") == 1
    assert "2 no connection" in (out := capsys.readouterr().out) and "4 host does not answer" in out
    assert [entry["id"] for entry in lines_of(images)] == ["0", "1"]


def test_links_folder_and_zip(server, images, tmp_path):
    urls = {str(number): "" for number in range(1, 5)}
    (tmp_path / "links.csv").write_text(f"item_id,url\n1,{server.url}/good\n77,{server.url}/good/77\n")
    assert images(urls, f"--links={tmp_path / 'links.csv'}", "--allow-private") == 0
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "2.png").write_bytes(GOOD)
    assert images(urls, f"--from={tmp_path / 'pictures'}") == 0
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("covers/x.jpg", GOOD)
        archive.writestr("../../../4.jpg", GOOD)
    (tmp_path / "map.csv").write_text("item_id,file\n3,covers/x.jpg\n4,gone.jpg\n")
    assert images(urls, f"--from={tmp_path / 'a.zip'}", f"--mapping={tmp_path / 'map.csv'}") == 0
    assert stored(images) == ["1.jpg", "2.jpg", "3.jpg"] and server.asked == {"/good": 1}
    assert images(urls, f"--from={tmp_path / 'a.zip'}") == 0
    assert stored(images) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "data", "links.csv", "map.csv", "pictures"]


@pytest.mark.parametrize("options, message", [
    (["--size=0x5"], "--size=0x5"), (["--size=big"], "--size=big"), (["--rate=0"], "--rate"), (["--rate=nan"], "--rate"),
    (["--concurrency=0"], "--concurrency"),
    (["--mapping=x.csv"], "--from"), (["--proxy=http://p:1"], "--allow-private"), (["--proxy=ftp://p", "--allow-private"], "--proxy"),
    (["--url-column=image_ur"], "Did you mean image_url"), (["--links=gone.csv"], "no such file"),
    (["--from=gone"], "no such folder"), (["--dataset=y"], "no such file"),
])
def test_wrong_options(images, capsys, options, message):
    assert images({"1": "http://a/b"}, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1 and not images.folder.exists()


def test_without_httpx2_it_says_what_to_install(images, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "dataset_converters.fetch", raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    assert images({"1": "http://a/b"}) == 2
    assert "pip install 'recbole_molar[images]'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to(server, images, capsys, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert images({"1": f"{server.url}/good"}, "--allow-private") == 2
    assert "No space left" in capsys.readouterr().err and stored(images) == []


def test_two_runs_at_once(images, capsys):
    images.folder.mkdir(parents=True)
    with Manifest(images.folder):
        assert images({"1": "http://a/b"}) == 2
    assert "another run is at work" in capsys.readouterr().err


def test_ids_that_differ_in_case_alone(server, images, capsys, monkeypatch):
    """Each has its picture where file names differ by case; elsewhere the first, so that no item shows another's."""
    urls = {"A1": f"{server.url}/good/1", "a1": f"{server.url}/good/2", "B": f"{server.url}/good/3"}
    assert images(urls, "--allow-private") == 0 and stored(images) == ["A1.jpg", "B.jpg", "a1.jpg"]
    for name in ("A1.jpg", "a1.jpg"):
        (images.folder / name).unlink()
    monkeypatch.setattr("dataset_converters.images.ignores_case", lambda _: True)
    assert images(urls, "--allow-private") == 0 and stored(images) == ["A1.jpg", "B.jpg"]
    assert "1 id differs from another in case alone" in capsys.readouterr().out


def test_a_damaged_manifest_is_read_as_far_as_it_goes(tmp_path):
    good = b'{"id": "1", "status": "failed", "source": "", "cause": "no url"}\n'
    bad = b'[]\nnot json\n{"id": 5}\n{"id": "2", "cause": {}}\n{"source": "x"}\n\xff\xfe\n' + b"[" * 100_000 + b"\n"
    (tmp_path / NAME).write_bytes(bad + good + b'{"id": "3", "sta')
    with Manifest(tmp_path) as manifest:
        assert list(manifest.entries) == ["1"]
        manifest.record("4", "stored", "x")
    with Manifest(tmp_path) as manifest:
        assert list(manifest.entries) == ["1", "4"]


def test_a_killed_run_loses_nothing_finished(server, images, tmp_path):
    urls = {str(number): f"{server.url}/good/{number}" for number in range(60)}
    images({}, "--allow-private")
    (images.folder.parent / "x.item").write_text("item_id:token\timage_url:token\n" + "".join(f"{key}\t{url}\n" for key, url in urls.items()))
    command = [sys.executable, "-m", "dataset_converters", "images", "--dataset=x", f"--data-path={tmp_path / 'data'}", "--allow-private", "--rate=10"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while len([name for name in stored(images) if not name.startswith(".")]) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {name: (images.folder / name).read_bytes() for name in stored(images) if not name.startswith(".")}
    assert 5 <= len(finished) < 60
    asked = server.asked.copy()
    assert images(urls, "--allow-private") == 0
    assert stored(images) == sorted(f"{number}.jpg" for number in urls)
    for name, content in finished.items():
        assert (images.folder / name).read_bytes() == content and server.asked[f"/good/{name[:-4]}"] == asked[f"/good/{name[:-4]}"] == 1


def test_runs_are_told_that_there_are_pictures(images, server):
    properties = images.folder.parent / "dataset.yaml"
    properties.parent.mkdir(parents=True)
    properties.write_text("item_modalities: [text]   # (list) x\nother: 1\n")
    assert images({"1": f"{server.url}/missing"}, "--allow-private") == 1 and "[text]" in properties.read_text()
    assert images({"2": f"{server.url}/good/2"}, "--allow-private") == 0
    assert properties.read_text() == "item_modalities: [text, image]   # (list) x\nother: 1\n"
