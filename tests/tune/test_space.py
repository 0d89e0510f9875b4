"""The search space: what it reads, what it refuses, and what it hands to Optuna."""

import math

import optuna
import pytest

from recbole_molar.config import Config
from recbole_molar.tune.space import Space
from recbole_molar.tune.tuning import REFUSED

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def make_space(tmp_path):
    """Function: text -> Space."""

    def make(text, name="space.yaml"):
        (tmp_path / name).write_text(text)
        return Space(tmp_path / name)

    return make


def draw(space, values=None, n=200, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask(), values or {}) for _ in range(n)]


def test_every_kind(make_space):
    space = make_space(
        "learning_rate: {log_uniform: [1.0e-4, 1e-2]}\nhidden_dropout_prob: {uniform: [0, 0.5], step: 0.2}\nn_layers: {int: [1, 3]}\n"
        "attn_dropout_prob: {uniform: [0.1, 0.5], step: 0.1}\nhidden_size: {int: [32, 130], step: 32}\n"
        "tasks: {choice: [[a, b], [], ~, 1, x]}\nweight: {uniform: [0, 2]}\n"
    )
    drawn = draw(space)
    assert all(1e-4 <= one["learning_rate"] <= 1e-2 and 0 <= one["weight"] <= 2 for one in drawn)
    assert 0.3 < sum(one["learning_rate"] < 1e-3 for one in drawn) / 200 < 0.7  # half of them below the geometric mean
    assert {one["hidden_dropout_prob"] for one in drawn} == {0.0, 0.2, 0.4}
    assert {one["attn_dropout_prob"] for one in drawn} == {0.1, 0.2, 0.3, 0.4, 0.5}  # and not 0.30000000000000004
    assert {one["n_layers"] for one in drawn} == {1, 2, 3} and {one["hidden_size"] for one in drawn} == {32, 64, 96, 128}
    assert {str(one["tasks"]) for one in drawn} == {"['a', 'b']", "[]", "None", "1", "x"}


def test_a_condition_on_the_space_and_on_what_stands(make_space):
    text = "a: {choice: [0, 0.5, 1]}\nb: {uniform: [0, 1], if: {a: [0.5, 1]}}\nc: {int: [1, 2], if: {loss: ce}}\nd: {int: [1, 2], if: {b: [7]}}\n"
    with pytest.raises(ValueError, match="space.yaml, line 4: d: if: b is never 7"):
        make_space(text)
    space = make_space(text.rpartition("d:")[0])
    for one in draw(space, {"loss": "ce"}):
        assert ("b" in one) == (one["a"] > 0) and "c" in one
    assert all("c" not in one for one in draw(space, {"loss": "bce"}, n=10))


def test_recboles_text(make_space):
    space = make_space(
        "# comment\nlearning_rate loguniform -8,0\n\nembedding_size choice [64, 96 , 128]\nloss choice ['a b',None]\n"
        "drop uniform 0.1,0.5\nlayers quniform 1,4,1\nrate quniform 0.0,0.5,0.25\n", "hyper.test",
    )
    drawn = draw(space)
    assert all(math.exp(-8) <= one["learning_rate"] <= 1 and 0.1 <= one["drop"] <= 0.5 for one in drawn)
    assert {one["embedding_size"] for one in drawn} == {64, 96, 128} and {one["loss"] for one in drawn} == {"a b", None}
    assert {one["layers"] for one in drawn} == {1, 2, 3, 4} and all(isinstance(one["layers"], int) for one in drawn)
    assert {one["rate"] for one in drawn} == {0.0, 0.25, 0.5}


def test_grid_is_every_configuration_once(make_space):
    space = make_space("a: {choice: [x, y]}\nn: {int: [1, 3], if: {a: x}}\nd: {uniform: [0, 0.3], step: 0.1}\n")
    grid = space.grid({})
    assert len(grid) == (3 + 1) * 4 and len({tuple(sorted(point.items())) for point in grid}) == len(grid)
    assert {point["d"] for point in grid} == {0.0, 0.1, 0.2, 0.3} and all(("n" in point) == (point["a"] == "x") for point in grid)
    with pytest.raises(ValueError, match="space.yaml: r: --sampler=grid needs"):
        make_space("r: {uniform: [0, 1]}").grid({})


def test_defaults(make_space):
    space = make_space("a: {choice: [[1], 2]}\nr: {uniform: [0, 1], step: 0.25}\nn: {int: [1, 5], step: 2}\n")
    assert space.defaults({"a": [1], "r": 0.75, "n": 3}) == ({"a": "[1]", "r": 0.75, "n": 3}, [])
    assert space.defaults({"a": 2.0, "r": 0.7, "n": 4}) == ({"a": "2", "r": None, "n": None}, ["r", "n"])  # RecBole's 0.0 is a space's 0
    assert space.defaults({"a": True, "r": None, "n": 7})[1] == ["a", "r", "n"]


