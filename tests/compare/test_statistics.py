"""Tests of the differences between models."""

import numpy as np
import pytest

from recbole_molar.compare.statistics import bootstrap, difference, holm


def differ(a, b):
    drawn = bootstrap(np.concatenate([a, b]))
    return difference(a, b, drawn[:, : len(a)], drawn[:, len(a) :])


def hits(random, share, seeds=3, users=2000):
    return (random.random((seeds, users)) < share).astype(float)


def test_a_known_better_model_is_found_better():
    random = np.random.default_rng(0)
    found = differ(hits(random, 0.35), hits(random, 0.30))
    assert found.mean > 0.03 and found.p < 0.01 and 0 < found.low < found.mean < found.high and found.effect > 0
    back = differ(hits(np.random.default_rng(0), 0.30), hits(np.random.default_rng(1), 0.35))
    assert back.mean < 0 and back.p < 0.01 and back.high < 0 and back.relative == pytest.approx(back.mean / 0.35, rel=0.1)


def test_p_of_one_seed_is_that_of_the_paired_t_test():
    from scipy.stats import ttest_rel

    random = np.random.default_rng(1)
    a, b = hits(random, 0.32, seeds=1), hits(random, 0.30, seeds=1)
    assert differ(a, b).p == pytest.approx(ttest_rel(a[0], b[0]).pvalue, rel=1e-6)


def test_chance_is_called_a_difference_as_rarely_as_the_p_value_says():
    random = np.random.default_rng(2)
    found = [differ(hits(random, 0.3, seeds=2, users=300), hits(random, 0.3, seeds=2, users=300)) for _ in range(60)]
    assert sum(one.p < 0.05 for one in found) <= 8  # 3 are expected; more than 8 by chance once in 300 times
    assert sum(one.low <= 0 <= one.high for one in found) >= 50


def test_seeds_that_disagree_make_a_difference_less_sure():
    random = np.random.default_rng(3)
    noise = 0.01 * random.random((2, 1000))
    steady = differ(np.array([[0.32], [0.32]]) + noise, np.full((2, 1000), 0.30) + noise[::-1])
    shaky = differ(np.array([[0.22], [0.42]]) + noise, np.full((2, 1000), 0.30) + noise[::-1])
    assert steady.mean == pytest.approx(shaky.mean, abs=1e-9) and steady.p < 1e-3 < 0.5 < shaky.p
    assert shaky.low < 0 < shaky.high and steady.low > 0


def test_equal_models_and_a_constant_difference():
    same = np.tile(np.arange(10.0), (2, 1))
    assert differ(same, same).p == 1.0 and differ(same, same).mean == 0
    assert differ(same[:1] + 1, same[:1]).p == 0.0


def test_bootstrap_draws_the_same_users_for_all_rows():
    rows = np.random.default_rng(4).random((1, 50)).repeat(2, axis=0)
    drawn = bootstrap(rows, resamples=20)
    assert drawn.shape == (20, 2) and np.allclose(drawn[:, 0], drawn[:, 1]) and drawn[:, 0].std() > 0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.02]) == [0.02]


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_interval_says_what_p_says(seeds):
    """Seeds that differ widen it as they raise p: with two drawn anew it would miss what is true once in four times."""
    random = np.random.default_rng(5)
    found = []
    for _ in range(200):
        a, b = (np.clip(0.3 + 0.01 * random.standard_normal((seeds, 1)), 0, 1) + 0.05 * random.standard_normal((seeds, 400)) for _ in range(2))
        found.append(differ(a, b))
    assert all((one.p < 0.05) == (not one.low <= 0 <= one.high) for one in found if abs(one.p - 0.05) > 0.02)
    if seeds > 1:
        assert sum(one.low <= 0 <= one.high for one in found) >= 180


def test_one_user_tells_nothing():
    assert differ(np.ones((1, 1)), np.zeros((1, 1))).p == 1.0 == differ(np.array([[0.9], [1.0]]), np.zeros((2, 1))).p
