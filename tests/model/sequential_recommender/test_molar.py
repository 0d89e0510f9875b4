"""Molar: the parts joined, losses apart, who is trained by what, and a run that was cut."""

import json
import math

import pytest
import torch

from recbole_molar.__main__ import main
from recbole_molar.config import Config
from recbole_molar.device import make_accelerator
from recbole_molar.model import like_lengths
from recbole_molar.model.sequential_recommender import molar
from recbole_molar.model.sequential_recommender.ease import item_weights
from recbole_molar.property_error import PropertyError
from recbole_molar.quick_start import make_id_configs, prepare, read_content, train_id_model
from recbole_molar.run_folder import RunFolder
from recbole_molar.stages import build
from recbole_molar.trainer.sequential_trainer import SequentialTrainer
from recbole.utils import init_seed

SMALL = {
    "model": "Molar", "mirm_finetune_samples": 40, "mirm_image_size": [28, 28], "compact_hidden_size": 32, "compact_num_layers": 2,
    "compact_intermediate_size": 48, "compact_vision_size": 16, "compact_vision_layers": 1, "compact_vocab_size": 300, "id_hidden_size": 16,
    "id_inner_size": 16, "id_epochs": 1, "warmup_ratio": 0.0, "item_dropout": 0.0, "dueg_dropout": 0.0,
}


@pytest.fixture
def make_molar(make_data, flags):
    """Function that builds an untrained Molar on the tiny data: (model, train loader, config, accelerator)."""
    make_data(items=True, images=True)

    def make(**options):
        config = Config(config_dict=flags(**{**SMALL, **options}))
        init_seed(config["seed"], True)
        accelerator, prepared = make_accelerator("fp32", use_cpu=True), prepare(config)
        content = read_content(config, prepared.dataset)
        folder = RunFolder.create(config["output_dir"], "tiny", "Molar", config.as_yaml())
        model = build(config, prepared, content, accelerator, folder, train_id_model)
        return model, prepared.loaders[0], config, accelerator

    return make


def first_batch(loader):
    return next(iter(loader))


def gradients(model, loader):
    """Names of the parameters that a training step reaches."""
    model.train()
    sum(model.calculate_loss(first_batch(loader))).backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}


def test_losses_are_apart_and_alpha_weighs_the_alignment(make_molar):
    parts = {}
    for alpha in (0.5, 1.0):
        model, loader, *_ = make_molar(align_weight=alpha)
        assert model.loss_names == ("rec", "align")
        model.eval()
        parts[alpha] = model.calculate_loss(first_batch(loader))
    assert parts[0.5][0].item() == pytest.approx(parts[1.0][0].item())
    assert parts[0.5][1].item() == pytest.approx(parts[1.0][1].item() / 2)


