"""Warnings name the figure and the property to set, most severe first."""

import re

from recbole_molar.doctor.advice import problems
from recbole_molar.doctor.comparison import Finished, compare
from recbole_molar.doctor.terminal import as_text

CONFIG = {
    "dataset": "shop", "model": "Molar", "train_batch_size": 32, "eval_batch_size": 128, "mirm_finetune_batch_size": 32, "epochs": 8,
    "item_image_dir": "images", "mirm_finetune_samples": 10000, "MAX_ITEM_LIST_LENGTH": 200,
}


def test_what_does_not_fit_comes_first_with_a_size_that_does():
    stages = {
        "mirm_finetune": {"peak_gib": 8.0, "does_not_fit": "no room"}, "Molar": {"peak_gib": 8.0, "seconds": 9000.0, "epochs": 8}, "test": {"peak_gib": 1.0},
        "item_embedding": {"skipped": True, "seconds": 0.0, "peak_gib": 0.0},
    }
    report = {
        "estimate": {"stages": stages, "free_gib": 4.0, "total_seconds": 9000.0}, "data": {"ties": {"float64": {"share_of_test_users": 0.5}}},
    }
    found = problems(report, ["something else"], CONFIG)
    assert "--mirm_finetune_batch_size=8 (now 32)" in found[0] and "no room" in found[0]
    assert "--train_batch_size=8 (now 32)" in found[1]
    assert "50.0% of the users" in found[2]
    assert "2.5 hours" in found[3] and "--epochs=4 (now 8)" in found[3]
    assert found[4:] == ["something else"]


def test_stages_without_epochs_and_other_id_models_have_advice_of_their_own():
    def said(name, **stage):
        estimate = {"stages": {name: {"seconds": 9e4, "peak_gib": 1.0, **stage}}, "total_seconds": 9e4, "free_gib": 4.0}
        return problems({"estimate": estimate}, [], CONFIG)

    assert "take smaller encoders" in said("item_features")[0]
    assert "give GRU4Rec in --more_id_models fewer epochs (now 300)" in said("id_model_GRU4Rec", epochs=300)[0]
    assert "give GRU4Rec a smaller train_batch_size in --more_id_models" in said("id_model_GRU4Rec", epochs=1, seconds=1.0, does_not_fit="no")[0]


def test_nothing_wrong_is_nothing_said():
    assert problems({}, [], CONFIG) == []


def test_what_is_reused_and_a_busy_machine_are_said():
    stages = {
        "mirm_finetune": {"skipped": True, "seconds": 0.0, "peak_gib": 0.0, "about": "reused: saved/cache/mirm-1.safetensors"},
        "Molar": {"seconds": 90.0, "peak_gib": 1.0, "about": ""},
    }
    estimate = {"stages": stages, "total_seconds": 90.0, "peak_gib": 1.0, "free_gib": 8.0, "slowdown": 3.0, "threads": 2, "parameters": 7}
    result = {"model": "Molar", "seconds": {"Molar": 60.0, "mirm_finetune": 0.1}, "peak_memory": {"cpu": 2.0}, "machine": {"threads": 1}}
    report = {"model": "Molar", "dataset": "shop", "problems": [], "error": None, "estimate": estimate}
    text = as_text({**report, "comparison": compare(estimate, Finished(None, result))})
    assert re.search(r"mirm_finetune +- +- +reused: saved/cache/mirm-1.safetensors", text)
    assert "took 3.0 times as long" in text and "set OMP_NUM_THREADS=1" in text and re.search(r"Molar +90 s +60 s +1.50", text)
    assert "times as long" not in as_text({**report, "estimate": {**estimate, "slowdown": 1.1}})


def test_estimate_and_measurement_are_for_the_same_epochs():
    stages = {
        "Molar": {"seconds": 1000.0, "epochs": 8, "validations": 8, "epoch_seconds": 20.0, "validation_seconds": 5.0, "once_seconds": 1.0, "peak_gib": 2.0},
        "mirm_finetune": {"seconds": 300.0, "peak_gib": 1.0}, "item_embedding": {"seconds": 60.0, "peak_gib": 1.0}, "test": {"seconds": 5.0, "peak_gib": 1.0},
    }
    result = {
        "model": "Molar", "epochs_run": 2, "parameters": 7, "seconds": {"mirm_finetune": 0.1, "item_embedding": 0.1, "Molar": 102.0, "test": 10.0},
        "stage_1": {"reused": True, "seconds": 200.0}, "peak_memory": {"cpu": 4.0},
    }
    found = compare({"stages": stages, "peak_gib": 2.0, "parameters": 7}, Finished(None, result))
    assert found["stages"]["Molar"] == {"estimated": 51.0, "measured": 102.0, "ratio": 0.5, "note": "epochs: 2"}
    assert found["stages"]["mirm_finetune"]["ratio"] == 1.5 and found["stages"]["item_embedding"]["note"] == "reused"
    assert found["stages"]["test"]["ratio"] == found["peak_gib"]["ratio"] == 0.5 and found["same_model"]


def test_another_id_model_and_a_stage_that_did_not_fit_are_compared_too():
    id_model = {"seconds": 60.0, "epochs": 60, "validations": 60, "epoch_seconds": 1.0, "validation_seconds": 0.0, "once_seconds": 0.0, "peak_gib": 1.0}
    stages = {"id_model_GRU4Rec": id_model, "item_embedding": {"does_not_fit": "out of memory", "peak_gib": 9.0}}
    result = {
        "model": "Molar", "seconds": {"id_model_GRU4Rec": 12.5, "item_embedding": 3.0}, "id_model_GRU4Rec": {"epochs_run": 10, "reused": False},
        "stage_1": {"reused": True}, "peak_memory": {"cpu": 4.0},
    }  # fmt: skip
    found = compare({"stages": stages, "peak_gib": 2.0, "parameters": 7}, Finished(None, result))["stages"]
    assert found["id_model_GRU4Rec"]["ratio"] == 0.8 and found["item_embedding"]["estimated"] is None
