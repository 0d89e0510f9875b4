"""No leak: with every validation and test target changed, all that training reads stays the same, bit for bit."""

import numpy as np
import pytest
import torch
from recbole.utils import init_seed
from tiny_data import tiny_interactions
from tiny_run import make_trainer

from recbole_molar.config import Config


def changed_targets(rows, n_items, held_out):
    """The same rows, with each held-out item replaced by another one."""
    random, users = np.random.default_rng(7), {}
    for index, (user, _, _) in enumerate(rows):
        users.setdefault(user, []).append(index)
    rows = list(rows)
    for indices in users.values():
        for index in indices[len(indices) - min(max(len(indices) - 2, 0), held_out) :]:
            user, item, time = rows[index]
            rows[index] = (user, f"i{(int(item[1:]) + random.integers(1, n_items)) % n_items}", time)
    return rows


def batches(loader):
    """An epoch of a loader, RecBole's negatives and masks included."""
    init_seed(3, True)
    return list(loader)


@pytest.fixture
def both(make_data, flags, tmp_path):
    """Function: properties -> (Prepared, trainer after an epoch) for the data as they are and with other targets."""

    def run(**options):
        every_item = [("anchor", f"i{item}", 5) for item in (*range(30), 0, 1, 2)]  # gives the same ids to the items of both
        rows = every_item + tiny_interactions()
        found = []
        for name, data in (("tiny", rows), ("other", changed_targets(rows, 30, held_out=2))):
            make_data(data, name=name)
            prepared, trainer = make_trainer(Config(config_dict=flags(dataset=name, **options)), tmp_path / name)
            trainer.fit(*prepared.loaders[:2])
            found.append((prepared, trainer))
        return found

    return run


@pytest.mark.parametrize("options", [
    {}, {"loss_type": "BPR"}, {"train_all_positions": False}, {"train_windows": "last", "MAX_ITEM_LIST_LENGTH": 3},
    {"train_windows": "overlap", "MAX_ITEM_LIST_LENGTH": 3}, {"model": "FPMC"}, {"model": "BERT4Rec"},
    {"model": "BERT4Rec", "train_all_positions": False}, {"model": "Popularity"}, {"model": "EASE"},
], ids=str)
def test_training_does_not_see_the_targets(both, options):
    (first, trained), (second, trained_too) = both(**options)
    assert first.dataset.split_hash() != second.dataset.split_hash()
    for part in (1, 2):  # the change is there: most targets differ
        left, right = (prepared.loaders[part]._dataset.inter_feat["item_id"] for prepared in (first, second))
        assert len(left) == len(right) and (left != right).all()
    first_batches, second_batches = (batches(prepared.loaders[0]) for prepared in (first, second))
    for left, right in zip(first_batches, second_batches, strict=True):
        assert set(left.columns) == set(right.columns) and all(torch.equal(left[name], right[name]) for name in left.columns)
    for left, right in zip(first.dataset.train_histories(), second.dataset.train_histories(), strict=True):
        assert np.array_equal(left, right)
    assert torch.equal(first.dataset.item_popularity(), second.dataset.item_popularity())
    trains = [prepared.loaders[0]._dataset for prepared in (first, second)]
    assert trains[0].item_counter == trains[1].item_counter and trains[0].user_counter == trains[1].user_counter
    assert (trains[0].inter_matrix(form="csr") != trains[1].inter_matrix(form="csr")).nnz == 0
    for (name, left), right in zip(trained.model.state_dict().items(), trained_too.model.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    assert trained.best_valid_result != trained_too.best_valid_result
