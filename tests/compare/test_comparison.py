"""`compare` as a user calls it: what it runs, reuses, refuses and writes."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_comparison import example
from tiny_data import tiny_interactions, write_inter

from recbole_molar.__main__ import main
from recbole_molar.compare.comparison import options_of
from recbole_molar.compare.runs import chosen_gpus, find, parse_models, queue, visible_gpus
from recbole_molar.compare.tables import as_latex, as_markdown, as_text
from recbole_molar.config import Config
from recbole_molar.quick_start import run
from recbole_molar.run_folder import RunFolder, identity


@pytest.fixture
def compare(capsys, command_line):
    """Function: properties -> (exit code, standard output, standard error)."""

    def call(**given):
        code = main(["compare", *command_line(given)])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def finished(make_data, flags, command_line, tmp_path):
    """Options of a comparison whose four runs are done: Popularity and SASRec, seeds 1 and 2."""
    make_data(n_users=60)
    for model in ("Popularity", "SASRec"):
        for seed in (1, 2):
            run(command_line(flags(model=model, seed=seed)))
    given = flags(seeds=[1, 2], models="Popularity,SASRec")
    del given["model"]
    return given


def test_finished_runs_are_reused_and_tabled(compare, finished):
    code, out, err = compare(**finished)
    assert code == 0 and err == "" and "4 runs of 2 models, 4 of them done before" in out
    folder = Path(out.strip().splitlines()[-1])
    found = json.loads((folder / "comparison.json").read_text())
    assert [model["label"] for model in found["models"]] == ["Popularity", "SASRec"] and found["reference"] == "Popularity" and found["users"] == 58
    for model in found["models"]:
        for path, value in zip(model["folders"], model["test"]["ndcg@10"]["values"]):
            result = json.loads((Path(path) / "result.json").read_text())
            with np.load(Path(path) / "ranks.npz") as ranks:
                if not ranks["ties"].any():
                    assert value == pytest.approx(result["test_result"]["ndcg@10"], abs=1e-5)
        results = [json.loads((Path(path) / "result.json").read_text()) for path in model["folders"]]
        curves = [json.loads((Path(path) / "curve.json").read_text()) if (Path(path) / "curve.json").is_file() else [] for path in model["folders"]]
        assert model["test"]["ndcg@10"]["std"] == pytest.approx(np.std(model["test"]["ndcg@10"]["values"], ddof=1))
        assert model["valid"]["ndcg@10"]["values"] == [result["best_valid_result"]["ndcg@10"] for result in results]
        seconds = [sum(value for name, value in result["seconds"].items() if name != "test") for result in results]
        to_best = [sum(one["train_seconds"] + one.get("valid_seconds", 0) for one in curve) for curve in curves]  # of one epoch each
        assert model["cost"]["train_seconds"] == pytest.approx(np.mean(seconds))
        assert model["cost"]["seconds_to_best_epoch"] == pytest.approx(np.mean(to_best))
        assert model["cost"]["parameters"] > 0 and model["cost"]["latency_ms"] >= 0 and 0 < model["beyond"]["coverage@10"] <= 1
    assert {one["metric"] for one in found["differences"]} == set(found["metrics"]) and all(one["p_holm"] >= one["p"] for one in found["differences"])
    assert "SASRec" in (folder / "table.md").read_text() and "\\toprule" in (folder / "table.tex").read_text()
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert {row["part"] for row in rows} >= {"test", "valid", "beyond", "cost", "minus Popularity"}


def test_what_is_missing_is_run_and_a_failure_is_told(compare, finished):
    recipe = {"good": {"model": "SASRec"}, "bad": {"model": "SASRec", "learning_rate": 1e30, "seed": 1}}
    code, out, err = compare(**{**finished, "models": json.dumps(recipe), "seeds": "[1]"})
    assert code == 1 and "FAILED bad, seed 1: exit code 2: error: epoch 1" in out and "1 of them done before" in out
    table = out[out.index("Test items") :]
    assert "good" in table and "\nbad" not in table


def test_the_data_changed_in_between(compare, finished, tmp_path):
    write_inter(tmp_path / "data" / "tiny", tiny_interactions(n_users=61))
    code, out, err = compare(**finished)
    assert code == 2 and "the data has changed since the runs were made" in err
    before = sorted((tmp_path / "saved" / "tiny").iterdir())
    code, out, err = compare(**{**finished, "seeds": "[1, 3]"})  # of which some are missing: nothing is trained first
    assert code == 2 and "different splits" in err and "not run yet, on the data as it is now" in err
    assert sorted((tmp_path / "saved" / "tiny").iterdir()) == before


def test_two_copies_of_one_name(compare, make_data, finished, tmp_path):
    """Each finds its own runs, not the newest."""
    given = {**finished, "seeds": "[1]", "report": False}
    write_inter(tmp_path / "other" / "tiny", tiny_interactions(n_users=61))
    assert compare(**{**given, "data_path": tmp_path / "other", "models": "SASRec"})[0] == 0
    for data_path in (tmp_path / "data", tmp_path / "other"):
        code, out, err = compare(**{**given, "data_path": data_path, "models": "SASRec"})
        assert code == 0 and "1 runs of 1 models, 1 of them done before" in out, err


def test_a_cut_run_whose_data_has_moved_goes_on(compare, make_data, flags, tmp_path):
    make_data()
    given = flags(seed=1)
    cut = RunFolder.create(given["output_dir"], "tiny", "SASRec", Config(config_dict=given).as_yaml()).path
    (tmp_path / "data").rename(tmp_path / "now: here #1")  # a path that would be other YAML
    options = {key: value for key, value in given.items() if key not in ("model", "seed")} | {"data_path": json.dumps(str(tmp_path / "now: here #1"))}
    code, out, err = compare(**options, models="SASRec", seeds="[1]", report=False)
    assert code == 0 and (cut / "result.json").is_file(), out + err


def test_sampled_ranking_and_metrics_that_are_left_out_are_said(compare, make_data, flags):
    make_data()
    given = flags(topk="[5]", metrics="[NDCG, Precision]", valid_metric="NDCG@5", eval_args="{mode: uni10}")
    del given["model"]
    code, out, err = compare(**given, models="SASRec", seeds="[1]")
    page = (Path(out.strip().splitlines()[-1]) / "report.html").read_text()
    assert code == 0 and "eval_args.mode=uni10" in out and "Left out: Precision" in out, err
    assert "those of eval_args.mode=uni10" in page and "within the first 5" in page and "all items ranked" not in page


def test_a_run_folder_named_from_within_its_parent(compare, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "saved" / "tiny")
    names = [next(Path().glob(f"{model}-*")).name for model in ("SASRec", "Popularity")]
    code, out, err = compare(**{**finished, "models": ",".join(names)})
    assert code == 0 and err == ""


def test_a_run_is_found_by_its_whole_configuration(finished, flags, tmp_path):
    file = next((tmp_path / "saved" / "tiny").glob("SASRec-*/config.yaml"))
    properties = yaml.safe_load(file.read_text())
    assert find(properties) == file.parent and find({**properties, "show_progress": True}) == file.parent
    assert find({**properties, "hidden_size": 9}) is None and identity(properties) != identity({**properties, "seed": 3})
    assert identity(properties) == identity({**properties, "a_property_of_later": None})  # runs from before it was there are found
    (file.parent / "result.json").unlink()
    assert find(properties) == file.parent  # cut: to go on with
    assert find({**properties, "data_path": "elsewhere"}) is None
    (tmp_path / "data").rename(tmp_path / "moved")
    assert find({**properties, "data_path": "elsewhere"}) == file.parent


def test_a_run_folder_stands_for_itself(compare, finished, tmp_path):
    folder = next((tmp_path / "saved" / "tiny").glob("SASRec-*"))
    code, out, err = compare(**{**finished, "models": f"{folder},Popularity"})
    assert (code, err) == (0, "") and "3 runs of 2 models, 3 of them done before" in out
    assert "One seed only" in out and "* differs from SASRec" in out


@pytest.mark.parametrize("given, message", [
    ({"models": "[]"}, "--models=\\[\\]: give models"),
    ({"models": "SASRec,SASRec"}, "--models: SASRec comes twice"),
    ({"models": "SASRec,Nonsense"}, "no such sequential model"),
    ({"models": "recipe/nonsense.yaml"}, "nonsense.yaml: cannot read"),
    ({"models": "{a: {epochs: 1}}"}, "--models: a: has no model"),
    ({"reference": "GRU4Rec"}, "--reference=GRU4Rec: not among the models"),
    ({"seeds": "[1, 1]"}, "--seeds=\\[1, 1\\]: give how many"),
    ({"seeds": "0"}, "--seeds=0: give how many"),
    ({"jobs": "0"}, "--jobs=0: give how many runs"),
    ({"hiden_size": "8"}, "--hiden_size: none of the models knows"),
    ({"models": "{a: {model: SASRec}, b: {model: Popularity, mask_history: False}}"}, "b and a cannot stand in one table: mask_history is False and True"),
    ({"models": "{a: {model: SASRec}, b: {model: SASRec, topk: [5, 10, 20]}}"}, "b and a cannot stand in one table: topk"),
    ({"eval_args": "{split: {RS: [0.8, 0.1, 0.1]}}"}, "eval_args=.*one test item each. Set split={LS: valid_and_test}"),
    ({"metrics": "[Recall, Precision]", "valid_metric": "Precision@10"}, "valid_metric=Precision@10: .*Valid here: recall, each @k"),
    ({"model": "GRU4Rec"}, "--model=GRU4Rec: not read here"), ({"resume": "saved/x"}, "--resume=saved/x: not read here"),
    ({"models": "{a: {model: SASRec, config_files: recipe/sasrec-ml-1m.yaml}}"}, "--models: a: config_files=recipe/sasrec-ml-1m.yaml: would not be read there"),
    ({"seeds": "2020"}, "--seeds=2020: is how many, at most 100. For the seed 2020 by itself write --seeds=\\[2020\\]"),
    ({"seed": "x"}, "--seed=x: must be a whole number"),
])
def test_bad_input_is_refused_before_any_run(compare, make_data, flags, tmp_path, given, message):
    make_data()
    base = {key: value for key, value in flags(seeds=1, models="SASRec,Popularity").items() if key != "model"}
    code, out, err = compare(**{**base, **given})
    assert code == 2 and re.search(message, err) and "Traceback" not in err and not (tmp_path / "saved").exists()


def test_labels_of_models():
    assert [entry.label for entry in parse_models("Molar, recipe/sasrec-ml-1m.yaml")] == ["Molar", "sasrec-ml-1m"]
    one = parse_models({"w/o CL": {"model": "Molar", "align_weight": 0}, "S": "SASRec"})
    assert one[0].properties == {"model": "Molar", "align_weight": 0} and one[1].properties == {"model": "SASRec"}


def test_best_is_bold_second_underlined_and_a_star_for_significant(monkeypatch):
    from recbole_molar.compare import tables

    monkeypatch.setattr(tables, "COST", {"parameters": tables.COST["parameters"]})
    markdown, latex, text = (write(example(0.01)) for write in (as_markdown, as_latex, as_text))
    assert "**0.3000 ± 0.0010***" in markdown and "<u>0.2000 ± 0.0010</u>" in markdown and "c\\|d" in markdown
    assert "b\\_1 & 2 & \\textbf{0.3000 $\\pm$ 0.0010$^*$}" in latex and "\\underline{0.2000" in latex
    assert "0.3000 ± 0.0010*" in text and "0.3000 ± 0.0010*" not in as_text(example(0.2))


def test_a_run_folder_of_somebody_else_names_no_code_and_is_checked(compare, finished, tmp_path, monkeypatch):
    folder = next((tmp_path / "saved" / "tiny").glob("SASRec-*"))
    config, result = (folder / "config.yaml").read_text(), (folder / "result.json").read_text()
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    given = {**finished, "models": f"{folder},Popularity"}
    (folder / "config.yaml").write_text(config.replace("model: SASRec", "model: stranger.SASRec"))
    assert re.search("config.yaml, line \\d+: model=stranger.SASRec is code outside recbole_molar", compare(**given)[2]) and not (tmp_path / "ran").exists()
    (folder / "config.yaml").write_text(config)
    (folder / "result.json").write_text('{"model": "SASRec"}')
    assert re.search("result.json: lacks split_hash, test_result", compare(**given)[2])
    (folder / "result.json").write_text(result)
    (folder / "curve.json").write_text("{}")
    assert re.search("curve.json: no learning curve", compare(**given)[2])


def test_each_model_may_have_seeds_of_its_own_and_runs_of_one_model_are_one_row(compare, finished, tmp_path):
    first, second = sorted((tmp_path / "saved" / "tiny").glob("SASRec-*"))
    models = {"both": [str(first), str(second)], "Popularity": {"model": "Popularity", "seeds": [2]}}
    code, out, err = compare(**{**finished, "models": json.dumps(models)})
    assert (code, err) == (0, "") and "3 runs of 2 models, 3 of them done before" in out
    found = json.loads((Path(out.strip().splitlines()[-1]) / "comparison.json").read_text())
    assert [sorted(model["seeds"]) for model in found["models"]] == [[1, 2], [2]]
    other = next((tmp_path / "saved" / "tiny").glob("Popularity-*"))
    for folders, message in (
        ([str(first), str(other)], "--models: both: its runs differ in"), ([str(first), str(first)], "two of its runs have the same seed"),
        ([str(first), 3], "a list must name finished run folders"), ([str(tmp_path)], "not the folder of a finished run"),
    ):
        assert message in compare(**{**finished, "models": json.dumps({**models, "both": folders})})[2]
    assert "--models: Popularity: seeds=0: give how many" in compare(**{**finished, "models": "{Popularity: {model: Popularity, seeds: 0}}"})[2]


def test_a_cut_run_of_a_users_own_model_goes_on(compare, make_data, flags, tmp_path, monkeypatch):
    """The path of its class was typed, as `--models`; the run folder by itself may not name code."""
    make_data()
    (tmp_path / "own_model_of_a_user.py").write_text("from recbole.model.sequential_recommender.sasrec import SASRec\n\n\nclass Mine(SASRec):\n    pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    given = {**flags(), "model": "own_model_of_a_user.Mine", "loss_type": "CE", "attn_dropout_prob": 0.5, "hidden_dropout_prob": 0.5, "hidden_act": "gelu",
             "layer_norm_eps": 1e-12, "initializer_range": 0.02, "n_layers": 1, "n_heads": 2, "hidden_size": 8, "inner_size": 8, "seed": 1}  # fmt: skip
    cut = RunFolder.create(given["output_dir"], "tiny", "Mine", Config(config_dict=given).as_yaml()).path
    options = {key: value for key, value in given.items() if key not in ("model", "seed")}
    code, out, err = compare(**options, models=f"{{mine: {{model: {given['model']}}}}}", seeds="[1]", report=False)
    assert code == 0 and (cut / "result.json").is_file(), out + err


def test_runs_go_to_the_gpus_that_this_process_sees(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7a")
    assert visible_gpus() == ["2", "GPU-7a"]
    assert set(queue(range(4), lambda task, gpu: gpu, None, "runs", visible_gpus())) <= {"2", "GPU-7a"}
    chosen = [({}, ["2", "GPU-7a"]), ({"gpu_id": 1}, ["GPU-7a"]), ({"gpu_id": "1,0"}, ["GPU-7a", "2"]), ({"gpu_id": ""}, []), ({"use_cpu": True}, [])]
    assert [chosen_gpus(options) for options, _ in chosen] == [gpus for _, gpus in chosen]
    assert queue(range(2), lambda task, gpu: gpu, None, "runs", []) == [None, None]


def test_the_later_file_wins_and_its_place_is_told(compare, finished, tmp_path):
    """As in a run; what is typed wins over both."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("learning_rate: 0.1\nepochs: 3\nn_layers: 2\n")
    two.write_text("n_layers: 1\nlearning_rate: -0.2\n")
    _, given, origins = options_of([f"--config_files=[{one},{two}]", "--epochs=1"])
    assert given == {"learning_rate": -0.2, "epochs": 1, "n_layers": 1}
    assert origins == {"learning_rate": f"{two}, line 2", "n_layers": f"{two}, line 1"}
    code, _, err = compare(**{**finished, "config_files": f"[{one},{two}]"})
    assert code == 2 and f"{two}, line 2: learning_rate=-0.2: must be" in err


