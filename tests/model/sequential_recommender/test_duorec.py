"""DuoRec: the contrast by hand, where its histories come from, and that it is SASRec without it."""

import math

import numpy as np
import pytest
import torch
from tiny_run import make_model

from recbole_molar.config import Config
from recbole_molar.model.sequential_recommender.duorec import SameTargetHistories, contrast_loss


@pytest.fixture
def make(make_data, flags):
    """Function: properties -> (Prepared, model) on the tiny data."""

    def call(**options):
        make_data()
        sizes = {"hidden_size": 8, "inner_size": 16, "n_layers": 1, "n_heads": 2}
        return make_model(Config(config_dict=flags(**{"model": "DuoRec", "contrast_rows": 20, **sizes, **options})))

    return call


def test_contrast_by_hand():
    users, others = torch.arange(5), torch.arange(5, 10)

    def loss(one, other, *settings):
        return contrast_loss((one, users[: len(one)]), (other, others[: len(one)]), *settings).item()

    assert loss(torch.zeros(4, 3), torch.zeros(4, 3), 1.0, False) == pytest.approx(math.log(7))
    apart = torch.eye(3) * 50
    assert loss(apart, apart, 1.0, False) == pytest.approx(0, abs=1e-6)
    one, other = torch.randn(5, 4), torch.randn(5, 4)
    both = torch.nn.functional.normalize(torch.cat([one, other]), dim=-1)
    scores = (both @ both.T / 0.5).exp()
    expected = [-math.log(scores[i, (i + 5) % 10] / (scores[i].sum() - scores[i, i])) for i in range(10)]
    assert loss(one, other, 0.5, True) == pytest.approx(np.mean(expected), rel=1e-5)


def test_histories_of_one_user_are_no_negatives_of_each_other():
    one, other = torch.randn(3, 4), torch.randn(3, 4)
    scores = torch.cat([one, other]) @ torch.cat([one, other]).T
    owners, of_other = [7, 7, 8], [7, 9, 8]  # the first row has one view of two positions of user 7, and its partner is its own
    candidates = {0: [3, 2, 4, 5], 1: [4, 2, 5], 2: [5, 0, 1, 3, 4], 3: [0, 2, 4, 5], 4: [1, 0, 2, 3, 5], 5: [2, 0, 1, 3, 4]}  # the partner first
    expected = [-scores[row, columns].log_softmax(0)[0].item() for row, columns in candidates.items()]
    sides = (one, torch.tensor(owners)), (other, torch.tensor(of_other))
    assert contrast_loss(*sides, 1.0, False).item() == pytest.approx(np.mean(expected), rel=1e-5)
    by_place = contrast_loss((one, torch.arange(3)), (other, torch.arange(3, 6)), 1.0, False)
    assert contrast_loss(*sides, 1.0, False, same_user=True).item() == by_place.item() != pytest.approx(np.mean(expected), rel=1e-3)


@pytest.mark.parametrize("all_positions", [True, False])
def test_the_contrast_knows_whose_history_each_is(make, all_positions, monkeypatch):
    prepared, model = make(train_all_positions=all_positions, contrast="us", contrast_rows=10**6)
    sides, drawn, draw = [], [], model.histories.draw
    batch = next(iter(prepared.loaders[0]))
    monkeypatch.setattr("recbole_molar.model.sequential_recommender.duorec.contrast_loss", lambda one, other, *_: sides.append((one, other)) or one[0].sum())
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n))
    model.histories.draw = lambda *given: drawn.append(draw(*given)) or drawn[-1]
    model.calculate_loss(batch)
    users = batch["user_id"] if not all_positions else batch["user_id"].repeat_interleave(batch["item_length"] - batch["first_target"])
    (first, view), (_, same_target) = sides
    assert torch.equal(first[1], view[1]) and torch.equal(first[1][:, None] == first[1], users[:, None] == users)
    starts = dict(zip(prepared.dataset.user_starts.tolist(), prepared.dataset.train_histories(), strict=True))
    for row, length, owner in zip(*(part.tolist() for part in drawn[0])):
        history = starts[owner].tolist()
        assert any(history[end - length : end] == row[:length] for end in range(length, len(history)))
    assert torch.equal(same_target[1], drawn[0][2])


