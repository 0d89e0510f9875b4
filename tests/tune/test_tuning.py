"""The whole command `tune`: what it leaves, what it refuses, and that it goes on and shares work."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from recbole_molar import quick_start
from recbole_molar.__main__ import main
from recbole_molar.command_line import read_yaml
from recbole_molar.compare.report.search import search_panels
from recbole_molar.compare.runs import find
from recbole_molar.config import Config
from recbole_molar.quick_start import run
from recbole_molar.tune.study import MOST_STARTS
from recbole_molar.tune.tuning import open_study

ROOT = Path(__file__).parents[2]
SPACE = "learning_rate: {log_uniform: [1.0e-3, 1e-1]}\nhidden_dropout_prob: {choice: [0.0, 0.5]}\n"


@pytest.fixture
def tune(make_data, flags, command_line, tmp_path, capsys):
    """Function: text of a space, options -> (exit code, standard output, standard error)."""
    make_data(items=True)

    def call(text=SPACE, **options):
        (tmp_path / "space.yaml").write_text(text)
        options = {"space": str(tmp_path / "space.yaml"), "trials": 3, **options}
        code = main(["tune", *command_line({key: value for key, value in flags(**options).items() if value is not None})])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def trials(tmp_path):
    """Function: the rows of a study's `trials.csv`."""

    def read(folder=None):
        folder = folder or next((tmp_path / "saved" / "tiny").glob("tune-*"))
        with open(folder / "trials.csv", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read


def result_in(folder):
    """`result.json` of a run folder."""
    return json.loads((Path(folder) / "result.json").read_text())


def chosen(trials):
    """What a search did, without where and how long."""
    return [{key: row[key] for key in row if key not in ("seconds", "run_folder", "reused")} for row in trials]


def test_a_study_and_what_it_leaves(tune, trials, tmp_path, monkeypatch):
    tested = []
    monkeypatch.setattr(quick_start, "test", lambda *given, original=quick_start.test: tested.append(given) or original(*given))
    options = {"epochs": 2, "pruning": False}
    code, out, err = tune(trials=10, **options)
    assert code == 0 and err == ""
    rows = trials()
    assert len(rows) == 10 and re.findall(r"^trial (\d+)  valid", out, flags=re.M) == [str(number) for number in range(10)]
    done = [row for row in rows if row["state"] == "complete"]
    best = max(done, key=lambda row: float(row["valid_ndcg@10"]))
    assert rows[0]["learning_rate"] == "0.001" and rows[0]["hidden_dropout_prob"] == "0.5"  # as it stands, first
    # every trial is a run folder that compare would go on with; the test was computed once, for the best by validation
    assert len(tested) == 1 and [row for row in rows if Path(row["run_folder"], "result.json").exists()] == [best]
    for row in rows:
        folder = Path(row["run_folder"])
        assert find(read_yaml(folder / "config.yaml")) == folder and "test  recall" not in ((folder / "train.log").read_text() if row != best else "")
    result = result_in(best["run_folder"])
    assert result["best_valid_result"]["ndcg@10"] == float(best["valid_ndcg@10"]) and result["best_epoch"] == int(best["best_epoch"])
    figure = f"test items once, after the search: recall@5 {result['test_result']['recall@5']:.4f}"
    for part in ("as it stands has", "importance (fANOVA)", "10 trials: 10 complete", figure):
        assert part in out, part
    folder = Path(out.strip().splitlines()[-1])
    assert {"study.db", "trials.csv", "best.yaml", "space.yaml"} <= {file.name for file in folder.iterdir()}
    # the best configuration repeats the run, and holds nothing but what differs
    repeated = run([f"--config_files={folder / 'best.yaml'}", f"--output_dir={tmp_path / 'again'}", "--use_cpu=True"])
    assert (repeated["best_valid_result"], repeated["test_result"]) == (result["best_valid_result"], result["test_result"])
    stands = Config(config_dict={"model": "SASRec", "dataset": "tiny"}).as_yaml()
    written = yaml.safe_load((folder / "best.yaml").read_text())
    assert all(stands[key] != value for key, value in written.items() if key not in ("model", "dataset")) and "output_dir" not in written
    # the same command again has nothing to do; more trials go on
    assert tune(trials=10, **options)[0] == 0 and trials() == rows and len(tested) == 2
    assert tune(trials=11, **options)[0] == 0 and chosen(trials())[:10] == chosen(rows) and len(trials()) == 11


def test_a_run_that_is_there_is_not_made_again(tune, trials, flags, command_line):
    first = run(command_line(flags(learning_rate=0.01)))
    assert tune("learning_rate: {choice: [0.01]}", trials=3)[0] == 0
    assert {row["run_folder"] for row in trials()} == {str(Path(first["result_file"]).parent)}
    assert {float(row["valid_ndcg@10"]) for row in trials()} == {first["best_valid_result"]["ndcg@10"]}


def test_failures_are_written_down_and_the_study_goes_on(tune, trials):
    space = "n_heads: {choice: [2, 3]}\nlearning_rate: {choice: [0.01, 1.0e+30]}\nhidden_size: {choice: [8]}\n"
    code, out, _ = tune(space, sampler="grid", n_heads=None, hidden_size=None, trials=9, learner="sgd")
    rows = trials()
    assert code == 0 and len(rows) == 4 and len({(row["n_heads"], row["learning_rate"]) for row in rows}) == 4  # the grid has four points
    reasons = {(row["n_heads"], row["learning_rate"]): row["reason"] for row in rows}
    assert reasons["2", "0.01"] == "" and "n_heads=3: must divide hidden_size=8." in reasons["3", "0.01"]
    assert [row["state"] for row in rows].count("fail") >= 2 and "failed: n_heads=3: must divide" in out
    assert "Traceback" not in out


def test_a_hopeless_study_ends_early(tune, trials):
    code, out, err = tune("n_heads: {choice: [3]}\nhidden_size: {choice: [8]}", n_heads=None, hidden_size=None, trials=50)
    assert code == 2 and err.startswith("error: all 5 trials failed, the first one: n_heads=3: must divide hidden_size=8. (n_heads: ")
    assert "trials.csv" in err and len(trials()) == 5


def test_trials_that_fall_behind_are_pruned(tune, trials, tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_molar.tune.study.UNPRUNED_TRIALS", 1)
    (tmp_path / "stands.yaml").write_text("learning_rate: 0.05\n")
    options = {"epochs": 4, "trials": 6, "sampler": "random", "config_files": tmp_path / "stands.yaml"}
    code, out, _ = tune("learning_rate: {choice: [0.05, 1.0e-9]}", **options)
    rows = trials()
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert code == 0 and pruned and {row["learning_rate"] for row in pruned} == {"1e-09"} and "pruned at ndcg@10" in out
    assert not any(Path(row["run_folder"], "result.json").exists() for row in pruned)
    assert tune("learning_rate: {choice: [0.05, 1.0e-9]}", **options, pruning=False)[0] == 0
    other = next(folder for folder in (tmp_path / "saved" / "tiny").glob("tune-*") if f"{folder}\n" not in out)
    assert all(row["state"] == "complete" for row in trials(other))


def test_molars_stages_are_shared(tune, trials, monkeypatch):
    from recbole_molar.trainer.mirm_finetune_trainer import MIRMFinetuneTrainer

    ran = []
    monkeypatch.setattr(MIRMFinetuneTrainer, "_run", lambda self, *given, original=MIRMFinetuneTrainer._run: ran.append("stage 1") or original(self, *given))
    monkeypatch.setattr(quick_start, "train", lambda *given, original=quick_start.train: ran.append(given[6]) or original(*given))
    small = {
        "model": "Molar", "mirm_finetune_samples": 20, "compact_hidden_size": 16, "compact_num_layers": 2, "compact_intermediate_size": 24,
        "compact_vision_size": 16, "compact_vision_layers": 1, "compact_vocab_size": 300, "id_hidden_size": 8, "id_inner_size": 8, "id_epochs": 1,
        "mirm_max_tokens": 24, "item_modalities": "[text]", "item_adapter_size": 16,
    }  # fmt: skip
    text = "dueg_dropout: {choice: [0.1, 0.3]}\nalign_weight: {choice: [0.02, 0]}\nalign_temperature: {choice: [0.1, 0.2], if: {align_weight: 0.02}}\n"
    code, _, err = tune(text, trials=4, sampler="grid", **small)
    rows = trials()
    assert code == 0, err
    assert ran.count("stage 1") == 1 and ran.count("id_model") == 1 and ran.count("Molar") == 5  # the fifth: the best, gone on with for its test
    assert all("stage_1" in row["reused"] for row in rows[1:]) and [row["state"] for row in rows] == ["complete"] * 4
    assert all((row["align_temperature"] == "") == (row["align_weight"] == "0") for row in rows)


# ------------------------------------------------------- cut, and two at once


def start_tuning(tmp_path, given):
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    words = [f"--{key}={value}" for key, value in given.items()]
    command = [sys.executable, "-m", "recbole_molar", "tune", *words]
    return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_kill_9_and_the_same_command(tune, trials, flags, tmp_path):
    options = {"trials": 4, "epochs": 6, "train_batch_size": 8}
    assert tune(output_dir=tmp_path / "whole", **options)[0] == 0
    whole = trials(next((tmp_path / "whole" / "tiny").glob("tune-*")))
    process = start_tuning(tmp_path, {**flags(**options), "space": tmp_path / "space.yaml"})
    deadline, cut = time.time() + 300, None
    while time.time() < deadline and process.poll() is None and not cut:
        logs = sorted((tmp_path / "saved" / "tiny").glob("*/train.log"))
        cut = next((log for log in logs[1:] if "epoch 2/6" in log.read_text()), None)  # in its second trial
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.communicate() and process.returncode == -signal.SIGKILL
    code, out, err = tune(**options)
    assert code == 0, err
    assert chosen(trials()) == chosen(whole)
    assert "going on after epoch" in cut.read_text() and out.count("\ntrial 0  valid") == 0 and "\ntrial 1  valid" in out


def test_two_processes_share_one_study(tune, trials, flags, tmp_path):
    options = {"trials": 8, "epochs": 2, "train_batch_size": 8, "sampler": "random"}
    (tmp_path / "space.yaml").write_text(SPACE)
    process = start_tuning(tmp_path, {**flags(**options), "space": tmp_path / "space.yaml"})
    deadline = time.time() + 300
    while time.time() < deadline and process.poll() is None and not list((tmp_path / "saved").rglob("train.log")):
        time.sleep(0.01)
    code, out, err = tune(**options)
    other = process.communicate()[0]
    assert code == 0 and process.returncode == 0, err + other
    rows, own = trials(), [{*re.findall(r"^trial (\d+)  (?:valid|pruned)", text, flags=re.M)} for text in (out, other)]
    assert len(rows) == 8 and own[0] | own[1] == {str(number) for number in range(8)} and not own[0] & own[1] and all(own)
    assert len({row["learning_rate"] for row in rows}) == 8
    assert sum(Path(row["run_folder"], "result.json").exists() for row in rows) == 1
    assert "test items once" in out or "test items once" in other


def test_a_trial_that_kills_its_process_is_given_up(make_data, flags, tmp_path):
    make_data()
    (tmp_path / "space.yaml").write_text(SPACE)
    study, _ = open_study(flags(), {"space": str(tmp_path / "space.yaml")})
    trial, values, lock = study.next_trial(2)
    assert trial.number == 0 and values == {"learning_rate": 0.001, "hidden_dropout_prob": 0.5}
    other, _, another = study.next_trial(2)  # while the first is alive
    assert other.number == 1 and study.next_trial(2) is None
    lock.close()  # as when its process dies
    for start in range(2, MOST_STARTS + 1):
        again, values, lock = study.next_trial(2)
        assert again.number == 0 and values == {"learning_rate": 0.001, "hidden_dropout_prob": 0.5}, start
        lock.close()
    trial, _, lock = study.next_trial(3)
    assert trial.number == 2 and study.trials()[0].user_attrs["reason"] == f"its process died {MOST_STARTS} times"
    lock.close()
    another.close()


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("text, options, message", [
    (SPACE, {"space": None}, "--space is missing"), (SPACE, {"space": "nowhere.yaml"}, "nowhere.yaml: cannot read"),
    (SPACE, {"learning_rate": 0.1}, "--learning_rate: "), (SPACE, {"trials": 0}, "--trials=0"), (SPACE, {"trials": "many"}, "--trials=many"),
    (SPACE, {"sampler": "tpo"}, "--sampler=tpo: unknown. Valid: tpe, grid, random"), (SPACE, {"pruning": "maybe"}, "--pruning=maybe"),
    (SPACE, {"sampler": "grid"}, "learning_rate: --sampler=grid needs"), (SPACE, {"epochs": 0}, "tune chooses by validation"),
    (SPACE, {"resume": "x"}, "--resume: is for run"), (SPACE, {"learning_rte": 1}, "error: --learning_rte: unknown property"),
    ("learning_rte: {uniform: [0, 1]}", {}, "space.yaml, line 1: learning_rte: unknown property for model SASRec. Did you mean learning_rate?"),
    ("learning_rate: {uniform: [-1, 1]}", {}, "space.yaml, line 1: learning_rate=-1.0: must be"),
    ("eval_args: {choice: [{}]}", {}, "eval_args: is not searched"),
])
def test_bad_input(tune, tmp_path, text, options, message):
    code, out, err = tune(text, **options)
    assert code == 2 and message in err and err.startswith("error: ") and "Traceback" not in err
    assert not (tmp_path / "saved").exists()


def test_without_optuna(tune, monkeypatch):
    monkeypatch.setattr("recbole_molar.__main__.find_spec", lambda name: None)
    code, _, err = tune()
    assert code == 2 and 'pip install "recbole_molar[tune]"' in err


def test_the_page_says_what_happened(tune, tmp_path):
    text = SPACE + "attn_dropout_prob: {uniform: [0.0, 0.5], step: 0.1, if: {hidden_dropout_prob: 0.5}}\n"
    code, out, err = tune(text, trials=12, epochs=2, attn_dropout_prob=None)
    assert (code, err) == (0, "")
    (folder,) = (tmp_path / "saved" / "tiny").glob("tune-*")
    search, page = json.loads((folder / "search.json").read_text()), (folder / "report.html").read_text()
    assert "http" not in page.lower().replace("http-equiv", "") and page.count("<script") == 2 and 5 <= page.count("<svg") <= 6
    values = {trial["number"]: trial["value"] for trial in search["trials"]}
    assert len(values) == 12 and values[search["best"]] == max(value for value in values.values() if value is not None)
    for trial in search["trials"]:
        assert page.count(f"trial {trial['number']}: {trial['value']:.4f} (") >= 2  # where it stands in the search, and at its values
    assert all(f"<h3>{dimension['key']}</h3>" in page for dimension in search["dimensions"]) and "learning_rate:" in page[page.index("<pre>") :]
    (panel,) = search_panels({"models": [{"label": "S", "tuned": {"folder": str(folder)}}, {"label": "P", "tuned": {"folder": None}}, {"label": "D"}]})
    assert (panel["best"], panel["default"], panel["trials"]) == (values[search["best"]], values[0], 12) and panel["history"].count("trial ") >= 12


def test_without_jinja2_there_is_no_page_and_this_is_said(tune, tmp_path, monkeypatch):
    for name in ("recbole_molar.compare.report.template", "recbole_molar.compare.report.search"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, out, _ = tune(trials=1)
    assert code == 0 and "No report.html: it needs jinja2" in out and not list((tmp_path / "saved" / "tiny").glob("tune-*/report.html"))
