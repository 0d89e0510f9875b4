"""Training on all positions: which models allow it, and that it is the mean of RecBole's own loss over the prefixes."""

import pytest
import torch
from tiny_data import tiny_interactions
from tiny_run import make_model

from recbole_molar.config import Config
from recbole_molar.model import like_lengths
from recbole_molar.model.all_positions import (
    AllPositions, allows_all_positions, is_plain_cross_entropy, position_targets, reads_counted_alone, sample_negatives, valid_positions,
    with_all_positions,
)
from recbole_molar.property_error import PropertyError
from recbole_molar.quick_start import prepare
from recbole_molar.utils import create_dataset, get_model, recbole_sequential_models

ALLOWED = {"SASRec", "GRU4Rec", "GRU4RecF", "SASRecF", "FDSA"}
FEATURES = {"selected_features": ["genre"], "load_col": {"item": ["item_id", "genre"]}}
OWN_LIMITS = {"SASRecCPR": {"reranker_CAN_NUM": "10"}, "GRU4RecCPR": {"reranker_CAN_NUM": "10"}}  # candidates of the whole catalogue: not more than items
OPTIONS = {**OWN_LIMITS, **{name: FEATURES for name in ("SASRecF", "GRU4RecF", "FDSA")}}


def small(flags, model, **options):
    return Config(config_dict=flags(model=model, **OPTIONS.get(model, {}), **options))


@pytest.mark.parametrize("name", recbole_sequential_models())
def test_which_models_allow_it(make_data, flags, name):
    make_data(items=True)
    config = small(flags, name)
    dataset = create_dataset(config, True)
    model = with_all_positions(get_model(name))(config, dataset.build()[0])
    assert allows_all_positions(model) == (name in ALLOWED)
    assert model.training and not model.reads_all_positions


def test_a_model_that_looks_ahead_is_not_allowed(make_data, flags, monkeypatch):
    make_data()
    prepared, model = make_model(small(flags, "SASRec"))
    assert isinstance(model, AllPositions) and allows_all_positions(model)
    stock = type(model).get_attention_mask
    monkeypatch.setattr(type(model), "get_attention_mask", lambda self, item_seq: stock(self, item_seq, bidirectional=True))
    assert not allows_all_positions(model)


def test_a_loss_that_reads_more_is_not_allowed(make_data, flags, monkeypatch):
    make_data()
    _, model = make_model(small(flags, "SASRec"))
    stock = get_model("SASRec").calculate_loss
    monkeypatch.setattr(get_model("SASRec"), "calculate_loss", lambda self, batch: stock(self, batch) + batch["item_length"].float().mean())
    assert not allows_all_positions(model)


@pytest.mark.parametrize("name", sorted(ALLOWED))
@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
@pytest.mark.parametrize("windows", ["chunks", "overlap"])
def test_loss_is_the_mean_over_the_prefixes(make_data, flags, monkeypatch, name, loss_type, windows):
    make_data(items=True)
    prepared, model = make_model(small(flags, name, loss_type=loss_type, train_batch_size=100_000, train_windows=windows))
    model.eval()
    batch = next(iter(prepared.loaders[0]))
    assert batch["item_length"].min() == 1 and batch["item_length"].max() == 6
    monkeypatch.setattr("recbole_molar.model.all_positions.sample_negatives", lambda targets, n_items: targets % (n_items - 1) + 1)
    at_once = model.calculate_loss(batch)
    losses = []
    for seq, length, first, last in zip(*(batch[name] for name in ("item_id_list", "item_length", "first_target", "item_id")), strict=True):
        items = [*seq[:length].tolist(), int(last)]
        for n in range(1 + int(first), len(items)):
            history = torch.zeros(1, 6, dtype=torch.long)
            history[0, :n] = torch.tensor(items[:n])
            target = torch.tensor([items[n]])
            row = {"item_id_list": history, "item_length": torch.tensor([n]), "item_id": target, "neg_item_id": target % (model.n_items - 1) + 1}
            losses.append(super(AllPositions, model).calculate_loss(row))
    assert len(losses) == model.n_targets(batch) == prepared.loaders[0].n_targets
    assert bool(batch["first_target"].any()) == (windows == "overlap") and model.first_targets is None
    torch.testing.assert_close(at_once, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def test_prediction_is_recboles(make_data, flags):
    make_data()
    prepared, model = make_model(small(flags, "SASRec"))
    model.eval()
    batch = next(iter(prepared.loaders[2]))[0]
    stock = get_model("SASRec")(small(flags, "SASRec"), prepared.dataset).eval()
    stock.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.full_sort_predict(batch), stock.full_sort_predict(batch))


def test_targets_are_the_history_rolled_left():
    item_seq = torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0], [1, 2, 3, 4]])
    lengths = torch.tensor([3, 1, 4])
    targets = position_targets(item_seq, lengths, torch.tensor([9, 9, 9]))
    assert targets[valid_positions(lengths, 4)].tolist() == [6, 7, 9, 9, 2, 3, 4, 9]


