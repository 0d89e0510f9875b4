"""Metrics of each user, from ranks."""

import numpy as np
import pytest

from recbole_molar.compare.per_user import Ranks, read_ranks, user_metric


def ranks_of(rank, ties=None):
    n = len(rank)
    ids = np.array([f"u{index}" for index in range(n)])
    return Ranks(ids, ids, np.array(rank), np.zeros(n, int) if ties is None else np.array(ties), np.zeros((n, 1), int), np.array(["[PAD]"]))


def test_metrics_by_hand():
    ranks = ranks_of([1, 3, 10, 11])
    assert user_metric(ranks, "recall@10").tolist() == [1, 1, 1, 0] and user_metric(ranks, "Hit@3").tolist() == [1, 1, 0, 0]
    assert user_metric(ranks, "ndcg@10") == pytest.approx([1, 1 / 2, 1 / np.log2(11), 0])
    assert user_metric(ranks, "mrr@5") == pytest.approx([1, 1 / 3, 0, 0])


def test_a_tie_counts_as_the_mean_over_its_places():
    ranks = ranks_of([1, 2], ties=[19, 1])
    assert user_metric(ranks, "recall@10") == pytest.approx([0.5, 1]) and user_metric(ranks, "recall@2") == pytest.approx([0.1, 0.5])
    assert user_metric(ranks, "mrr@10")[1] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_unknown_metrics_are_refused():
    for name in ("itemcoverage@10", "ndcg", "ndcg@x"):
        with pytest.raises(ValueError, match="not one of recall@k"):
            user_metric(ranks_of([1]), name)


def test_ranks_are_read_in_the_order_of_users_and_never_unpickled(tmp_path):
    columns = dict(user=np.array(["b", "a"]), item=np.array(["y", "x"]), rank=np.array([2, 1]), ties=np.array([0, 0]), items=np.array(["p", "x", "y"]))
    np.savez(tmp_path / "good.npz", **columns, top=np.array([[2], [1]]))
    ranks = read_ranks(tmp_path / "good.npz")
    assert ranks.user.tolist() == ["a", "b"] and ranks.item.tolist() == ["x", "y"] and ranks.top.tolist() == [[1], [2]] and ranks.items[0] == "p"
    np.savez(tmp_path / "old.npz", **columns)
    np.savez(tmp_path / "object.npz", **{**columns, "user": np.array(["b", object()], dtype=object)}, top=np.array([[2], [1]]))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04rubbish")
    for name in ("old", "object", "broken", "missing"):
        with pytest.raises(ValueError, match=f"{name}.npz: no readable ranks"):
            read_ranks(tmp_path / f"{name}.npz")