@pytest.mark.parametrize("text, message", [
    ("", "an empty space"), ("a: 3", "a: found 3; write {choice"), ("a: {chioce: [1]}", "a: chioce: unknown. Did you mean choice"),
    ("a: {loguniform: [1, 2]}", "loguniform: unknown. Did you mean log_uniform"), ("a: {choice: 3}", "a: choice: found 3"),
    ("a: {choice: []}", "a: choice: found \\[\\]"), ("a: {choice: [1, 1]}", "one value twice"), ("a: {uniform: [2, 1]}", "the lower first"),
    ("a: {uniform: [1, x]}", "two numbers"), ("a: {uniform: [1, .inf]}", "two numbers"), ("a: {int: [1, 2.5]}", "two whole numbers"),
    ("a: {int: [False, True]}", "two whole numbers"), ("a: {uniform: 1}", "write \\[low, high\\]"), ("a: {log_uniform: [0, 1]}", "above 0"),
    ("a: {uniform: [0, 1], step: 2}", "step: found 2"), ("a: {int: [0, 4], step: 0.5}", "step: found 0.5"),
    ("a: {int: [0, 4], step: 0}", "step: found 0"), ("a: {step: 1}", "needs one of"), ("a: {int: [1, 2], uniform: [1, 2]}", "found int and uniform"),
    ("a: {int: [1, 2], if: b}", "if: found 'b'"), ("a: {int: [1, 2], if: {b: 1}}\nb: {int: [1, 2]}", "depends on b: put b above"),
    ("- a", "found a list"), ("a: [", "not valid YAML"),
])
def test_bad_yaml(make_space, text, message):
    with pytest.raises(ValueError, match=f"space.yaml(, line 1)?: (.*)?{message}"):
        make_space(text)


@pytest.mark.parametrize("line, message", [
    ("learning_rate", "line 2: found 'learning_rate'"), ("a normal 1,2", "line 2: .*with a kind of choice"), ("a uniform 1", "uniform takes 2 numbers"),
    ("a quniform 1,2", "quniform takes 3"), ("a uniform x,y", "not the values of a uniform"), ("a choice [a,b]", "not the values of a choice"),
    ("a choice __import__('os')", "not the values of a choice"), ("a uniform 2,1", "the lower first"), ("b uniform 1,2", "b: given twice"),
    ("a uniform 1,inf", "takes 2 numbers"),
])
def test_bad_text(make_space, line, message):
    with pytest.raises(ValueError, match=f"hyper.test.*{message}"):
        make_space(f"b choice [1]\n{line}\n", "hyper.test")


def test_missing_file():
    with pytest.raises(ValueError, match="nowhere.yaml: cannot read"):
        Space("nowhere.yaml")
    with pytest.raises(ValueError, match="nowhere.test: cannot read"):
        Space("nowhere.test")


def check(space, **given):
    space.check(lambda chosen: Config(config_dict={"model": "SASRec", "dataset": "ml-1m", **given, **chosen}), REFUSED)


@pytest.mark.parametrize("text, message", [
    ("learning_rte: {uniform: [0, 1]}", "space.yaml, line 1: learning_rte: unknown property for model SASRec. Did you mean learning_rate"),
    ("learning_rate: {uniform: [-1, 1]}", "space.yaml, line 1: learning_rate=-1.0: must be"),
    ("lr_schedule: {choice: [constant, step]}", "space.yaml, line 1: lr_schedule=step"),
    ("topk: {choice: [[10], [20]]}", "topk: is not searched over: it changes what is measured"), ("seed: {int: [1, 9]}", "seed: is not searched over"),
    ("model: {choice: [SASRec]}", "model: is not searched over"),
])
def test_what_no_run_could_take(make_space, text, message):
    with pytest.raises(ValueError, match=message):
        check(make_space(text))


def test_a_key_that_only_its_condition_makes_known(make_space):
    space = make_space("user_encoder: {choice: [DUEG, GRU4Rec]}\ndueg_dropout: {uniform: [0, 0.5], if: {user_encoder: DUEG}}\n")
    check(space, model="Molar", user_encoder="GRU4Rec")


def test_a_value_that_only_another_dimension_makes_possible(make_space):
    check(make_space("n_heads: {choice: [1, 3]}\nhidden_size: {choice: [32, 48]}\n"))  # 3 divides 48, and not the default, 64
    with pytest.raises(ValueError, match="space.yaml, line 1: n_heads=3: must divide hidden_size=64"):
        check(make_space("n_heads: {choice: [1, 3]}\n"))


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "FPMC", "BERT4Rec", "DuoRec", "Molar", "HLLM", "CoLLM"])
def test_shipped_spaces(model):
    space, config = Space(f"properties/hyper/{model}.yaml"), Config(config_dict={"model": model, "dataset": "ml-1m"})
    check(space, model=model)
    drawn = draw(space, config.final_config_dict, n=50)
    assert set().union(*drawn) == set(space.keys)
    assert space.defaults(config.final_config_dict)[1] == []
