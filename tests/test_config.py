"""Properties: how they are read, merged, checked and written down."""

import json

import pytest
import yaml

from recbole_molar.command_line import config_file_list, dump_yaml, load_yaml, parse_command_line, properties_dir, read_yaml
from recbole_molar.config import Config, _keys_read_by
from recbole_molar.lookup import available
from recbole_molar.quick_start import make_id_configs
from recbole_molar.utils import get_model


def config(files=None, **given):
    return Config(config_file_list=files, config_dict={"model": "SASRec", "dataset": "tiny", **given})


def test_both_ways_of_giving_a_value():
    assert parse_command_line(["--model=SASRec", "--topk", "[5, 10]", "--seed=-1"]) == {"model": "SASRec", "topk": [5, 10], "seed": -1}


@pytest.mark.parametrize("text, value", [
    ("1e-4", 1e-4), ("-2.5E3", -2500.0), ("1", 1), ("0.5", 0.5), ("2024-10-11", "2024-10-11"), ("~", None), ("None", None), ("None@5", "None@5"), ("", None),
    ("True", True), ("[Recall, NDCG]", ["Recall", "NDCG"]), ("{'LS': 'valid_and_test'}", {"LS": "valid_and_test"}), ("a=b", "a=b"),
])
def test_values_are_yaml(text, value):
    read = parse_command_line([f"--key={text}"])["key"]
    assert read == value and type(read) is type(value)


