"""What Molar, its stages and a run hand to parts that are tested by themselves; each test was seen to fail where that is changed."""

import pytest
import torch
import torch.nn.functional as F
from test_molar import SMALL, first_batch, make_molar  # noqa: F401

from recbole_molar.collm_stages import tuning_cache
from recbole_molar.config import Config
from recbole_molar.model.alignment import alignment_loss
from recbole_molar.quick_start import content_hash, id_model_cache, make_id_configs
from recbole_molar.trainer.sequential_trainer import SequentialTrainer
from recbole_molar.utils import create_dataset
from tiny_data import tiny_interactions


@pytest.mark.parametrize("options", [{}, {"distill_weight": 0.5, "score_fusion_weight": 1, "ease_fusion_weight": 2}, {"id_training": "joint"}], ids=str)
def test_training_does_not_see_the_targets(blind_to_targets, options):
    """Nor does what comes before it: stage 1, the ID model, EASE."""
    blind_to_targets(images=True, **options)


def test_users_are_aligned_after_their_whole_histories(make_molar):  # noqa: F811
    """At the alignment's own temperature; two windows of one user are no negatives of each other."""
    model, loader, *_ = make_molar(align_weight=0.5, align_temperature=0.3, MAX_ITEM_LIST_LENGTH=4)
    rows = loader._dataset.inter_feat
    assert len(rows["user_id"].unique()) < len(rows) and rows["item_length"].unique().numel() > 1
    model.eval()
    users, _ = model.user_embedding(rows)
    expected = 0.5 * alignment_loss(model.id_projection(model.id_model(rows)), users, 0.3, rows["user_id"])
    assert model.calculate_loss(rows)[1].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("loss, score, cosine", [("ce", "cosine", True), ("bce", "cosine", True), ("nce", "dot", True), ("ce", "dot", False),
    ("bce", "dot", False),
])  # fmt: skip
def test_scores_are_of_the_kind_that_the_loss_trains(make_molar, loss, score, cosine):  # noqa: F811
    model, loader, *_ = make_molar(align_weight=0, rec_loss=loss, score_function=score, score_temperature=0.2)
    batch = first_batch(loader)
    model.eval()
    user, table = model.user_embedding(batch)
    expected = F.cosine_similarity(user[:, None], table[None, 1:], dim=-1) / 0.2 if cosine else user @ table[1:].T
    torch.testing.assert_close(model.full_sort_predict(batch)[:, 1:], expected, rtol=1e-4, atol=1e-5)


def test_an_evaluation_encodes_all_items_anew(make_molar, tmp_path):  # noqa: F811
    """End to end, rows outside the last batches are stale."""
    model, _, config, accelerator = make_molar(align_weight=0, item_encoding="end_to_end", mirm_finetune_tasks=[])
    trainer, before = SequentialTrainer(config, model, accelerator, tmp_path), model.mirm_table.clone()
    model.mirm_table.zero_()
    model.eval().before_evaluation(trainer)
    torch.testing.assert_close(model.mirm_table, before, rtol=1e-4, atol=1e-5)


def test_what_is_kept_in_the_cache_is_of_one_split(make_data, make, flags):
    make_data(items=True)
    config = Config(config_dict=flags(**SMALL))
    id_config = make_id_configs(config)["id_model"]
    assert id_model_cache(config, id_config, "one") == id_model_cache(config, id_config, "one") != id_model_cache(config, id_config, "other")
    mirm = make(align_weight=0, item_encoding="end_to_end", mirm_finetune_tasks=[])[2].mirm
    assert tuning_cache(config, "one", mirm) == tuning_cache(config, "one", mirm) != tuning_cache(config, "other", mirm)


def test_times_are_in_the_content_hash_where_they_are_read(make_data, make, flags):
    rows, found = tiny_interactions(), {}
    for name, data in (("tiny", rows), ("slow", [(user, item, time * 1000 + place) for place, (user, item, time) in enumerate(rows)])):
        make_data(data, name=name, items=True)
        for reads in (True, False):
            config = Config(config_dict=flags(**{**SMALL, "dataset": name, "history_time_gaps": reads}))
            dataset = create_dataset(config, all_positions=True)
            dataset.build()
            from recbole_molar.quick_start import read_content
            found[name, reads] = content_hash(config, dataset, read_content(config, dataset)), dataset.split_hash()
    assert found["tiny", True][1] == found["slow", True][1]
    assert found["tiny", True][0] != found["slow", True][0] and found["tiny", False][0] == found["slow", False][0]


def falling(monkeypatch):
    """Let each validation be worse than the one before it."""
    original = SequentialTrainer._valid_epoch
    monkeypatch.setattr(SequentialTrainer, "_valid_epoch", lambda self, data, **options: (-len(self.curve), original(self, data, **options)[1]))


@pytest.mark.parametrize("model, more", [("SASRec", {"epochs": 3}), ("Molar", {"epochs": 3}), ("Molar", {"id_epochs": 3})], ids=str)
def test_what_is_tested_is_the_best_epoch_of_each_part(make_data, run, flags, command_line, tmp_path, monkeypatch, model, more):
    """By the whole command: where the first epoch is the best, later ones change no figure."""
    make_data(items=True)
    falling(monkeypatch)
    given = {"lr_schedule": "constant", "warmup_ratio": 0.0, "learning_rate": 0.05}
    own = {} if model == "SASRec" else {**SMALL, "mirm_image_size": "[28, 28]", "item_modalities": "[text]", "mirm_finetune_tasks": "[]",
                                        "id_learning_rate": 0.05, "score_fusion_weight": 1}  # fmt: skip
    found = [run(command_line(flags(**{**own, **given, **some, "output_dir": str(tmp_path / str(n))})))[1] for n, some in enumerate(({}, more))]
    assert found[0]["test_result"] == found[1]["test_result"] and found[1]["best_epoch"] == 1
    assert found[1]["epochs_run"] == more.get("epochs", 1) and "id_epochs" not in more or found[1]["id_model"]["epochs_run"] == 3


def test_validation_and_test_rank_their_own_items(make_data, run, flags, command_line, monkeypatch):
    make_data()
    seen, original = [], SequentialTrainer.evaluate

    def watched(self, data, load_best_model=True, **options):
        dataset = data._dataset
        targets = dataset.inter_feat["target_index"].numpy()
        users = dataset.user_ends.searchsorted(targets, side="right")
        seen.append((load_best_model, set((dataset.user_ends[users] - targets).tolist())))
        return original(self, data, load_best_model, **options)

    monkeypatch.setattr(SequentialTrainer, "evaluate", watched)
    run(command_line(flags(epochs=2)))
    assert seen == [(False, {2}), (False, {2}), (True, {1})]  # the last item but one of a user, and the last
