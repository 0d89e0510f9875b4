"""The whole command: what it prints, leaves and returns, on good input, bad input, and when it is killed."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_data import tiny_interactions, write_inter

from recbole_molar import quick_start
from recbole_molar.__main__ import main
from recbole_molar.config import Config
from recbole_molar.device import has_cpu_bf16
from recbole_molar.lock import take_lock
from recbole_molar.run_folder import CONFIG, RunFolder
from recbole_molar.utils import recbole_sequential_models

ROOT = Path(__file__).parent.parent
METRICS = {f"{name}@{k}" for name in ("recall", "ndcg", "mrr") for k in (5, 10)}


@pytest.fixture
def run(capsys, command_line):
    """Function: properties -> (exit code, standard output, standard error)."""

    def call(given):
        code = main(["run", *(given if isinstance(given, list) else command_line(given))])
        return (code, *capsys.readouterr())

    return call


def result_of(out):
    """`result.json` whose path is the last line printed."""
    path = Path(out.strip().splitlines()[-1])
    assert path.name == "result.json"
    return json.loads(path.read_text()), path.parent


# ----------------------------------------------------------------- good input


@pytest.mark.parametrize("model, training, valid_metric", [
    ("SASRec", "all positions of a history in one pass", "NDCG@10"), ("BERT4Rec", "whole histories, masked anew in each epoch", "Recall@5"),
    ("Popularity", "all positions", "MRR@5"),
])
def test_a_run_and_what_it_leaves(make_data, flags, run, tmp_path, model, training, valid_metric):
    make_data()
    code, out, err = run(flags(model=model, valid_metric=valid_metric, epochs=2, seed=7))
    assert code == 0 and err == ""
    result, folder = result_of(out)
    assert re.fullmatch(rf"{model}-\d{{8}}-\d{{6}}-[0-9a-f]{{8}}", folder.name) and folder.parent == tmp_path / "saved" / "tiny"
    assert {file.name for file in folder.iterdir()} == {
        "config.yaml", "result.json", "train.log", "ranks.npz", "seconds.json", "curve.json", "best.safetensors", "last.safetensors",
    }
    assert set(result["test_result"]) == set(result["best_valid_result"]) == METRICS
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in result["test_result"].values())
    assert (result["model"], result["dataset"], result["seed"], result["mask_history"], result["epochs_run"]) == (model, "tiny", 7, True, 2)
    assert result["training"].startswith(training)
    assert re.fullmatch("[0-9a-f]{16}", result["split_hash"])
    assert result["seconds"].keys() == {model, "test"} and result["peak_memory"]["cpu"] > 0 and result["versions"]["recbole"].startswith("1.2")
    log = (folder / "train.log").read_text()
    for part in ("40 users, 30 items", "epoch 1/2", "epoch 2/2", "history masked", "test  recall@5"):
        assert part in log and part in out, part
    best = json.loads((folder / "curve.json").read_text())[result["best_epoch"] - 1]
    assert best["best"] and best["valid"] == result["best_valid_result"]
    with np.load(folder / "ranks.npz") as ranks:
        hits = ranks["rank"] <= 5
        assert len(ranks["user"]) == 38 and ranks["user"][0].startswith("u") and ranks["item"][0].startswith("i")
        if not ranks["ties"].any():
            assert hits.mean() == pytest.approx(result["test_result"]["recall@5"], abs=1e-6)


def test_the_written_config_repeats_the_run(make_data, flags, run):
    make_data()
    first, folder = result_of(run(flags(epochs=2))[1])
    second, other = result_of(run([f"--config_files={folder / 'config.yaml'}"])[1])
    assert folder != other and second["test_result"] == first["test_result"] and second["split_hash"] == first["split_hash"]
    assert yaml.safe_load((folder / "config.yaml").read_text()) == yaml.safe_load((other / "config.yaml").read_text())


def test_wandb_that_is_not_there(make_data, flags, run, monkeypatch):
    """Found before any stage: RecBole imports it when a training begins."""
    make_data(items=True)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    code, _, err = run(flags(model="Molar", log_wandb=True))
    assert code == 2 and "log_wandb=True: the package wandb is not installed" in err


@pytest.mark.parametrize("asked, came", [("fp32", "fp32"), ("bf16", "bf16"), ("auto", "bf16" if has_cpu_bf16() else "fp32")])
def test_says_what_it_computed_in(make_data, flags, run, asked, came):
    make_data()
    result, folder = result_of(run(flags(model="Popularity", precision=asked))[1])
    assert result["precision"] == came and f"device cpu, {came}\n" in (folder / "train.log").read_text()


def test_models_of_one_comparison_share_the_split(make_data, flags, run):
    make_data()
    found = [result_of(run(flags(model=model, epochs=0))[1])[0]["split_hash"] for model in ("SASRec", "FPMC", "Popularity")]
    assert len(set(found)) == 1


def test_two_runs_log_to_their_own_files(make_data, flags, run):
    make_data()
    folders = [result_of(run(flags(seed=seed))[1])[1] for seed in (1, 2)]
    for folder, other in (folders, folders[::-1]):
        log = (folder / "train.log").read_text()
        assert log.count("epoch 1/1") == 1 and str(folder) in log and str(other) not in log
    assert not list(Path.cwd().glob("log*/*tiny*"))


def test_a_run_under_way_is_waited_for(make_data, flags, run, command_line, tmp_path):
    """Two processes in one run folder overwrote each other's best weights."""
    make_data()
    given = flags(epochs=2)
    folder = RunFolder.create(given["output_dir"], "tiny", "SASRec", Config(config_dict=given).as_yaml()).path
    finished = {"test_result": {"recall@10": 0.25}, "run_by": "the other one"}
    with futures.ThreadPoolExecutor(1) as pool:
        with take_lock(folder / CONFIG):
            second = pool.submit(quick_start.run, [f"--resume={folder}"])
            with pytest.raises(futures.TimeoutError):
                second.result(timeout=5)
            assert not (folder / "last.safetensors").exists()
            (folder / "result.json").write_text(json.dumps(finished))
        assert second.result(timeout=60)["run_by"] == "the other one" and not (folder / "last.safetensors").exists()


