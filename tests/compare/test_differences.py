"""What `compare` hands to its statistics: which model against which, corrected over all; each was seen to fail where that is changed."""

import numpy as np
import pytest
from test_comparison import compare, finished  # noqa: F401
from test_statistics import differ

from recbole_molar.compare.comparison import _differences
from recbole_molar.compare.statistics import holm


def test_differences_are_against_the_reference_and_corrected_over_all_of_them():
    random, metrics = np.random.default_rng(0), ["recall@10", "ndcg@10"]
    users = {label: {metric: (random.random((2, 400)) < share).astype(float) for metric in metrics} for label, share in (("z", 0.3), ("b", 0.36), ("a", 0.33))}
    found = _differences(users, "z", metrics)
    assert [(one["model"], one["metric"]) for one in found] == [(label, metric) for label in ("b", "a") for metric in metrics]
    for one in found:
        alone = differ(users[one["model"]][one["metric"]], users["z"][one["metric"]])
        assert [one[key] for key in ("mean", "relative", "low", "high", "p", "effect")] == pytest.approx(
            [alone.mean, alone.relative, alone.low, alone.high, alone.p, alone.effect])  # fmt: skip
        assert one["mean"] > 0
    assert [one["p_holm"] for one in found] == pytest.approx(holm([one["p"] for one in found])) and found[0]["p_holm"] > found[0]["p"]


@pytest.mark.parametrize("column", ["user", "item"])
def test_ranks_of_other_users_or_items_are_refused(compare, finished, tmp_path, column):  # noqa: F811
    file = next((tmp_path / "saved" / "tiny").glob("SASRec-*/ranks.npz"))
    with np.load(file) as ranks:
        columns = dict(ranks)
    columns[column] = np.r_[columns[column][1:], ["another"]]
    np.savez(file, **columns)
    code, _, err = compare(**finished)
    assert code == 2 and "hold other users or test items" in err
