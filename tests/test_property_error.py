"""Every error about a property says where its value stands: file and line, or the word of the command line."""

import pytest

from recbole_molar.command_line import read_with_lines
from recbole_molar.compare.runs import parse_models, plan
from recbole_molar.config import Config
from recbole_molar.property_error import COMMAND_LINE, PropertyError, UnknownPropertyError, bad_value
from recbole_molar.quick_start import configure, run

SASREC = {"model": "SASRec", "dataset": "tiny"}


def raised(call, *args, **kwargs):
    with pytest.raises(PropertyError) as caught:
        call(*args, **kwargs)
    return caught.value


def test_lines_are_those_of_the_keys(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("# comment\n\nepochs: 3\neval_args:\n  mode: full\n  order: TO\n'seed': 5\nbase: &base {topk: 5,\n  worker: 0}\n<<: *base\n5: x\n~: y\n")
    content, lines = read_with_lines(file)
    assert lines == {"epochs": 3, "eval_args": 4, "seed": 7, "base": 8, "topk": 8, "worker": 9, 5: 11, None: 12} and lines.keys() == content.keys()
    file.write_text("# nothing\n")
    assert read_with_lines(file) == ({}, {})


@pytest.mark.parametrize("line, message", [
    ("learning_rate: -1", "learning_rate=-1: must be a number of at least 0."), ("learner: adamm", "learner=adamm: unknown. Valid: adam, adamw, sgd"),
    ("learning_rte: 1", "learning_rte: unknown property for model SASRec. Did you mean learning_rate?"),
    ("load_col: {inter: 5}", "load_col: inter: 5: must be a list of columns"), ("eval_args: {modes: full}", "eval_args: 'modes': unknown. Valid: split"),
    ("attn_dropout_prob: high", "attn_dropout_prob=high: must be a number from 0 to 1."), ("worker: many", "worker=many: must be a number of at least 0"),
    ("dataset: ../x", "dataset=../x: must be the name of a folder"), ("model: SASRek", "model=SASRek: no such sequential model. Did you mean SASRec?"),
])
def test_of_a_file_and_of_the_command_line(tmp_path, line, message):
    file = tmp_path / "mine.yaml"
    file.write_text(f"# mine\nepochs: 3\n{line}\n")
    content, _ = read_with_lines(file)
    given = {key: value for key, value in SASREC.items() if key not in content}
    error = raised(Config, config_file_list=[file], config_dict=given)
    assert str(error).startswith(f"{file}, line 3: {message}") and error.key == line.partition(":")[0]
    assert str(raised(Config, config_dict={**SASREC, **content})).startswith(f"--{message}")


def test_the_last_file_is_the_one_to_blame(tmp_path):
    for name, text in (("a.yaml", "epochs: 1\n"), ("b.yaml", "\nepochs: -1\n"), ("c.yaml", "seed: 1\n")):
        (tmp_path / name).write_text(text)
    files = [tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml")]
    assert str(raised(Config, config_file_list=files, config_dict=SASREC)).startswith(f"{tmp_path / 'b.yaml'}, line 2: epochs=-1")
    assert Config(config_file_list=files, config_dict={**SASREC, "epochs": 2})["epochs"] == 2  # what is overridden is not looked at


def test_of_a_data_sets_own_file(tmp_path):
    (tmp_path / "tiny").mkdir()
    file = tmp_path / "tiny" / "dataset.yaml"
    for line, message in (("epochs: -1", "epochs=-1: must be"), ("epoch: 1", "epoch: unknown property. Did"), ("debug: True", "debug: a data set")):
        file.write_text(f"load_col: {{inter: [user_id, item_id, timestamp]}}\n{line}\n")
        assert str(raised(Config, config_dict={**SASREC, "data_path": str(tmp_path)})).startswith(f"{file}, line 2: {message}")


def test_of_a_run_folder(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("model: SASRec\ndataset: tiny\nepochs: -1\n")
    assert str(raised(configure, {"resume": str(tmp_path)})).startswith(f"{file}, line 3: epochs=-1: must be")
    file.write_text("dataset: tiny\nmodel: evil.SASRec\n")
    assert str(raised(configure, {"resume": str(tmp_path)})).startswith(f"{file}, line 2: model=evil.SASRec is code outside")


def test_of_a_model_of_a_comparison(tmp_path):
    recipe = tmp_path / "strong.yaml"
    recipe.write_text("model: SASRec\nn_layers: 0\n")
    for models, place in ((str(recipe), f"{recipe}, line 2: "), ({"mine": {"model": "SASRec", "n_layers": 0}}, "--models: mine: ")):
        assert str(raised(plan, parse_models(models), {"dataset": "tiny"}, [1])).startswith(f"{place}n_layers=0: must be")
    assert str(raised(plan, parse_models("SASRec"), {"dataset": "tiny", "epochs": -1}, [1])).startswith("--epochs=-1: must be")
    recipe.write_text("model: SASRec\nalign_weight: 0\n")
    error = raised(plan, parse_models(f"Molar,{recipe}"), {"dataset": "tiny"}, [1])  # the recipe's own key, not an option that only Molar knows
    assert isinstance(error, UnknownPropertyError) and error.key == "align_weight" and str(error).startswith(f"{recipe}, line 2: align_weight: unknown")


def test_of_what_only_the_data_shows(make_data, flags, command_line, tmp_path):
    make_data(items=True)
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\ntopk: [10, 31]\n")
    given = {key: value for key, value in flags(config_files=str(file)).items() if key != "topk"}
    assert str(raised(run, command_line(given))).startswith(f"{file}, line 2: topk=[10, 31]: tiny has 30 items")
    file.write_text("\n\nmirm_weights: nowhere\n")
    assert str(raised(run, command_line(flags(config_files=str(file), model="Molar")))).startswith(f"{file}, line 3: mirm_weights=nowhere: no such file")


def test_of_an_id_model_that_cannot_be_aligned(make_data, flags, command_line, tmp_path):
    """Found before it is trained: nothing is left in the cache."""
    make_data(items=True)
    file = tmp_path / "mine.yaml"
    file.write_text("model: Molar\nid_model: RepeatNet\ncompact_num_layers: 2\ncompact_hidden_size: 32\ncompact_vocab_size: 300\n")
    given = {key: value for key, value in flags(model="Molar", config_files=str(file)).items() if key != "model"}
    assert str(raised(run, command_line(given))).startswith(f"{file}, line 2: id_model=RepeatNet: shows no user embedding")
    assert not list((tmp_path / "saved" / "cache").rglob("*.safetensors"))


def test_the_text_of_an_error():
    error = bad_value("seed", 0.5, "must be whole.")
    assert str(error) == "seed=0.5: must be whole." and isinstance(error, ValueError)
    assert str(error.locate({"seed": "a.yaml, line 1"}).locate({"seed": COMMAND_LINE})) == "a.yaml, line 1: seed=0.5: must be whole."
    both = PropertyError("a", "a=1: goes not with b=2.", ["b"])
    assert str(both) == "a=1: goes not with b=2."
    both.locate({"a": COMMAND_LINE, "b": "b.yaml, line 2", "c": "elsewhere"})
    assert str(both) == "a=1: goes not with b=2. (a: command line; b: b.yaml, line 2)"
    assert str(both.renamed("id_")) == "id_a=1: goes not with id_b=2. (id_a: command line; id_b: b.yaml, line 2)" and both.key == "id_a"