def test_what_is_typed_wins_over_a_recipe(compare, finished, tmp_path):
    recipe = tmp_path / "sasrec.yaml"
    recipe.write_text("model: SASRec\ndataset: elsewhere\nepochs: 7\n")
    code, out, err = compare(**{**finished, "models": f"{recipe},Popularity"})
    assert code == 0 and "4 runs of 2 models, 4 of them done before" in out, err
    assert "--epochs=-1: must be" in compare(**{**finished, "models": f"{recipe},Popularity", "epochs": -1})[2]


def test_finished_runs_of_data_that_has_moved(compare, finished, tmp_path):
    folders = [str(folder) for folder in sorted((tmp_path / "saved" / "tiny").glob("SASRec-*"))]
    (tmp_path / "data").rename(tmp_path / "moved")
    given = {**finished, "models": json.dumps({"S": folders}), "data_path": str(tmp_path / "moved"), "output_dir": str(tmp_path / "tables")}
    code, out, err = compare(**given)
    assert code == 0 and Path(out.strip().splitlines()[-1]).is_relative_to(tmp_path / "tables"), err


def test_without_validation(compare, make_data, flags):
    """The tables stand; validation figures are none."""
    make_data()
    given = {key: value for key, value in flags(epochs=1, eval_step=0, report=False).items() if key != "model"}
    code, out, err = compare(**given, models="SASRec,Popularity", seeds="[1]")
    assert code == 0 and "ndcg@10" in out, err


def test_models_with_other_items_are_refused_before_any_time_is_spent(compare, make_data, flags, tmp_path):
    """Items that nobody had are candidates where .item is loaded, and not where it is not."""
    data = make_data(items=True) / "tiny"
    with open(data / "tiny.item", "a") as file:
        file.write("unseen\tNobody had it\tgenre1\n")
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    models = {"S": {"model": "SASRec", "load_col": columns}, "P": {"model": "Popularity", "load_col": {**columns, "item": ["item_id", "genre"]}}}
    given = {key: value for key, value in flags(report=False).items() if key not in ("model", "hidden_size", "n_heads", "inner_size", "n_layers")}
    code, _, err = compare(**given, models=json.dumps(models), seeds="[1]")
    assert code == 2 and "P and S cannot stand in one table, they have other items or users: load_col is" in err and not (tmp_path / "saved").exists()


def test_labels_that_are_one_name_of_a_log():
    with pytest.raises(ValueError, match="w-o CL comes twice"):
        parse_models({"w/o CL": "Molar", "w-o CL": "SASRec"})