def test_resume_of_a_finished_run_gives_its_result(make_data, flags, run):
    make_data()
    first, folder = result_of(run(flags())[1])
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    code, out, _ = run([f"--resume={folder}"])
    assert code == 0 and result_of(out) == (first, folder)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


FEATURES = {"selected_features": "[genre]", "load_col": "{item: [item_id, genre]}"}


@pytest.mark.parametrize("model", sorted(set(recbole_sequential_models()) - {"SASRec", "BERT4Rec"}))
def test_recboles_models_run(make_data, flags, run, model):
    make_data(items=True)
    own = FEATURES if model in ("GRU4RecF", "SASRecF", "FDSA") else {"reranker_CAN_NUM": "'10'"} if model.endswith("CPR") else {}
    code, out, err = run(flags(model=model, train_batch_size=512, **own))
    assert code == 0, err
    assert 0 < result_of(out)[0]["test_result"]["recall@10"] < 1


# ------------------------------------------------------------------ bad input


def no_inter(data):
    (data / "tiny" / "tiny.inter").unlink()


def no_data(data):
    no_inter(data)
    (data / "tiny").rmdir()


def few(data):
    write_inter(data / "tiny", [(f"u{n % 20}", f"i{n}", n) for n in range(40)])


def no_column(data):
    write_inter(data / "tiny", tiny_interactions(), header="user_id:token\tmovie:token\ttimestamp:float")


