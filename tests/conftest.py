"""Shared fixtures: tiny generated data sets on disk, and the flags of a run that takes a second."""

import contextlib

import pytest

from recbole_molar.__main__ import wait_without_spinning
from tiny_data import tiny_interactions, write_inter, write_items

wait_without_spinning()  # before anything imports PyTorch


@pytest.fixture
def make_data(tmp_path):
    """Function that writes the data set `name` below `tmp_path/data`; returns data_path."""

    def make(rows=None, name="tiny", items=False, images=False, **options):
        folder = tmp_path / "data" / name
        write_inter(folder, tiny_interactions(**options) if rows is None else rows)
        if items or images:
            write_items(folder, options.get("n_items", 30), images=images)
        return tmp_path / "data"

    return make


@pytest.fixture
def flags(tmp_path):
    """Function that gives the properties of a short run on the data set `tiny`, as a dict; keywords replace or add."""

    def given(**options):
        base = {
            "model": "SASRec", "dataset": "tiny", "data_path": str(tmp_path / "data"), "output_dir": str(tmp_path / "saved"), "use_cpu": True,
            "epochs": 1, "train_batch_size": 64, "hidden_size": 8, "inner_size": 16, "n_layers": 1, "n_heads": 2, "MAX_ITEM_LIST_LENGTH": 6,
            "topk": [5, 10], "show_progress": False, "precision": "fp32",
        }
        if options.get("model", "SASRec") != "SASRec":
            base = {key: value for key, value in base.items() if key not in ("hidden_size", "inner_size", "n_layers", "n_heads")}
        return {**base, **options}

    return given


@pytest.fixture
def command_line():
    """Function that turns a dict of properties into `--key=value` words."""
    return lambda given: [f"--{key}={value}" for key, value in given.items()]


@pytest.fixture
def cut_after_two_epochs(monkeypatch):
    """Context in which training is interrupted, as by Ctrl-C, once the second epoch's checkpoint is written; what is run there exits with 130."""
    from recbole_molar.trainer.sequential_trainer import SequentialTrainer

    save = SequentialTrainer._save_checkpoint

    def cut(self, epoch, **kwargs):
        save(self, epoch, **kwargs)
        if epoch == 1:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def cutting():
        with monkeypatch.context() as patch:
            patch.setattr(SequentialTrainer, "_save_checkpoint", cut)
            yield

    return cutting
