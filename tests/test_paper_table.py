"""`paper-table`: each row is a recipe that a run understands, and the table has our figures beside the paper's."""

import json
import re
from pathlib import Path

import pytest

from recbole_molar.__main__ import main
from recbole_molar.command_line import config_file_list, read_yaml
from recbole_molar.compare.runs import known_config
from recbole_molar.config import Config
from recbole_molar.paper_table import chosen_rows, entries_of, layout, paper_data_set, paper_table, read_table, table_names
from recbole_molar.quick_start import make_id_configs
from recbole_molar.run_folder import identity

TABLES = ["ablation", "backbone", "finetune", "id_model", "main", "modality", "user_encoder"]


def test_the_tables_there_are():
    assert table_names() == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_each_row_is_a_recipe_and_each_figure_a_figure(name):
    table = read_table(name)
    configs = {}
    for label, row in table["rows"].items():
        assert {"recipe", "paper"} <= set(row) <= {"recipe", "paper", "recipe_for"}
        for figures in row["paper"].values():
            assert len(figures) == len(table["columns"]) and all(0 < figure < 1 for figure in figures)
        for recipe in row.get("recipe_for", {}).values():
            assert Config(config_file_list=config_file_list([recipe]))["model"] == read_yaml(config_file_list([row["recipe"]])[0])["model"]
        if row["recipe"]:
            configs[label] = Config(dataset="ml-1m", config_file_list=config_file_list([row["recipe"]])).as_yaml()
    assert len({json.dumps(config, sort_keys=True) for config in configs.values()}) == len(configs)  # no two rows are the same run
    assert set(table["columns"]) <= {"ndcg@10", "ndcg@20", "recall@10", "recall@20"}