BAD_INPUT = {
    "unknown key": ({"learning_rte": 1}, None, "--learning_rte: unknown property for model SASRec. Did you mean learning_rate?"),
    "unknown model": ({"model": "SASREC"}, None, "model=SASREC: no such sequential model. Did you mean SASRec?"),
    "model not offered": ({"model": "KSR"}, None, "not offered here: it needs a knowledge graph"),
    "unknown data set": ({"dataset": "none-such"}, None, "none-such.inter: missing"),
    "unknown user encoder": ({"model": "Molar", "user_encoder": "DUE"}, None, "user_encoder=DUE: no such part. Did you mean DUEG?"),
    "unknown ID model": ({"model": "Molar", "id_model": "SASReck"}, None, "id_model=SASReck: no such sequential model. Did you mean SASRec"),
    "missing file": ({}, no_inter, "tiny.inter: missing"),
    "missing folder": ({}, no_data, "tiny.inter: missing"),
    "missing column": ({}, no_column, "has no column item_id (ITEM_ID_FIELD)"),
    "too few": ({}, few, "too few interactions"),
    "filter": ({"user_inter_num_interval": "[99,inf)"}, None, "no interaction is left"),
    "choice": ({"lr_schedule": "step"}, None, "lr_schedule=step: unknown. Valid: constant, cosine."),
    "metric": ({"metrics": "[Recal]"}, None, "metrics=Recal: unknown"),
    "valid metric": ({"valid_metric": "NDCG@50"}, None, "valid_metric=NDCG@50: not computed"),
    "topk": ({"topk": "[10, 31]"}, None, "tiny has 30 items"),
    "feature": ({"model": "GRU4RecF"}, None, "reads the item feature class, which is not loaded"),
    "loss": ({"model": "NARM", "loss_type": "XE"}, None, "loss_type"),
    "config file": ({"config_files": "nowhere.yaml"}, None, "nowhere.yaml: cannot read"),
    "resume": ({"resume": "nowhere"}, None, "leave out"),
    "diverges": ({"learning_rate": "1e30", "epochs": 5, "learner": "sgd"}, None, "Try a lower learning_rate"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(make_data, flags, run, tmp_path, name):
    given, spoil, message = BAD_INPUT[name]
    data = make_data()
    if spoil:
        spoil(data)
    code, out, err = run(flags(**given))
    assert code == 2 and message in err
    assert err.startswith("error: ") and "Traceback" not in err and len(err) < 1500
    assert "result.json" not in out
    assert not list((tmp_path / "saved").rglob("*.*")) and not list((tmp_path / "saved" / "tiny").glob("*"))


@pytest.mark.parametrize("words, message", [
    (["--resume=nowhere"], "--resume=nowhere: holds no config.yaml"), (["--model=SASRec"], "--dataset is missing"), ([], "--model is missing"),
    (["model=SASRec"], "model=SASRec: expected --key=value"), (["--model"], "--model: has no value"),
])
def test_bad_words(run, words, message):
    code, _, err = run(words)
    assert code == 2 and message in err and "Traceback" not in err


def test_traceback_only_when_asked_for(make_data, flags, run, monkeypatch):
    make_data()
    code, _, err = run(flags(learning_rte=1, debug=True))
    assert code == 2 and "Traceback" in err and "learning_rte" in err

    def broken(*args, **kwargs):
        raise KeyError("boom")

    monkeypatch.setattr("recbole_molar.quick_start.train", broken)
    code, _, err = run(flags())
    assert code == 1 and err == "unexpected KeyError: 'boom'\nShow the traceback with --debug=True.\n"

    def too_large(*args, **kwargs):
        torch.empty(10**17)

    monkeypatch.setattr("recbole_molar.quick_start.train", too_large)
    code, _, err = run(flags())
    assert code == 1 and err.startswith("error: ") and "allocate memory" in err and "Set gradient_checkpointing=True" in err and "unexpected" not in err


def test_help_and_unknown_command(capsys):
    assert main([]) == main(["--help"]) == main(["run", "--help"]) == 0
    assert "usage:" in capsys.readouterr().out
    assert main(["fly"]) == 2 and "fly: no such command" in capsys.readouterr().err


@pytest.mark.parametrize("own, expected", [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")])
def test_threads_do_not_spin_for_long_unless_the_user_says_so(own, expected):
    rest = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "from recbole_molar.__main__ import main; main([]); import os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**rest, **own}, check=True)
    assert done.stdout.split()[-2:] == [expected, "False"]  # PyTorch, which reads it, comes later


# -------------------------------------------------------------------- kill -9


def start(words, folder):
    """A process of its own, as a user starts it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "run_recbole_molar.py"), *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize("model", ["SASRec", "FPMC"])
def test_kill_9_and_resume(make_data, flags, run, command_line, tmp_path, model):
    make_data()
    given = flags(model=model, epochs=12, stopping_step=100, train_batch_size=4, show_progress=True)
    whole, _ = result_of(run({**given, "output_dir": str(tmp_path / "whole")})[1])
    process = start(command_line(given), tmp_path)
    log, deadline = [], time.time() + 60
    while time.time() < deadline and process.poll() is None:
        log = list((tmp_path / "saved" / "tiny").glob("*/train.log"))
        if log and "epoch 2/12" in log[0].read_text():
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err.decode()
    folder = log[0].parent
    done = json.loads((folder / "curve.json").read_text())
    assert 1 <= len(done) < 12 and not (folder / "result.json").exists()
    code, out, err = run([f"--resume={folder}"])
    assert code == 0, err
    resumed, same = result_of(out)
    went_on_after = int(re.search(r"going on after epoch (\d+)", (folder / "train.log").read_text())[1])
    assert same == folder and went_on_after in (len(done), len(done) + 1)  # the curve is written just after the checkpoint
    for key in ("test_result", "best_valid_result", "best_epoch", "epochs_run", "split_hash"):
        assert resumed[key] == whole[key], key