def test_histories_share_the_target_and_come_from_training_only(make):
    prepared, model = make()
    dataset, histories = prepared.dataset, SameTargetHistories(prepared.loaders[0]._dataset)
    training = {start + place for start, history in zip(dataset.user_starts, dataset.train_histories()) for place in range(1, len(history))}
    assert set(histories.by_item.tolist()) == training
    targets = torch.tensor(sorted(training))
    for _ in range(3):
        item_seq, lengths, _ = histories.draw(targets, 6)
        for target, row, length in zip(targets.tolist(), item_seq, lengths.tolist()):
            wanted = dataset.sorted_items[target]
            endings = {
                tuple(dataset.sorted_items[max(int(dataset.first_of_user[other]), other - 6) : other].tolist())
                for other in training
                if dataset.sorted_items[other] == wanted and (other != target or histories.counts[wanted] == 1)
            }
            assert 1 <= length <= 6 and tuple(row[:length].tolist()) in endings and not row[length:].any()


def test_a_user_is_paired_with_the_history_drawn_for_it(make):
    """Whatever the order in which histories of like lengths are read."""
    prepared, model = make()
    model.eval()
    drawn, draw = [], model.histories.draw
    model.histories.draw = lambda *given: drawn.append(draw(*given)) or drawn[-1]
    targets = model.histories.by_item[torch.randperm(len(model.histories.by_item), generator=torch.Generator().manual_seed(0))]
    users, _ = model._same_target(targets)
    [(item_seq, lengths, _)] = drawn
    assert len(lengths.unique()) > 3
    torch.testing.assert_close(users, torch.cat([model.forward(row[None], length[None]) for row, length in zip(item_seq, lengths)]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [
    {"train_all_positions": False}, {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}}}, {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None}},
])
def test_positives_of_rows_of_prefixes_come_from_training_only(make, options):
    prepared, model = make(**options)
    training, *held_out = (set(loader._dataset.inter_feat["target_index"].tolist()) for loader in prepared.loaders)
    assert set(model.histories.by_item.tolist()) == training and not any(training & part for part in held_out)


@pytest.mark.parametrize("all_positions", [True, False])
def test_target_indices_are_those_of_the_targets(make, all_positions):
    prepared, model = make(train_all_positions=all_positions)
    seen = []

    def watched(indices, width, draw=model.histories.draw):
        seen.append(indices)
        return draw(indices, width)

    model.histories.draw = watched
    batch, targets = next(iter(prepared.loaders[0])), []
    model._next_item_loss = lambda user, items, _: targets.append(items) or user.sum()
    model.contrast_rows = 10**6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n))
        model.calculate_loss(batch)
    assert torch.equal(prepared.dataset.sorted_items[seen[0]], targets[0]) and len(targets[0]) >= 10
    assert prepared.note.startswith("all positions" if all_positions else "one row for each prefix")


@pytest.mark.parametrize("contrast, views", [("un", 2), ("su", 2), ("us", 3), ("us_x", 3)])
def test_each_contrast_trains(make, contrast, views):
    prepared, model = make(contrast=contrast, hidden_dropout_prob=0.2)
    calls, forward = [], model.forward
    model.forward = lambda *given: calls.append(1) or forward(*given)
    rec, extra = model.calculate_loss(next(iter(prepared.loaders[0])))
    assert len(calls) == views and torch.isfinite(extra) and 0 < extra < 2
    (rec + extra).backward()
    assert model.item_embedding.weight.grad.abs().sum() > 0


def test_without_dropout_and_contrast_it_is_sasrec(make, flags):
    options = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    prepared, model = make(lmd_sem=0.0, **options)
    _, plain = make_model(Config(config_dict=flags(**options)))
    plain.load_state_dict(model.state_dict())
    batch = next(iter(prepared.loaders[0]))
    rec, extra = model.calculate_loss(batch)
    assert extra == 0 and rec.item() == pytest.approx(plain.calculate_loss(batch).item(), rel=1e-6)


def test_bad_choices_are_refused(make):
    with pytest.raises(ValueError, match="contrast=both: unknown. Valid: un, su, us, us_x"):
        make(contrast="both")
    with pytest.raises(ValueError, match="sim=l2: unknown"):
        make(sim="l2")