def test_alpha_zero_leaves_the_id_model_out(make_molar):
    model, loader, config, _ = make_molar(align_weight=0)
    assert model.id_model is None and model.loss_names == ("rec",) and len(model.calculate_loss(first_batch(loader))) == 1
    assert not any("id_model" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("alpha", [0, 0.1])
def test_late_fusion_adds_the_id_models_scores(make_molar, alpha):
    model, loader, *_ = make_molar(align_weight=alpha, score_fusion_weight=0.5)
    batch = first_batch(loader)
    assert len(model.calculate_loss(batch)) == len(model.loss_names) == 1 + (alpha > 0)
    model.eval()
    fused, own_id = model.full_sort_predict(batch), model.id_model.model.full_sort_predict(batch)
    candidates = model.predict(batch)
    model.fusion_weight = 0.0
    torch.testing.assert_close(fused - model.full_sort_predict(batch), 0.5 * own_id, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(candidates, fused[torch.arange(len(fused)), batch[model.ITEM_ID]], atol=1e-4, rtol=1e-4)
    assert own_id.std() > 0


@pytest.mark.parametrize("windows", ["chunks", "overlap", "last"])
def test_the_teacher_is_computed_once(make_molar, windows, monkeypatch, tmp_path):
    """What is kept is what each batch would compute; too much is not kept."""
    model, loader, config, _ = make_molar(align_weight=0, distill_weight=0.5, train_windows=windows, MAX_ITEM_LIST_LENGTH=4)
    model.eval()
    fresh = [model.calculate_loss(batch)[0].item() for batch in ordered(loader)]
    trainer = SequentialTrainer(config, model, make_accelerator("fp32", use_cpu=True), tmp_path)
    monkeypatch.setattr(molar, "MOST_TEACHER_BYTES", 100)
    model.before_training(loader, trainer)
    assert model.teacher_users is None
    monkeypatch.undo()
    model.before_training(loader, trainer)
    monkeypatch.setattr(model.id_model, "all_users", None)
    assert [model.calculate_loss(batch)[0].item() for batch in ordered(loader)] == pytest.approx(fresh, abs=1e-5) and len(fresh) > 1


def ordered(loader):
    """The rows of a loader in batches of 16, not shuffled."""
    rows = loader._dataset.inter_feat
    return [rows[start : start + 16] for start in range(0, len(rows), 16)]


def test_late_fusion_with_ease(make_molar):
    """Beside nothing else, and beside an ID model; not in the checkpoint."""
    plain, loader, *_ = make_molar(align_weight=0)
    model, *_ = make_molar(align_weight=0, ease_fusion_weight=3, ease_reg_weight=2)
    both, *_ = make_molar(align_weight=0, ease_fusion_weight=3, ease_reg_weight=2, score_fusion_weight=0.5)
    batch = first_batch(loader)
    assert model.id_model is None and not any(model.is_saved(name) for name in model.state_dict() if name.startswith("ease."))
    torch.testing.assert_close(model.ease.weights, item_weights(model.ease.dataset.train_histories(), model.n_items, 2.0))
    ours, fused, three = (one.eval().full_sort_predict(batch) for one in (plain, model, both))
    scores = model.ease(batch)
    torch.testing.assert_close(fused, ours + 3 * scores)
    torch.testing.assert_close(three, ours + 3 * scores + 0.5 * both.id_model.full_sort_predict(batch))
    torch.testing.assert_close(both.predict(batch), three[torch.arange(len(three)), batch[model.ITEM_ID]], atol=1e-4, rtol=1e-4)
    assert scores.std() > 0


def test_an_id_vector_beside_the_content(make_molar):
    """Zero at first, trained, without weight decay; the content's scale is its own."""
    plain, *_ = make_molar(align_weight=0)
    model, loader, config, _ = make_molar(align_weight=0, item_id_residual=True, item_content_scale=0.25)
    torch.testing.assert_close(model.eval().item_embeddings(), 0.25 * plain.eval().item_embeddings())
    assert "item_id_residual.weight" in gradients(model, loader)
    assert not model.item_id_residual.weight.grad[0].any()
    decayed = [group["params"] for group in model.parameter_groups(config) if group["weight_decay"]]
    assert not any(parameter is model.item_id_residual.weight for group in decayed for parameter in group)
    with torch.no_grad():
        model.item_id_residual.weight[1:] += 1
    torch.testing.assert_close(model.eval().item_embeddings()[1:], 0.25 * plain.eval().item_embeddings()[1:] + 1)


@pytest.mark.parametrize("options", [{}, {"dueg_user_token": "last", "train_windows": "chunks"}])
def test_times_between_the_items_of_a_history(make_molar, options):
    """Zero at first, trained, without weight decay; all positions read what their prefixes read, where the target's own time counts for nothing."""
    plain, *_ = make_molar(align_weight=0, history_time_gaps=False, **options)
    model, loader, config, _ = make_molar(align_weight=0, **options)
    batch = next(iter(loader))
    torch.testing.assert_close(model.eval().full_sort_predict(batch), plain.eval().full_sort_predict(batch))
    assert "gap_vectors.weight" in gradients(model, loader)
    decayed = [group["params"] for group in model.parameter_groups(config) if group["weight_decay"]]
    assert not any(parameter is model.gap_vectors.weight for group in decayed for parameter in group)
    torch.nn.init.normal_(model.gap_vectors.weight)
    model.eval()
    assert not torch.allclose(model.full_sort_predict(batch), plain.full_sort_predict(batch), atol=1e-2)

    item_seq, lengths, target = (batch[name].clone() for name in ("item_id_list", "item_length", "target_index"))
    users = model.user_embeddings(item_seq, lengths, torch.zeros_like(lengths), model.item_embeddings(), model.gaps(batch, item_seq.size(1)))
    alone, gaps = [], model.time_gaps
    for row, length in enumerate(lengths):
        for end in range(1, int(length) + 1):
            prefix = batch[[row]]
            prefix["item_id_list"] = item_seq[[row]] * (torch.arange(item_seq.size(1)) < end)
            prefix["item_length"], prefix["target_index"] = torch.tensor([end]), target[[row]] - length + end
            model.time_gaps = gaps.clone()
            model.time_gaps[prefix["target_index"]] = 60
            alone.append(model.user_embedding(prefix)[0])
    torch.testing.assert_close(users, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_ids_alone_without_content(make_molar):
    """Random vectors, not zeros, which would be alike; no adapter; what MIRM makes of the items does not show."""
    model, loader, *_ = make_molar(align_weight=0, item_id_residual=True, item_content_scale=0)
    table = model.item_embeddings()
    assert table is model.item_id_residual.weight and not table[0].any() and 0.015 < table[1:].std() < 0.025
    trained = gradients(model, loader)
    assert "item_id_residual.weight" in trained and not any(name.startswith("item_adapter") for name, _ in model.named_parameters())
    batch, names = next(iter(loader)), set(model.state_dict())
    model.eval().before_evaluation(None)
    assert set(model.state_dict()) == names  # the table of an evaluation is in no checkpoint
    before = model.full_sort_predict(batch)
    model.mirm_table += 1
    torch.testing.assert_close(model.train().eval().full_sort_predict(batch), before, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"item_encoding": "end_to_end", "dueg_user_token": "last"}, {"train_windows": "chunks"}])
def test_distillation_mixes_the_id_models_distribution_into_the_targets(make_molar, options):
    losses = {}
    for share in (0, 0.25, 1):
        model, loader, *_ = make_molar(**options, align_weight=0, distill_weight=share)
        assert model.loss_names == ("rec",) and (model.id_model is None) == (share == 0)
        model.eval()
        losses[share] = model.calculate_loss(first_batch(loader))[0].item()
    assert losses[0.25] == pytest.approx(0.75 * losses[0] + 0.25 * losses[1], rel=1e-5) and losses[1] != pytest.approx(losses[0], rel=1e-4)
    batch = first_batch(loader)
    item_seq, lengths, first = batch["item_id_list"], batch["item_length"], batch["first_target"]
    assert bool(first.any()) == ("train_windows" not in options)
    table = model.item_embeddings()
    user, table = model._scored(model.user_embeddings(item_seq, lengths, first, table), table)
    teacher = torch.cat([model.id_model.full_sort_predict(prefixes_of(batch, end)) for end in range(6)])[:, 1:].softmax(1)
    place = torch.cat([(lengths > end).nonzero()[:, 0] * 6 + end for end in range(6)])
    order = place.sort()
    teacher = teacher[order.indices[order.values % 6 >= first[order.values // 6]]]
    expected = torch.nn.functional.cross_entropy((user @ table[1:].T), teacher)
    assert model.calculate_loss(batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)
    assert not any(name.startswith("id_model.") for name in gradients(model, loader))


def prefixes_of(batch, end):
    """The rows of a batch that are longer than `end`, up to there."""
    rows = batch[(batch["item_length"] > end).nonzero()[:, 0]]
    rows["item_id_list"], rows["item_length"] = rows["item_id_list"] * (torch.arange(6) <= end), torch.full((len(rows),), end + 1)
    return rows


def test_an_id_model_of_shorter_histories(make_data, flags):
    """It reads the last items; it was an IndexError once, after the ID model was trained."""
    make_data(items=True)
    given = flags(**SMALL, id_MAX_ITEM_LIST_LENGTH=3, item_modalities=["text"], score_fusion_weight=1, mirm_finetune_tasks=[])
    words = [f"--{key}={value}" for key, value in given.items()]
    assert main(["run", *words]) == 0
    assert main(["run", *words, "--id_training=joint"]) == 0
    assert main(["run", *words, "--distill_weight=0.5"]) == 2


def test_the_decoder_of_published_weights_has_its_learning_rate(make_molar):
    given = {"item_encoding": "end_to_end", "learning_rate": 1e-3, "mirm_learning_rate": 1e-4}
    for rate in (None, 1e-5):
        model, _, config, _ = make_molar(dueg_learning_rate=rate, **given)
        found = {id(value): group["lr"] for group in model.parameter_groups(config) for value in group["params"]}
        for name, value in model.named_parameters():
            decoder = name.startswith("user_encoder.decoder.")
            wanted = 1e-4 if name.startswith("mirm.") else (rate or 1e-3) if decoder else 1e-3
            assert found.get(id(value)) == (wanted if value.requires_grad else None), name
        assert set(found.values()) == {1e-3, 1e-4, rate or 1e-3}


@pytest.mark.parametrize("training", ["frozen", "joint"])
def test_the_id_model_learns_only_in_joint_training(make_molar, training):
    model, loader, *_ = make_molar(id_training=training)
    reached = gradients(model, loader)
    assert any(name.startswith("id_model.") for name in reached) == (training == "joint")
    assert any(name.startswith("user_encoder.decoder") for name in reached) and "user_encoder.user_token" in reached


def test_joint_training_by_other_rows_is_refused_at_the_start(make_molar):
    with pytest.raises(PropertyError, match="id_training=joint: id_model=BERT4Rec is trained on rows with 'Mask_item_id_list'"):
        make_molar(id_training="joint", id_model="BERT4Rec")


def test_frozen_id_users_computed_once_are_those_computed_live(make_molar):
    model, loader, *_ = make_molar(id_training="frozen")
    batch = first_batch(loader)
    model.eval()
    live = model.calculate_loss(batch)[1]
    model.before_training(loader, None)
    assert model.id_users is not None
    assert model.calculate_loss(batch)[1].item() == pytest.approx(live.item(), rel=1e-5)


@pytest.mark.parametrize("options", [
    {}, {"item_id_residual": True, "score_function": "dot"}, {"item_id_residual": True, "item_content_scale": 0},
    {"item_encoding": "end_to_end", "item_standardize": True},
])
@pytest.mark.parametrize("loss", ["bce", "nce"])
def test_a_sampled_loss_adapts_the_items_of_the_batch_alone(make_molar, loss, options, monkeypatch):
    """The same loss and the same gradients as over the whole catalogue."""
    model, loader, *_ = make_molar(rec_loss=loss, align_weight=0, nce_negatives=3, **options)
    batch, names, found, rows = first_batch(loader)[:2], [name for name, value in model.named_parameters() if value.requires_grad], [], []
    if model.item_adapter is not None:
        model.item_adapter.register_forward_hook(lambda module, given, made: rows.append(len(made)))
    items = torch.arange(model.n_items)
    for numbered_anew in (molar.numbered_anew, lambda *ids: (items, ids)):
        monkeypatch.setattr(molar, "numbered_anew", numbered_anew)
        torch.manual_seed(0)
        (value,) = model.calculate_loss(batch)
        found.append([value, *torch.autograd.grad(value, [model.get_parameter(name) for name in names], materialize_grads=True)])
    for name, left, right in zip(["loss", *names], *found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert not rows or 2 < rows[0] < rows[1] == model.n_items


@pytest.mark.parametrize("loss", ["bce", "nce", "ce"])
@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_each_loss_falls(make_molar, loss, score):
    model, loader, config, _ = make_molar(rec_loss=loss, score_function=score, align_weight=0, nce_negatives=16, score_temperature=0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    values = []
    for _ in range(15):
        total = 0.0
        for batch in loader:
            (value,) = model.calculate_loss(batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.item()
        values.append(total)
    assert values[-1] < 0.9 * values[0]


def test_all_scores_equal_give_log_of_the_catalogue(make_molar):
    model, loader, *_ = make_molar(align_weight=0, score_function="dot")
    with torch.no_grad():
        model.item_adapter.linear.weight.zero_()
        model.item_adapter.linear.bias.zero_()
        for parameter in model.item_adapter.hidden[-1].parameters():
            parameter.zero_()
    assert model.calculate_loss(first_batch(loader))[0].item() == pytest.approx(math.log(model.n_items - 1), rel=1e-5)


def test_scores_are_user_times_table(make_molar):
    model, loader, *_ = make_molar()
    batch = first_batch(loader)
    model.eval()
    user, table = model._scored(*model.user_embedding(batch))
    scores = model.full_sort_predict(batch)
    assert scores.shape == (len(batch["user_id"]), model.n_items) and scores.dtype == torch.float32
    torch.testing.assert_close(scores, user @ table.T)
    torch.testing.assert_close(model.predict(batch), scores[torch.arange(len(scores)), batch["item_id"]])


@pytest.mark.parametrize("place", ["first", "last"])
def test_parts_of_like_lengths_change_nothing(make_molar, monkeypatch, place):
    model, loader, *_ = make_molar(dueg_user_token=place)
    batch = first_batch(loader)
    assert len(set(batch["item_length"].tolist())) > 1
    found = []
    for most in (10_000, 8):
        monkeypatch.setitem(like_lengths.POSITIONS, "cpu", most)
        model.zero_grad()
        losses = model.calculate_loss(batch)
        sum(losses).backward()
        found.append([*losses, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-6)


def test_an_evaluation_computes_the_item_embeddings_once(make_molar, tmp_path):
    model, loader, config, accelerator = make_molar(align_weight=0, eval_batch_size=2)
    trainer = SequentialTrainer(config, model, accelerator, tmp_path)
    calls = []
    model.item_adapter.register_forward_hook(lambda *_: calls.append(1))
    test_data = prepare(config).loaders[2]
    trainer.evaluate(test_data, load_best_model=False)
    trainer.latency(test_data)
    assert len(test_data) > 1 and len(calls) == 1
    model.train()
    trainer.evaluate(test_data, load_best_model=False)
    assert len(calls) == 2  # training has changed it


def test_end_to_end_trains_mirm_and_cached_does_not(make_molar):
    model, loader, *_ = make_molar(align_weight=0, item_encoding="end_to_end")
    assert any(name.startswith("mirm.") for name in gradients(model, loader))
    assert model.parameter_groups({"mirm_learning_rate": 1e-4, "learning_rate": 1e-3, "dueg_learning_rate": None, "weight_decay": 0.0})[0]["lr"] in (1e-4, 1e-3)
    model, loader, *_ = make_molar(align_weight=0)
    assert model.mirm is None


@pytest.mark.parametrize("encoding", ["cached", "end_to_end"])
@pytest.mark.parametrize("kind", [False, True, "whiten"])
def test_what_the_adapter_reads(make_molar, kind, encoding):
    model, loader, *_ = make_molar(align_weight=0, item_encoding=encoding, item_standardize=kind, mirm_finetune_tasks=["image_text"])
    raw = make_molar(align_weight=0, item_standardize=False, mirm_finetune_tasks=["image_text"])[0].mirm_table
    read = []
    model.item_adapter.register_forward_pre_hook(lambda module, given: read.append(given[0].detach()))
    model.item_embeddings()
    (table,) = read
    items, n = table[1:], len(table) - 1
    assert not table[0].any()
    if not kind:
        torch.testing.assert_close(table, raw)
        return
    torch.testing.assert_close(items.mean(0), torch.zeros(items.size(1)), atol=1e-3, rtol=0)
    variances, rank = torch.linalg.eigvalsh(items.T @ items / n), min(n - 1, items.size(1))
    if kind is True:
        torch.testing.assert_close(items.var(0, unbiased=False), torch.ones(items.size(1)))
        assert variances[-1] > 2  # directions are not alike
    else:
        assert variances[-1] < 1.001 and variances[-3] > 0.5 and rank > 2
    if encoding == "end_to_end" and kind == "whiten":  # found once, from the first table, and kept with what is trained
        assert {"scaling.mean", "scaling.product"} < set(model.state_dict()) and model.is_saved("scaling.product")
        model.item_embeddings(torch.cat([model.mirm_table[:1], model.mirm_table[1:] + 1]))
        torch.testing.assert_close(read[1][1:], items + model.scaling.product.sum(0), atol=1e-3, rtol=1e-3)


def test_recomputed_items_give_the_same_gradients_in_less_memory(make_molar):
    model, loader, *_ = make_molar(align_weight=0, item_encoding="end_to_end", mirm_encode_batch_size=2)
    batch, found, held = first_batch(loader), [], []
    for model.recompute_items in (False, True):
        kept = []
        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, kept=kept: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
            loss = sum(model.calculate_loss(batch))
        held.append(sum(kept))
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    assert held[1] < held[0] / 3


def test_no_gradient_reaches_mirm_from_items_outside_the_batch(make_molar):
    model, loader, *_ = make_molar(align_weight=0, item_encoding="end_to_end", end_to_end_items=1)
    wanted = model.fresh_table(torch.tensor([[1, 2]]), torch.tensor([3]), None)
    assert (wanted.grad_fn is not None) and wanted.shape == model.mirm_table.shape


def test_id_config_takes_the_runs_data_and_its_own_keys(make_data, flags):
    make_data(items=True, images=True)
    config = Config(config_dict=flags(**SMALL, seed=7))
    id_config = make_id_configs(config)["id_model"]
    assert (id_config["model"], id_config["hidden_size"], id_config["epochs"], id_config["seed"]) == ("SASRec", 16, 1, 7)
    assert id_config["MAX_ITEM_LIST_LENGTH"] == config["MAX_ITEM_LIST_LENGTH"] and id_config["data_path"] == config["data_path"]


def run(given, capsys):
    assert main(["run", *(f"--{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in given.items())]) == 0
    return json.loads(open(capsys.readouterr().out.strip().splitlines()[-1]).read())


def test_second_run_reuses_the_earlier_stages(make_data, flags, tmp_path, capsys):
    make_data(items=True, images=True)
    first = run(flags(**SMALL), capsys)
    assert [path.name for path in (tmp_path / "saved" / "cache" / "id_model").rglob("*.safetensors")] == ["best.safetensors"]
    second = run(flags(**SMALL, learning_rate=0.002), capsys)
    assert not first["stage_1"]["reused"] and second["stage_1"]["reused"]
    assert "id_model" in first["seconds"] and "id_model" not in second["seconds"]
    assert first["split_hash"] == second["split_hash"]


def test_resumed_molar_ends_as_one_that_was_never_cut(make_data, flags, tmp_path, capsys, cut_after_two_epochs):
    make_data(items=True, images=True)
    given = flags(**{**SMALL, "dueg_dropout": 0.2}, epochs=4)
    whole = run(given, capsys)
    again = {**given, "output_dir": str(tmp_path / "cut")}
    with cut_after_two_epochs():
        assert main(["run", *(f"--{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in again.items())]) == 130
    folder = next((tmp_path / "cut" / "tiny").iterdir())
    resumed = run({"resume": folder}, capsys)
    assert resumed["test_result"] == whole["test_result"] and resumed["best_valid_result"] == whole["best_valid_result"]
