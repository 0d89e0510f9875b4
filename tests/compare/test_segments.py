"""Users and items by kind."""

from dataclasses import replace

import numpy as np
import pytest

from recbole_molar.compare.per_user import Ranks
from recbole_molar.compare.segments import Audience, gini, popularity_parts
from recbole_molar.config import Config


def test_each_part_holds_a_third_of_the_interactions():
    popularity = np.array([0, 30, 10, 10, 10, 1, 29])
    parts = popularity_parts(popularity)
    assert parts[0] == 0 and [popularity[parts == part].sum() for part in (1, 2, 3)] == [21, 39, 30]
    assert parts[1] == 3 and parts[5] == 1
    assert popularity_parts(np.array([0, 10, 90])).tolist() == [0, 1, 3]  # an item of more than a third


def test_gini_by_hand():
    assert gini(np.array([5, 5, 5])) == 0 and gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75) and gini(np.zeros(3)) == 0


def test_beyond_accuracy_by_hand():
    audience = Audience.__new__(Audience)
    audience.items, audience.popularity = np.array(["[PAD]", "a", "b", "c", "d"]), np.array([0, 4, 2, 2, 0])
    top = np.array([[1, 2], [1, 3]])  # indexes into the run's own items: a, c and a, b
    ranks = Ranks(*[np.array(["u", "v"])] * 2, *[np.zeros(2, int)] * 2, top, np.array(["[PAD]", "a", "c", "b", "d"]))
    found = audience.beyond_accuracy(ranks, 2)
    padded = replace(ranks, top=np.array([[1, 2, 0], [1, 3, 0]]))
    assert audience.beyond_accuracy(padded, 3) == {name.replace("2", "3"): value for name, value in found.items()}  # places without a candidate
    assert found["coverage@2"] == 0.75 and found["novelty@2"] == pytest.approx((2 * 1 + 2 + 2) / 4)
    assert found["gini@2"] == pytest.approx(gini(np.array([2, 1, 1, 0])))


def test_segments_come_from_training_interactions_only(make_data, flags):
    make_data(n_users=80, images=True)
    audience = Audience(Config(config_dict=flags()))
    users = np.array([user for user, length in audience.history.items() if length >= 2])
    targets = np.array([f"i{index % 30}" for index in range(len(users))])
    axes = audience.segments(Ranks(users, targets, *[np.zeros(len(users), int)] * 2, None, None))
    assert list(axes["picture of the test item"]) == ["there"] and axes["picture of the test item"]["there"].all()  # the rest has fewer than 30
    assert sum(chosen.sum() for chosen in axes["history"].values()) <= len(users) and len(axes["history"]) >= 1
    lengths = np.array(list(audience.history.values())) + 1
    assert audience.popularity.sum() == (lengths - np.clip(lengths - 2, 0, 2)).sum()
