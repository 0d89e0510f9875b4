"""`show-config` prints what a run would use, and where each value comes from."""

import pytest
import yaml

from recbole_molar.__main__ import main
from recbole_molar.command_line import properties_dir
from recbole_molar.config import Config
from recbole_molar.show_config import show_config


def origins(*words):
    """Property -> origin, as printed."""
    return {line.partition(":")[0]: line.rpartition("# ")[2] for line in show_config(list(words)).splitlines()}


def line_of(file, key):
    """The place of a key in one of our files, counted in its text."""
    lines = (properties_dir() / file).read_text().splitlines()
    return f"properties/{file}, line {1 + next(place for place, line in enumerate(lines) if line.startswith(f'{key}:'))}"


def test_the_output_is_the_configuration():
    text = show_config(["--model=Molar", "--dataset=ml-100k", "--align_weight=0.5", "--id_hidden_size=16"])
    assert yaml.safe_load(text) == Config(config_dict={"model": "Molar", "dataset": "ml-100k", "align_weight": 0.5, "id_hidden_size": 16}).as_yaml()
    assert [line.partition(":")[0] for line in text.splitlines()] == sorted(yaml.safe_load(text))


def test_origins(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("epochs: 3\nseed: 5\neval_args: {order: TO}\n")
    found = origins("--model=Molar", "--dataset=ml-1m", f"--config_files={mine}", "--seed=7")
    assert {key: found[key] for key in ("seed", "epochs", "align_weight", "topk", "dueg_dropout", "compact_num_heads", "id_stopping_step")} == {
        "seed": "command line", "epochs": f"{mine}, line 1", "align_weight": line_of("model/Molar.yaml", "align_weight"),
        "topk": line_of("overall.yaml", "topk"), "dueg_dropout": line_of("user_encoder/DUEG.yaml", "dueg_dropout"),
        "compact_num_heads": line_of("backbone/compact.yaml", "compact_num_heads"), "id_stopping_step": line_of("id_model/SASRec.yaml", "id_stopping_step"),
    }
    assert found["eval_args"] == f"{mine}, line 3, over RecBole's protocol for sequential models"
    assert found["id_epochs"] == line_of("id_model/SASRec-ml-1m.yaml", "id_epochs")
    sasrec = origins("--model=SASRec", "--dataset=ml-1m")
    assert sasrec["hidden_size"] == "RecBole's model/SASRec.yaml, line 3" and sasrec["eval_step"].startswith("RecBole's overall.yaml, line ")


def test_dataset_yaml_beside_the_data(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "dataset.yaml").write_text("user_inter_num_interval: '[5,inf)'\n")
    found = origins("--model=SASRec", "--dataset=tiny", f"--data_path={tmp_path}")
    assert (found["user_inter_num_interval"], found["data_path"]) == (f"{tmp_path / 'tiny' / 'dataset.yaml'}, line 1", "command line")


def test_filter_and_errors(capsys):
    assert set(origins("--model=SASRec", "--dataset=ml-1m", "--key=dropout")) == {"attn_dropout_prob", "hidden_dropout_prob"}
    with pytest.raises(ValueError, match="--key=dropuot: no property of SASRec"):
        origins("--model=SASRec", "--dataset=ml-1m", "--key=dropuot")
    assert main(["show-config", "--model=SASRec", "--dataset=ml-1m", "--learning_rte=1"]) == 2
    assert "Did you mean learning_rate?" in capsys.readouterr().err
    assert main(["show-config", "--model=SASRec", "--dataset=ml-1m", "--key=seed"]) == 0
    assert capsys.readouterr().out.startswith("seed: 2020 ")
