"""Stage 1: what it learns, what it reuses, and that a run that was cut ends as one that was not."""

import gc
import weakref
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from toy_items import toy_content, toy_histories, toy_mirm

from recbole_molar.data.item_content import ItemContent
from recbole_molar.device import make_accelerator
from recbole_molar.model.finetune.base import FinetuneTask
from recbole_molar.trainer.mirm_finetune_trainer import MIRMFinetuneTrainer, make_tasks, stage1_fingerprint

ALL = ["image_text", "structured_attributes", "user_behavior"]


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return toy_content(tmp_path_factory.mktemp("items"))


def trainer(content, folder, tuning="full", tasks=ALL, histories=None, mirm=None, **options):
    settings = {"samples": 12, "epochs": 2, "batch_size": 4, "bow_weight": 1.0, "contrast_weight": 1.0, **options}
    mirm = mirm or toy_mirm(content, tuning=tuning)
    accelerator = make_accelerator("fp32", use_cpu=True)
    return MIRMFinetuneTrainer(mirm, make_tasks(tasks), accelerator, histories or toy_histories(), folder, **settings)


def cut_after(stage, steps):
    """Make a trainer die after some optimizer steps."""
    step = stage._step

    def counted(position, total):
        if position["step"] == steps:
            raise KeyboardInterrupt
        step(position, total)

    stage._step = counted


def test_held_out_samples_are_not_trained_on(content, tmp_path):
    train, held_out, _ = (parts and parts["user_behavior"] for parts in trainer(content, tmp_path, samples=100)._draw_samples())
    assert len(train) > len(held_out) > 1 and not set(train) & set(held_out)


def test_each_step_has_its_rate_and_a_clipped_gradient(content, tmp_path):
    stage, rates, norms = trainer(content, tmp_path, epochs=3, learning_rate=0.5), [], []
    step = stage._step

    def look(position, total):
        update, parameters = stage.optimizer.step, [value for group in stage.optimizer.param_groups for value in group["params"]]

        def record():
            rates.append(stage.optimizer.param_groups[0]["lr"])
            norms.append(float(torch.stack([value.grad.norm() for value in parameters if value.grad is not None]).norm()))
            update()

        with mock.patch.object(stage.optimizer, "step", record):
            step(position, total)

    stage._step = look
    stage.fit()
    assert len(rates) == len(norms) > 6 and max(norms) < 1.01 and rates[0] < max(rates) and rates[-1] < 0.2 * max(rates)


def test_the_loss_falls_and_the_report_says_so(content, tmp_path, caplog):
    caplog.set_level("INFO")
    report = trainer(content, tmp_path, epochs=10, learning_rate=5e-3).fit()
    assert set(report["tasks"]) == set(ALL) and not report["reused"] and report["seconds"] > 0
    for losses in report["tasks"].values():
        assert losses["loss_after"] < losses["loss_before"]
    assert caplog.text.count(" wrote ") == 3 and "held-out loss before" in caplog.text
    assert not (tmp_path / "stage1.safetensors").exists()


def test_nothing_of_it_stays_in_memory_but_the_model(content, tmp_path):
    stage = trainer(content, tmp_path)
    stage.fit()
    mirm, accelerator, optimizer = stage.mirm, stage.accelerator, weakref.ref(stage.optimizer.optimizer)
    del stage
    gc.collect()
    assert accelerator is not None and optimizer() is None
    assert all(value.grad is None for value in mirm.parameters())


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("save_minutes", [0, 60], ids=["each step", "each epoch"])
def test_a_cut_run_ends_as_an_uncut_one(content, tmp_path, tuning, save_minutes):
    settings = {"tuning": tuning, "save_minutes": save_minutes}
    whole = trainer(content, tmp_path / "whole", **settings)
    expected = whole.fit()
    cut = trainer(content, tmp_path / "cut", **settings)
    cut_after(cut, 10)
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    torch.manual_seed(77)
    resumed = trainer(content, tmp_path / "cut", **settings)
    report = resumed.fit()
    assert report["tasks"] == expected["tasks"] and resumed.mirm.fingerprint() == whole.mirm.fingerprint()