def test_negatives_are_uniform_over_all_other_items():
    torch.manual_seed(0)
    targets = torch.arange(1, 5).repeat_interleave(3000)
    negatives = sample_negatives(targets, 5)
    counts = torch.zeros(5, 5, dtype=torch.long).index_put_((targets, negatives), torch.ones(1, dtype=torch.long), accumulate=True)
    assert (counts.diagonal() == 0).all() and (counts[:, 0] == 0).all()
    others = counts[1:, 1:][~torch.eye(4, dtype=torch.bool)]
    assert (others - 1000).abs().max() < 130  # five standard deviations
    with pytest.raises(ValueError, match="at least two"):
        sample_negatives(targets, 2)


@pytest.mark.parametrize("options", [
    {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "popularity"}}, {"loss_type": "BPR", "train_neg_sample_args": {"sample_num": 3}},
    {"transform": "inverse_itemseq"}, {"train_all_positions": False}, {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}}},
], ids=str)
def test_what_only_prefixes_can_do_is_done_on_prefixes(make_data, flags, options):
    make_data(tiny_interactions())
    prepared, model = make_model(small(flags, "SASRec", **options))
    assert not isinstance(model, AllPositions) and prepared.note.startswith("one row for each prefix")


@pytest.mark.parametrize("name", ["FPMC", "NARM"])
def test_prefixes_beside_negatives_need_some(make_data, flags, name):
    make_data(tiny_interactions())
    given = {"loss_type": "BPR"} if name == "NARM" else {}
    with pytest.raises(PropertyError, match=f"train_neg_sample_args=None: {name} is trained beside negatives"):
        prepare(small(flags, name, train_neg_sample_args=None, **given))


@pytest.mark.parametrize("name, loss_type, expected", [
    ("SASRec", "CE", True), ("GRU4Rec", "CE", True), ("SASRec", "BPR", False), ("SASRecF", "CE", True), ("DuoRec", "CE", False),
])
def test_which_losses_are_computed_in_blocks(make_data, flags, name, loss_type, expected):
    make_data(items=True)
    prepared, model = make_model(small(flags, name, loss_type=loss_type))
    assert model.plain_cross_entropy is expected and model.training


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_the_loss_in_blocks_and_its_gradients_are_recboles(make_data, flags, monkeypatch, name):
    make_data()
    monkeypatch.setitem(like_lengths.POSITIONS, "cpu", 8)  # several parts
    prepared, model = make_model(small(flags, name))
    model.eval()
    batch, found = next(iter(prepared.loaders[0])), []
    for in_blocks in (True, False):
        model.plain_cross_entropy = in_blocks
        model.zero_grad()
        loss = model.calculate_loss(batch)
        loss.backward()
        found.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    model.plain_cross_entropy, model.low_precision_products = True, True
    assert 0 < abs(float(model.calculate_loss(batch).detach()) - float(found[0][0])) < 0.01


def test_a_loss_that_adds_to_recboles_is_not_replaced(make_data, flags, monkeypatch):
    make_data()
    prepared, model = make_model(small(flags, "SASRec"))
    stock = get_model("SASRec").calculate_loss
    monkeypatch.setattr(get_model("SASRec"), "calculate_loss", lambda self, batch: stock(self, batch) + self.item_embedding.weight.square().mean())
    assert allows_all_positions(model) and not is_plain_cross_entropy(model)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_last_layer_is_left_out_where_positions_do_not_count(make_data, flags, monkeypatch, dropout):
    """Same loss and gradients, and fewer positions through the last feed-forward layer."""
    make_data()
    monkeypatch.setitem(like_lengths.POSITIONS, "cpu", 24)
    options = {"n_layers": 2, "hidden_dropout_prob": 0.0, "attn_dropout_prob": dropout, "train_batch_size": 100_000}
    prepared, model = make_model(small(flags, "SASRec", train_windows="overlap", **options))
    assert model.leaves_out_uncounted and make_model(small(flags, "GRU4Rec"))[1].leaves_out_uncounted is False
    batch, found, rows = next(iter(prepared.loaders[0])), [], []
    model.trm_encoder.layer[-1].feed_forward.register_forward_hook(lambda layer, given, output: rows.append(output.shape[:2].numel()))
    if dropout:
        monkeypatch.setattr(model.trm_encoder.layer[0].multi_head_attention.attn_dropout, "p", 0.0)
        monkeypatch.setattr(model.trm_encoder.layer[1].multi_head_attention.attn_dropout, "forward", lambda weights: weights)  # its way, without chance
    for model.leaves_out_uncounted in (True, False):
        model.zero_grad()
        rows.append(0)
        loss = model.calculate_loss(batch)
        loss.backward()
        found.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    second = rows.index(0, 1)
    assert model.n_targets(batch) <= sum(rows[:second]) < sum(rows[second:])


def test_a_model_that_reads_uncounted_states_keeps_them(make_data, flags, monkeypatch):
    make_data()
    _, model = make_model(small(flags, "SASRec", train_windows="overlap"))
    assert reads_counted_alone(model)
    encode = model.trm_encoder.forward
    monkeypatch.setattr(model.trm_encoder, "forward", lambda *given, **named: [states.cumsum(1) for states in encode(*given, **named)])
    assert allows_all_positions(model) and not reads_counted_alone(model) and model.training
