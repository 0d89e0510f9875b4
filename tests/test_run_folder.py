"""A run's folder: its name, log, seconds and what is left after bad input."""

import json
import logging
import subprocess
import sys

import pytest
import yaml

from recbole_molar.run_folder import RunFolder, identity, make_folder, peak_resident


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "saved", "tiny", "SASRec", {"seed": 1, "text": "ünïcode"})


@pytest.fixture
def root_logger():
    """The root logger at its default level, put back afterwards."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.WARNING)
    yield root
    root.setLevel(before)


def test_runs_of_the_same_second_get_their_own_folders(tmp_path):
    folders = [RunFolder.create(tmp_path, "tiny", "SASRec", {"seed": 1}).path for _ in range(3)]
    assert len(set(folders)) == 3 and all(yaml.safe_load((path / "config.yaml").read_text()) == {"seed": 1} for path in folders)
    assert RunFolder.create(tmp_path, "tiny", "SASRec", {"seed": 2}).path.name[-8:] != folders[0].name[-8:]


def test_log_goes_to_the_file_while_inside_only(folder, root_logger):
    handlers = root_logger.handlers[:]
    root_logger.info("before")  # loggers remember that this level was off
    with folder.logging():
        root_logger.info("inside")
        logging.getLogger("some.library").info("library")
        root_logger.debug("too fine")
    root_logger.error("after")
    log = (folder.path / "train.log").read_text()
    assert "inside" in log and "library" in log
    assert not any(word in log for word in ("before", "too fine", "after"))
    assert root_logger.handlers == handlers and root_logger.level == logging.WARNING


def test_level_is_recboles_state(folder, root_logger):
    with folder.logging("WARNING"):
        root_logger.info("fine")
        root_logger.warning("coarse")
    log = (folder.path / "train.log").read_text()
    assert "coarse" in log and "fine" not in log


def test_a_stage_that_was_cut_adds_to_its_seconds(folder, monkeypatch):
    clock = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("recbole_molar.run_folder.time.time", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), folder.stage("one"):
        raise KeyboardInterrupt
    monkeypatch.setattr(logging.Logger, "info", lambda *args: None)
    resumed = RunFolder(folder.path)
    with resumed.stage("one"):
        pass
    assert resumed.seconds == json.loads((folder.path / "seconds.json").read_text()) == {"one": 3.5}


@pytest.mark.parametrize("error, checkpoint, resumed, left", [
    (ValueError, False, False, False), (NotImplementedError, False, False, False), (ValueError, True, False, True), (ValueError, False, True, True),
    (RuntimeError, False, False, True), (KeyboardInterrupt, False, False, True),
])
def test_bad_input_leaves_no_folder(folder, root_logger, error, checkpoint, resumed, left):
    if checkpoint:  # there is something to go on from
        (folder.path / "last.safetensors").write_bytes(b"")
    if resumed:
        folder = RunFolder(folder.path)
    with pytest.raises(error), folder.discarded_on_bad_input(), folder.logging():
        raise error("bad")
    assert folder.path.exists() == left


def test_result(folder):
    folder.seconds = {"a": 1.5, "b": 2.0}
    written = folder.write_result({"model": "SASRec"})
    assert json.loads((folder.path / "result.json").read_text()) == written
    assert written["total_seconds"] == 3.5 and written["peak_memory"]["cpu"] > 0.01
    assert {"python", "recbole", "torch", "numpy"} <= set(written["versions"]) and written["machine"]["cores"] >= 1


def test_peak_memory_is_that_of_this_process_not_of_the_one_that_started_it():
    held = b"1" * (3 << 29)  # 1.5 GiB
    code = "from recbole_molar.run_folder import peak_resident; print(peak_resident())"
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 2**26 < peak < len(held) < peak_resident()


def test_a_link_to_nowhere_is_an_error(tmp_path):
    """And no clash of names, which another number would end."""
    (tmp_path / "saved").symlink_to(tmp_path / "not_mounted")
    with pytest.raises(ValueError, match="output_dir=.*saved: cannot be written to"):
        make_folder(tmp_path / "saved", "tiny", "SASRec-{}")


def test_where_a_run_computes_is_not_what_it_is():
    assert identity({"model": "SASRec", "use_gpu": True, "gpu_id": "1", "use_cpu": False}) == identity({"model": "SASRec", "use_cpu": True})