def test_intervals_are_recboles():
    words = ["--user_inter_num_interval=[5,inf)", "--item_inter_num_interval", "[2,9]", "--val_interval={rating: '[3,inf)'}"]
    given = parse_command_line(words)
    assert given == {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[2,9]", "val_interval": {"rating": "[3,inf)"}}
    assert config(item_inter_num_interval=[2, 9])["item_inter_num_interval"] == "[2,9]"  # from a YAML file


@pytest.mark.parametrize("words, message", [
    (["--seed=1", "--seed=2"], "--seed: given twice"), (["--seed"], "--seed: has no value"), (["--seed", "--epochs=1"], "--seed: has no value"),
    (["seed=1"], "^seed=1: expected --key=value"), (["--topk=[1,"], "--topk=.*not valid YAML"),
])
def test_command_line_errors(words, message):
    with pytest.raises(ValueError, match=message):
        parse_command_line(words)


def test_unknown_key_names_the_nearest():
    with pytest.raises(ValueError, match=r"--learning_rte: unknown property for model SASRec\. Did you mean learning_rate\?"):
        config(learning_rte=0.5)


def test_unknown_key_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 3\nhidden_sise: 8\n")
    with pytest.raises(ValueError, match="mine.yaml, line 2: hidden_sise: unknown .* Did you mean hidden_size"):
        config([file])


def test_words_that_look_like_numbers_come_back():
    value = {"seed": "1e5", "x": ["None", "1.5E-3", "2024-10-11", "yes", "~", "12"], "rate": 1e-5}
    assert load_yaml(dump_yaml(value)) == value


@pytest.mark.parametrize("model, key", [
    ("SASRec", "n_layers"), ("GRU4Rec", "num_layers"), ("BERT4Rec", "mask_ratio"), ("Caser", "nv"), ("FPMC", "embedding_size"),
])
def test_recbole_model_keys_are_known(model, key):
    assert config(model=model, **{key: 1})[key] == 1


def test_key_of_another_model_is_unknown():
    with pytest.raises(ValueError, match="mask_ratio: unknown property for model SASRec"):
        config(mask_ratio=0.1)


def test_model_by_dotted_path_knows_the_keys_of_its_base_class(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text("from recbole.model.sequential_recommender.sasrec import SASRec\nclass Mine(SASRec):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = config(model="my_models.Mine", n_layers=3, loss_type="CE")
    assert (mine["model"], mine["n_layers"], mine.model_class.__name__) == ("Mine", 3, "Mine")
    again = Config(config_dict=mine.as_yaml())
    assert again.model_class is mine.model_class


@pytest.mark.parametrize("name, message", [
    ("SASrec", "model=SASrec: no such sequential model. Did you mean SASRec.* Valid: .*BERT4Rec.*Molar"),
    (5, "model=5: no such sequential model"),
    ("pathlib.Path", "is no subclass"), ("no_such_module.Foo", "cannot import it"), ("S3Rec", "not offered here.*S3RecTrainer"),
    ("LightGCN", "no such sequential model"),
])
def test_unknown_model(name, message):
    with pytest.raises(ValueError, match=message):
        config(model=name)


@pytest.mark.parametrize("key", ["model", "dataset"])
def test_missing_model_or_dataset(key):
    with pytest.raises(ValueError, match=f"--{key} is missing"):
        config(**{key: None})


def test_partial_eval_args_keep_leave_one_out():
    found = config(eval_args={"order": "TO"})["eval_args"]
    assert found == {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": {"valid": "full", "test": "full"}}


def test_partial_load_col_keeps_the_columns_of_inter():
    assert config(load_col={"item": ["item_id", "genre"]})["load_col"] == {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "genre"]}


def test_default_columns_follow_the_field_names():
    assert config(TIME_FIELD="when")["load_col"] == {"inter": ["user_id", "item_id", "when"]}


def test_empty_file_is_no_error(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert config([tmp_path / "empty.yaml"])["seed"] == 2020


@pytest.mark.parametrize("text, message", [("a: [1,\n", "bad.yaml: not valid YAML"), ("- 1\n", "bad.yaml: found a list"), ("word", "bad.yaml: found a str")])
def test_bad_file_is_named(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        config([tmp_path / "bad.yaml"])


def test_missing_file_is_named():
    with pytest.raises(ValueError, match="no_such.yaml: cannot read"):
        config(["no_such.yaml"])


def test_order_command_line_over_files_over_ours(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3\nseed: 7\nweight_decay: 0.5\n")
    (tmp_path / "b.yaml").write_text("seed: 8\nweight_decay: 0.25\n")
    found = config([tmp_path / "a.yaml", tmp_path / "b.yaml"], weight_decay=0)
    assert (found["epochs"], found["seed"], found["weight_decay"], found["valid_metric"]) == (3, 8, 0, "NDCG@10")


def test_dataset_yaml_beside_the_data(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "dataset.yaml").write_text("user_inter_num_interval: '[5,inf)'\nload_col: {item: [item_id, genre]}\n")
    found = config(data_path=str(tmp_path))
    assert found["user_inter_num_interval"] == "[5,inf)"
    assert found["load_col"] == {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "genre"]}


def test_a_data_sets_own_yaml_may_tune_the_id_model(tmp_path):
    """And is read by every model, the ID model among them."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "dataset.yaml").write_text("id_n_layers: 3\n")
    found = config(model="Molar", data_path=str(tmp_path))
    assert make_id_configs(found)["id_model"]["n_layers"] == 3 and config(model="SASRec", data_path=str(tmp_path))["n_layers"] == 2
    (tmp_path / "tiny" / "dataset.yaml").write_text("id_n_layerz: 3\n")
    with pytest.raises(ValueError, match="line 1: id_n_layerz: unknown"):
        config(model="SASRec", data_path=str(tmp_path))


def test_config_files_are_found_in_properties(tmp_path):
    inside = "recipe/paper.yaml"
    for name in (inside, f"properties/{inside}"):
        assert config_file_list(name) == [str(properties_dir() / inside)] or (properties_dir().parent / name).samefile(config_file_list(name)[0])
    assert config_file_list(f"{inside},x.yaml y.yaml")[1:] == ["x.yaml", "y.yaml"]
    spaced = tmp_path / "my file.yaml"
    spaced.write_text("")
    assert config_file_list(str(spaced)) == [str(spaced)] and config_file_list([str(spaced)]) == [str(spaced)] and config_file_list(None) == []


def test_cross_entropy_needs_no_negatives():
    assert config()["train_neg_sample_args"]["distribution"] == "none"
    assert config(loss_type="BPR")["train_neg_sample_args"]["distribution"] == "uniform"
    assert config(model="FPMC")["train_neg_sample_args"]["distribution"] == "uniform"


@pytest.mark.parametrize("key, value, message", [
    ("rec_loss", "bpr", "rec_loss=bpr: unknown. Valid: bce, nce, ce"), ("metrics", ["Recal"], "metrics=Recal: unknown. Valid: .*ndcg"),
    ("valid_metric", "NDCG@7", "valid_metric=NDCG@7: not computed"), ("valid_metric", "Hit@10", "valid_metric=Hit@10: not computed"),
    ("epochs", -1, "epochs=-1: must be a whole number of at least 0"), ("train_batch_size", 2.5, "train_batch_size=2.5: must be a whole number"),
    ("learning_rate", "fast", "learning_rate=fast: must be a number"), ("topk", [0], "topk=.*at least 1"), ("topk", "ten", "topk=ten"),
    ("learner", "adamm", "learner=adamm: unknown. Valid: adam, adamw"), ("clip_grad_norm", 1.0, "clip_grad_norm=1.0: must be a dictionary"),
    ("eval_args", "full", "eval_args=full: must be a dictionary"), ("gradient_accumulation_steps", 0, "gradient_accumulation_steps=0"),
    ("align_temperature", 0, "align_temperature=0: must be a number of at least 0.001"), ("item_dropout", 1.0, "item_dropout=1.0: .* from 0 to 0.99"),
    ("item_standardize", "yes", "item_standardize=yes: must be True, False or whiten"),
    ("item_id_residual", "yes", "item_id_residual=yes: must be True or False"), ("mirm_image_size", [112], "mirm_image_size=.*width, height"),
    ("align_weight", None, "align_weight=None: must be a number"), ("mirm_max_tokens", 0, "mirm_max_tokens=0: must be a whole number of at least 1"),
    ("lr_schedule", "linear", "lr_schedule=linear: unknown"), ("epochs", True, "epochs=True"), ("learning_rate", float("nan"), "learning_rate=nan"),
])
def test_invalid_values(key, value, message):
    with pytest.raises(ValueError, match=message):
        config(model="Molar" if key.startswith(("rec_loss", "align", "item", "mirm")) else "SASRec", **{key: value})


@pytest.mark.parametrize("key", ["user_encoder", "id_model"])
def test_unknown_part_lists_what_there_is(key):
    with pytest.raises(ValueError, match=f"{key}=Nothing: no such .*Valid: .*SASRec"):
        config(model="Molar", **{key: "Nothing"})


def test_keys_of_the_id_model_reach_it():
    given = {"id_inner_size": 8, "id_lr_schedule": "cosine", "id_warmup_ratio": 0.25, "id_n_heads": 4, "id_epochs": 3}
    found = make_id_configs(config(model="Molar", **given))["id_model"]
    assert {f"id_{key[3:]}": found[key[3:]] for key in given} == given
    for file in properties_dir().rglob("*.yaml"):
        given = read_yaml(file)
        written = {key: value for key, value in given.items() if key.startswith("id_") and key not in ("id_model", "id_weights", "id_training")}
        whose = {"id_model": file.stem.partition("-")[0] if file.parent.name == "id_model" else given.get("id_model", "SASRec")} if written else {}
        found = make_id_configs(config(model="Molar", **whose, **written))["id_model"]
        assert {key: found[key[3:]] for key in written} == written


def test_a_finished_run_of_before_a_property_was_made_without_it(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("model: Molar\ndataset: tiny\n")
    assert config(files=[file], model="Molar")["history_time_gaps"] is True  # a recipe of the user's
    (tmp_path / "result.json").write_text("{}")
    assert config(files=[file], model="Molar")["history_time_gaps"] is False
    file.write_text("model: Molar\ndataset: tiny\nhistory_time_gaps: True\n")
    assert config(files=[file], model="Molar")["history_time_gaps"] is True


@pytest.mark.parametrize("model", sorted(available("model.sequential_recommender")))
def test_what_a_model_reads_stands_in_its_yaml(model):
    """With a default, so that `show-config` and a run's config.yaml have it; RecBole itself asks for two keys that it need not have."""
    found = Config(model=model, dataset="ml-100k")
    assert {key for key in _keys_read_by(found.model_class) if key not in found.final_config_dict} <= {"double_tower", "embedding_size"}


RATES = ("learning_rate", "mirm_learning_rate", "dueg_learning_rate", "mirm_finetune_learning_rate")


@pytest.mark.parametrize("model, scratch, published", [
    ("Molar", [0.002, 0.0001, None, 0.002], [0.002, 0.0001, 0.0001, 0.0001]),
    ("HLLM", [0.001, 0.0001, None, None], [0.0001, 0.0001, None, None]),
    ("CoLLM", [0.001, 0.001, None, None], [0.001, 0.0001, None, None]),
])
def test_published_weights_are_tuned_at_a_lower_rate(model, scratch, published, tmp_path):
    assert [config(model=model)[key] for key in RATES] == scratch
    for backbone in ("some/weights", str(tmp_path), "my.weights"):
        assert [config(model=model, mirm_backbone=backbone)[key] for key in RATES] == published
    assert [config(model=model, mirm_backbone="Compact")[key] for key in RATES] == scratch
    given = config(model=model, mirm_backbone="some/weights", mirm_learning_rate=0.5)
    assert given["mirm_learning_rate"] == 0.5


def test_an_id_model_has_properties_of_its_own_for_a_data_set():
    many = make_id_configs(config(model="Molar", dataset="ml-1m", id_model="GRU4Rec", more_id_models={"SASRec": {"epochs": 3}, "DuoRec": {}}))
    assert [(one["learning_rate"], one["epochs"]) for one in many.values()] == [(0.015, 12), (0.002, 3), (0.002, 16)]
    few = make_id_configs(config(model="Molar", dataset="ml-100k", id_model="SASRec", more_id_models={"DuoRec": {}}))
    assert [(one["learning_rate"], one["epochs"]) for one in few.values()] == [(0.001, 60), (0.001, 60)]
    assert config(model="GRU4Rec", dataset="ml-1m", id_epochs=3)["epochs"] != 3  # finished runs of every model hold such keys


def test_keys_of_the_id_model():
    found = config(model="Molar", id_hidden_size=16, id_n_layers=1)
    assert (found["id_hidden_size"], found["id_n_layers"]) == (16, 1)
    assert config(model="Molar", id_model="GRU4Rec", id_num_layers=2)["id_num_layers"] == 2
    with pytest.raises(ValueError, match="id_hiden_size: unknown .* Did you mean id_hidden_size"):
        config(model="Molar", id_hiden_size=16)
    with pytest.raises(ValueError, match="id_hidden_size: unknown"):
        config(id_hidden_size=16)  # SASRec alone has no ID model


@pytest.mark.parametrize("given", [
    {}, {"model": "FPMC"}, {"model": "Molar", "id_hidden_size": 16, "align_temperature": 0.07}, {"loss_type": "BPR", "topk": 10},
    {"eval_args": {"mode": "uni20"}}, {"dataset": "ml-100k"}, {"data_path": "somewhere", "learning_rate": 1e-5, "clip_grad_norm": {"max_norm": 5.0}},
])
def test_written_properties_repeat_the_run(tmp_path, given):
    first = config(**given)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(first.as_yaml()))
    again = Config(config_file_list=[tmp_path / "config.yaml"])
    assert again.final_config_dict == first.final_config_dict
    assert again.as_yaml() == first.as_yaml()


def test_the_command_line_of_pytest_is_not_read(monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest", "--seed=3", "--nonsense=1"])
    assert config()["seed"] == 2020


def test_our_yaml_files_hold_known_keys_only():
    for file in properties_dir().glob("recipe/*.yaml"):
        Config(config_file_list=[file], config_dict={"dataset": "ml-1m"})


def test_every_offered_model_has_a_config():
    from recbole_molar.utils import recbole_sequential_models

    names = recbole_sequential_models()
    assert {"SASRec", "GRU4Rec", "FPMC", "BERT4Rec", "CORE", "LightSANs"} <= set(names)
    for name in names:
        assert config(model=name).model_class is get_model(name)


@pytest.mark.parametrize("given, device", [({}, "cuda"), ({"use_gpu": False}, "cpu"), ({"use_cpu": True}, "cpu"), ({"gpu_id": ""}, "cpu")])
def test_the_device_is_the_one_that_was_asked_for(monkeypatch, given, device):
    """By RecBole's names too; what the machine has is written nowhere, so that the run is the same one elsewhere."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    config = Config(config_dict={"model": "SASRec", "dataset": "ml-100k", **given})
    assert config["device"].type == device and "use_gpu" not in config.as_yaml()


def test_the_file_of_an_old_run_is_read_as_it_was_meant(monkeypatch, tmp_path):
    """It said what the machine had, and nothing of a default that is another one now."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (tmp_path / "config.yaml").write_text("model: Molar\ndataset: ml-100k\nuse_gpu: false\nid_model: DuoRec\n")
    assert Config(config_file_list=[tmp_path / "config.yaml"])["device"].type == "cpu"  # somebody's own file
    (tmp_path / "train.log").touch()
    config = Config(config_file_list=[tmp_path / "config.yaml"])
    assert config["device"].type == "cuda" and config["id_sim"] == "dot" and config["id_same_user_negatives"] is True
    (tmp_path / "config.yaml").write_text("model: DuoRec\ndataset: ml-100k\n")
    assert Config(config_file_list=[tmp_path / "config.yaml"])["same_user_negatives"] is True


def test_what_an_earlier_run_left_out_is_left_out_where_it_goes_on(tmp_path):
    """Beside `id_weights` other ID models had no effect, and are refused now."""
    given = {"model": "Molar", "dataset": "tiny", "id_weights": "a run", "more_id_models": {"GRU4Rec": {}}}
    with pytest.raises(ValueError, match="id_weights: names 1 of the 2 ID models"):
        Config(config_dict=given)
    (tmp_path / "config.yaml").write_text(json.dumps(given))
    (tmp_path / "train.log").touch()
    assert Config(config_file_list=[tmp_path / "config.yaml"])["more_id_models"] is None