def test_finished_weights_are_reused_and_only_by_equal_settings(content, tmp_path):
    first = trainer(content, tmp_path, cache_dir=tmp_path / "cache")
    report = first.fit()
    again = trainer(content, tmp_path, cache_dir=tmp_path / "cache")
    again._checkpoint.write_bytes(b"of a stage 1 that was cut, and that another run has finished")
    assert again.fit() == {**report, "reused": True} and again.mirm.fingerprint() == first.mirm.fingerprint()
    assert not again._checkpoint.exists()
    assert not trainer(content, tmp_path, cache_dir=tmp_path / "cache", bow_weight=0.5).fit()["reused"]
    for file in (tmp_path / "cache").glob("mirm-*"):
        file.write_bytes(file.read_bytes()[:-50])
    assert not trainer(content, tmp_path, cache_dir=tmp_path / "cache").fit()["reused"]


def test_no_leak_from_what_is_not_training(content, tmp_path):
    """Stage 1 sees training histories and nothing else: equal histories give equal weights, others do not."""
    histories = toy_histories()
    one = trainer(content, tmp_path / "a", histories=[history[:-2] for history in histories])
    changed = [np.concatenate([history[:-2], [1, 1]]) for history in histories]
    other = trainer(content, tmp_path / "b", histories=[history[:-2] for history in changed])
    assert one.fit()["tasks"] == other.fit()["tasks"] and one.mirm.fingerprint() == other.mirm.fingerprint()
    trains_on_more = trainer(content, tmp_path / "c", histories=changed)
    trains_on_more.fit()
    assert trains_on_more.mirm.fingerprint() != one.mirm.fingerprint()


def test_a_users_own_task_may_read_histories_under_any_name(content):
    class CoConsumed(FinetuneTask):
        name = "co_consumed"

    mirm, histories = toy_mirm(content), toy_histories()
    shorter = [history[:-2] for history in histories]
    one, other = (stage1_fingerprint(mirm, [CoConsumed()], some, {}) for some in (histories, shorter))
    assert one != other
    one, other = (stage1_fingerprint(mirm, make_tasks(["image_text", "structured_attributes"]), some, {}) for some in (histories, shorter))
    assert one == other


def test_tasks_that_cannot_be_built_are_skipped(tmp_path, caplog):
    text = trainer(toy_content(tmp_path, modalities=["text"]), tmp_path).fit()
    assert set(text["tasks"]) == {"structured_attributes", "user_behavior"} and "readable image" in text["skipped"]["image_text"]
    image = trainer(toy_content(tmp_path, modalities=["image"]), tmp_path).fit()
    assert image["tasks"]["user_behavior"]["loss_after"] is None and set(image["skipped"]) == set(ALL[:2])
    assert "image_text is skipped" in caplog.text


def test_samples_without_an_answer_are_left_out_where_nothing_else_is_learnt(tmp_path):
    """Items without text, by the paper's own objective: a batch of such targets alone has no loss."""
    content = toy_content(tmp_path)
    for item in range(1, 12):
        content.items[item] = replace(content.items[item], fields={}, description="", title="")
    stage = trainer(content, tmp_path, tasks=["user_behavior"], objective="generation", bow_weight=0.0, contrast_weight=0.0, batch_size=1)
    drawn, _, _ = stage._draw_samples()
    assert all(sample.answer for sample in drawn["user_behavior"])
    assert np.isfinite(stage.fit()["tasks"]["user_behavior"]["loss_after"])


def test_titles_are_in_the_fingerprint(content):
    """The title is what the next item is called in an answer, though no field of its own may hold it."""
    other = ItemContent([replace(item, title=item.title + "!") for item in content.items], content.description_field)
    one, two = (stage1_fingerprint(toy_mirm(some), make_tasks(["user_behavior"]), toy_histories(), {}) for some in (content, other))
    assert content.fingerprints() == other.fingerprints() and one != two


def test_stage_one_is_left_out(content, tmp_path):
    for stage in (trainer(content, tmp_path, tasks=[]), trainer(content, tmp_path, tuning="frozen")):
        before = stage.mirm.fingerprint()
        assert stage.fit()["tasks"] == {} and stage.mirm.fingerprint() == before


def test_a_loss_that_is_no_number_stops_the_run(content, tmp_path):
    stage = trainer(content, tmp_path)
    with torch.no_grad():
        stage.mirm.backbone.decoder.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="mirm_finetune_learning_rate"):
        stage.fit()
