"""`compare --tune-trials`: every model is searched with the same number of trials, by validation, and its best is what the table shows."""

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from recbole_molar.__main__ import main
from recbole_molar.command_line import properties_dir
from recbole_molar.compare import tuned
from recbole_molar.compare.runs import parse_models
from recbole_molar.tune.space import Space
from recbole_molar.utils import get_model


@pytest.fixture
def compare(capsys, command_line, make_data, flags):
    """Function: properties -> (exit code, standard output, standard error)."""
    make_data(n_users=60)

    def call(**given):
        code = main(["compare", *command_line({key: value for key, value in flags(report=False, **given).items() if key not in ("model", *drop)})])
        return (code, *capsys.readouterr())

    drop = ("hidden_size", "n_heads", "inner_size", "n_layers", "hidden_dropout_prob", "attn_dropout_prob", "train_batch_size")
    return call


@pytest.fixture
def small_spaces(monkeypatch, tmp_path):
    """Spaces of a few tiny models in the place of those of `properties/hyper/`."""
    folder = tmp_path / "properties" / "hyper"
    folder.mkdir(parents=True)
    (folder / "SASRec.yaml").write_text("learning_rate: {log_uniform: [1.0e-4, 1.0e-1]}\nhidden_dropout_prob: {choice: [0.5, 0.1]}\n")
    (folder / "Popularity.yaml").write_text("# nothing\n")
    (folder / "default.yaml").write_text("learning_rate: {choice: [0.001, 0.01]}\n")
    monkeypatch.setattr(tuned, "properties_dir", lambda: folder.parent)


def test_models_are_tuned_alike_and_the_table_says_so(compare, small_spaces, tmp_path):
    models = {"S": {"model": "SASRec", "hidden_size": 8, "n_layers": 1}, "F": {"model": "FPMC", "embedding_size": 8}, "P": "Popularity"}
    given = {"models": json.dumps(models), "seeds": [3, 4], "tune-trials": 3, "epochs": 2}
    code, out, err = compare(**given)
    assert code == 0, err
    assert "S is tuned: 3 trials over learning_rate, hidden_dropout_prob, seed 3, chosen by validation." in out and "P is tuned: nothing to tune" in out
    found = json.loads((Path(out.strip().splitlines()[-1]) / "comparison.json").read_text())
    for model in found["models"][:2]:
        with open(Path(model["tuned"]["folder"]) / "trials.csv", newline="") as file:
            trials = list(csv.DictReader(file))
        best = max((row for row in trials if row["state"] == "complete"), key=lambda row: float(row["valid_ndcg@10"]))
        assert len(trials) == 3 == model["tuned"]["trials"]
        assert model["folders"][0] == best["run_folder"] and model["seeds"] == [3, 4]  # the best trial's run is the first seed's
        configs = [yaml.safe_load((Path(folder) / "config.yaml").read_text()) for folder in model["folders"]]
        assert {**configs[0], "seed": 4} == configs[1] and configs[0]["learning_rate"] == pytest.approx(float(best["learning_rate"]))
        tested = [row["run_folder"] for row in trials if (Path(row["run_folder"]) / "result.json").is_file()]
        assert tested == [best["run_folder"]]
    assert (configs[0]["embedding_size"], configs[0]["epochs"]) == (8, 2)
    again = compare(**given)[1]
    assert "6 runs of 3 models, 6 of them done before" in again


@pytest.mark.parametrize("given, message", [
    ({"tune-trials": 0}, "--tune-trials=0: give how many"), ({"tune-trials": 2, "learning_rate": 0.1}, "--learning_rate: .*SASRec.yaml searches over it"),
])
def test_what_stops_a_search_is_said_before_any_work(compare, small_spaces, tmp_path, given, message):
    code, out, err = compare(models="SASRec", seeds=1, epochs=1, **given)
    assert code == 2 and re.search(message, err) and not (tmp_path / "saved").exists()


def test_a_search_that_fails_is_told_with_its_log(compare, small_spaces, monkeypatch):
    monkeypatch.setattr(tuned, "in_a_process", lambda *given: ("error: all 5 trials failed", "exit code 2: error: all 5 trials failed"))
    code, out, err = compare(models="{S: SASRec}", seeds=1, epochs=1, **{"tune-trials": 1})
    assert code == 2 and "S: the search failed, exit code 2" in err and "tune-S.log" in err


@pytest.mark.parametrize("file", sorted((properties_dir() / "hyper").glob("*.yaml")), ids=lambda file: file.stem)
def test_each_space_that_is_shipped_is_valid_for_its_model(file, make_data, flags):
    from recbole_molar.config import Config
    from recbole_molar.tune.tuning import REFUSED

    if file.stem == "Popularity":
        assert not yaml.safe_load(file.read_text())
        return
    model, _, data = file.stem.partition("-")  # SASRec-ml-1m: a space to be given by hand
    model = "SASRec" if model == "default" else model
    get_model(model)
    assert data or tuned.space_of(parse_models(model)[0]) == (file if file.stem != "default" else file.with_stem("SASRec"))
    Space(file).check(lambda chosen: Config(config_dict={"model": model, "dataset": "ml-100k", **chosen}), REFUSED)
    assert tuned.space_of(parse_models("NARM")[0]).stem == "default"


def test_a_search_is_for_what_the_model_was_given(compare, small_spaces, monkeypatch):
    """An option for all models does not take the place of one that a model has of its own."""
    given = []
    monkeypatch.setattr(tuned, "in_a_process", lambda command, words, *_: (given.append(words), ("no", "stopped here"))[1])
    compare(models="{S: {model: SASRec, learner: sgd}, T: SASRec}", seeds=1, epochs=1, learner="adam", **{"tune-trials": 1})
    assert ["--learner=adam" in words for words in given] == [False, True]
    assert yaml.safe_load(Path(given[0][0].partition("=")[2]).read_text())["learner"] == "sgd"