@pytest.mark.parametrize("words, expected", [
    (["--table=ablation"], "Molar"), (["--table=id_model"], "SASRec"), (["--table=backbone"], "Qwen2-VL-2B, full"),
    (["--table=id_model", "--rows=[FPMC, w/o contrastive]"], "w/o contrastive"),
])  # fmt: skip
def test_rows_are_compared_with_the_papers_model(monkeypatch, words, expected):
    """Where it is among them; else with the last."""
    given = []
    monkeypatch.setattr("recbole_molar.paper_table.carry_out", lambda entries, reference, *_, **__: given.append(reference) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        paper_table([*words, "--dataset=ml-1m"])
    assert given == [expected]


def test_the_papers_setting_leaves_the_rows_of_other_models_runnable():
    paper = {key: value for key, value in read_yaml(config_file_list(["recipe/paper.yaml"])[0]).items() if key != "model"}
    for modalities in ("text", "image", "text-image"):
        recipe = read_yaml(config_file_list([f"recipe/row/sasrec-content-{modalities}.yaml"])[0])
        config, taken = known_config({**recipe, "dataset": "ml-1m"}, paper, {})
        assert config["item_modalities"] == modalities.split("-") and "mirm_backbone" not in taken
        assert config["item_adapter"] == "mlp" and "item_standardize" not in taken and config["item_encoding"] == "end_to_end"
    config, taken = known_config({**read_yaml(config_file_list(["recipe/row/hllm.yaml"])[0]), "dataset": "ml-1m"}, paper, {})
    assert (config["mirm_backbone"], config["user_llm_layers"], config["epochs"]) == ("Qwen/Qwen2-VL-2B-Instruct", None, 5) and "dueg_layers" not in taken
    config, taken = known_config({**read_yaml(config_file_list(["recipe/row/collm.yaml"])[0]), "dataset": "ml-1m"}, paper, {})
    assert (config["mirm_backbone"], config["id_model"], config["collaborative"]) == ("Qwen/Qwen2-VL-2B-Instruct", "SASRec", True)


def test_a_row_has_what_was_made_for_its_data_set_under_what_is_given():
    rows = chosen_rows(read_table("main"), ["SASRec", "Molar"])
    entries, made = entries_of(rows, {"dataset": "ml-1m", "epochs": 3})
    recipe, molar = (read_yaml(config_file_list([f"recipe/{name}-ml-1m.yaml"])[0]) for name in ("sasrec", "molar"))
    assert made == {"SASRec": "recipe/sasrec-ml-1m.yaml, but for epochs", "Molar": "recipe/molar-ml-1m.yaml"}
    assert entries[1].properties == {key: molar[key] for key in molar if key != "dataset"}
    assert entries[0].properties == {key: recipe[key] for key in recipe if key not in ("dataset", "epochs")}
    assert entries[0].origins["n_layers"].startswith("recipe/sasrec-ml-1m.yaml, line ")
    assert entries_of(rows, {"dataset": "ml-100k"})[1] == {}


@pytest.mark.parametrize("name", ["FPMC", "GRU4Rec", "SASRec", "DuoRec"])
def test_a_tuned_row_is_molars_id_model(name):
    """So that a table trains it once."""
    molar = Config(config_dict={"model": "Molar", "dataset": "ml-1m", "id_model": name})
    as_row = Config(config_file_list=config_file_list([read_table("main")["rows"][name]["recipe_for"]["ml-1m"]]))
    assert identity(make_id_configs(molar)["id_model"].as_yaml()) == identity(as_row.as_yaml())


@pytest.mark.parametrize("name", ["ablation", "finetune", "id_model", "modality", "user_encoder"])
def test_rows_of_molar_share_what_was_made_for_the_data_set(name):
    """Or a row would differ from the others in more than its label says."""
    entries, made = entries_of(read_table(name)["rows"], {"dataset": "ml-1m"})
    assert set(made) == set(read_table(name)["rows"]) and set(made.values()) == {"recipe/molar-ml-1m.yaml"}
    assert {(entry.properties["item_standardize"], entry.properties["item_adapter_size"]) for entry in entries} == {("whiten", 4096)}


def test_every_recipe_of_a_row_stands_in_a_table():
    named = {row["recipe"] for name in TABLES for row in read_table(name)["rows"].values()}
    files = {f"recipe/row/{file.name}" for file in (Path(config_file_list(["recipe/row/molar.yaml"])[0]).parent).glob("*.yaml")}
    assert named - {None} == files


def test_the_layout_sets_ours_beside_the_papers():
    table = {"columns": ["ndcg@10", "recall@10"], "rows": {
        "A": {"recipe": "a", "paper": {"PixelRec": [0.1, 0.2], "ML-1M": [0.3, 0.4]}}, "B": {"recipe": None, "paper": {"ML-1M": [0.5, 0.6]}}}}
    ours = {"label": "A", "test": {"ndcg@10": {"mean": 0.25, "std": 0.01}, "recall@10": {"mean": 0.35, "std": None}}}
    assert layout(table, table["rows"], {"dataset": "ml-1m", "models": [ours]}) == [
        ["", "ndcg@10", "paper, ML-1M", "recall@10", "paper, ML-1M"],
        ["A", "0.2500 ± 0.0100", "0.3000", "0.3500", "0.4000"], ["B", "-", "0.5000", "-", "0.6000"]]
    assert paper_data_set(table["rows"], "ml-100k") == "PixelRec" and paper_data_set({}, "x") is None
    assert list(chosen_rows(table, ["A"])) == ["A"]


def test_the_command(make_data, capsys, tmp_path, command_line, flags):
    make_data()
    given = {key: value for key, value in flags(epochs=1, table="main", seeds=1, report=False, rows=["SASRec", "FPMC"]).items() if key != "model"}
    words = command_line({**given, "rows": "[SASRec, FPMC]"})
    assert main(["paper-table", *words]) == 0
    out = capsys.readouterr().out
    table = out[out.index("Main comparison, tiny") :]
    assert re.search(r"^FPMC +0\.\d{4} +0\.1037", table, flags=re.M) and re.search(r"^SASRec +0\.\d{4} +0\.1080", table, flags=re.M)
    (file,) = (tmp_path / "saved" / "tiny").glob("compare-*/paper_table.md")
    assert "| SASRec | 0." in file.read_text()
    assert main(["paper-table", *words]) == 0 and "2 runs of 2 models, 2 of them done before" in capsys.readouterr().out


@pytest.mark.parametrize("words, message", [
    (["--dataset=ml-1m"], "--table=None: is missing. Valid: ablation, backbone"), (["--table=mian", "--dataset=ml-1m"], "--table=mian: no such table"),
    (["--table=main", "--rows=[X]", "--dataset=ml-1m"], """--rows=['X']: no row "X". Valid: "FPMC", """), (["--table=main", "--rows=[]"], "none can be run"),
    (["--table=main", "--rows=molar"], "Did you mean \"Molar\"?"), (["--table=main", "--rows=[[a]]"], "no row \"['a']\""),
    (["--table=main", "--dataset=ml-1m", "--model=SASRec"], "--model=SASRec: not read here"),
    (["--table=main", "--dataset=ml-1m", "--config_files=[1]"], "1: cannot read this configuration file"),
    (["--table=modality", "--dataset=ml-1m", "--epoch=3"], "--epoch: none of the models knows"),
])
def test_bad_input(words, message, capsys):
    assert main(["paper-table", *words]) == 2 and message in capsys.readouterr().err


def test_files_of_options_are_read_for_every_row(make_data, capsys, tmp_path, command_line, flags):
    make_data()
    (tmp_path / "base.yaml").write_text("epochs: 1\nlearning_rate: 0.01\ntopk: [5, 10]\n")
    given = {key: flags()[key] for key in ("dataset", "data_path", "output_dir", "use_cpu", "show_progress")}
    words = command_line({**given, "table": "main", "rows": "[FPMC]", "seeds": 1, "report": False, "config_files": tmp_path / "base.yaml"})
    assert main(["paper-table", *words]) == 0, capsys.readouterr().err
    (config,) = (tmp_path / "saved" / "tiny").glob("FPMC-*/config.yaml")
    assert read_yaml(config)["learning_rate"] == 0.01
