"""EASE: the closed form solves its least squares; whole histories are read, nothing after them (tests/test_leak.py has its training)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_molar_runs import SMALL

from recbole_molar.__main__ import main
from recbole_molar.config import Config
from recbole_molar.model.sequential_recommender import ease
from recbole_molar.model.sequential_recommender.ease import EASE, item_weights
from recbole_molar.property_error import PropertyError
from recbole_molar.quick_start import prepare


def histories(seed=0, n_users=40, n_items=12):
    random = np.random.default_rng(seed)
    return [1 + random.permutation(n_items - 1)[: random.integers(2, n_items - 1)] for _ in range(n_users)]


def test_the_weights_solve_the_least_squares():
    """Column by column, the ridge regression on all other items."""
    found, n_items, reg_weight = histories(), 12, 3.0
    x = np.zeros((len(found), n_items))
    for user, items in enumerate(found):
        x[user, items] = 1
    weights = item_weights(found, n_items, reg_weight).numpy()
    for item in range(1, n_items):
        others = [other for other in range(1, n_items) if other != item]
        ridge = np.linalg.solve(x[:, others].T @ x[:, others] + reg_weight * np.eye(len(others)), x[:, others].T @ x[:, item])
        np.testing.assert_allclose(weights[others, item], ridge, atol=1e-5)
    assert not weights.diagonal().any() and not weights[0].any() and not weights[:, 0].any()


def test_an_item_had_twice_counts_once():
    found = histories()
    torch.testing.assert_close(item_weights([np.concatenate([one, one[:1]]) for one in found], 12, 1.0), item_weights(found, 12, 1.0))


def prepared_model(make_data, flags, **options):
    make_data()
    config = Config(config_dict=flags(model="EASE", **options))
    prepared = prepare(config)
    return EASE(config, prepared.loaders[0]._dataset), prepared


def test_all_of_a_history_is_read_and_nothing_after_it(make_data, flags):
    """Beyond MAX_ITEM_LIST_LENGTH too; at the test the validation item is history."""
    model, prepared = prepared_model(make_data, flags, MAX_ITEM_LIST_LENGTH=2)
    dataset = prepared.dataset
    for loader, held_out in zip(prepared.loaders[1:], (2, 1)):
        rows = loader._dataset.inter_feat
        scores = model.full_sort_predict(rows)
        for place, target in enumerate(rows["target_index"].tolist()):
            user = np.searchsorted(dataset.user_starts, target, side="right") - 1
            assert dataset.user_ends[user] - target == held_out
            had = sorted(set(dataset.sorted_items[dataset.user_starts[user] : target].tolist()))
            torch.testing.assert_close(scores[place], model.scores.weights[had].sum(0))
        torch.testing.assert_close(model.predict(rows), scores.gather(1, rows["item_id"][:, None])[:, 0])
    assert scores.std() > 0


def test_too_many_items_are_refused(make_data, flags, monkeypatch, command_line, capsys):
    """Before Molar's stages."""
    monkeypatch.setattr(ease, "MOST_ITEMS", 5)
    with pytest.raises(PropertyError, match="model=EASE: EASE has a weight for each pair of items, and 31 items are too many. Valid: at most 5"):
        prepared_model(make_data, flags)
    make_data(items=True)
    given = flags(**{**SMALL, "item_modalities": "[text]", "ease_fusion_weight": 4})
    assert main(["run", *command_line(given)]) == 2
    assert "ease_fusion_weight=4: EASE has a weight" in capsys.readouterr().err and not Path(given["output_dir"]).exists()


def test_as_a_command(make_data, flags, command_line, capsys):
    make_data()
    assert main(["run", *command_line(flags(model="EASE"))]) == 0
    assert main(["run", *command_line(flags(**{**SMALL, "ease_fusion_weight": -1}))]) == 2
    assert "ease_fusion_weight=-1: must be a number of at least 0, or ~ for 0." in capsys.readouterr().err
