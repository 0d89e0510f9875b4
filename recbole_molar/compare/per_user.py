"""Metrics of each user from the ranks that a run keeps. Shape letters: U users, S seeds."""

import zipfile
from dataclasses import dataclass

import numpy as np

GAINS = {  # metric -> gain of one target at rank r (from 1), within the first k
    "recall": np.ones_like,
    "hit": np.ones_like,
    "ndcg": lambda rank: 1 / np.log2(rank + 1),
    "mrr": lambda rank: 1 / rank,
    "map": lambda rank: 1 / rank,
}


@dataclass
class Ranks:
    """One run's ranking of each user's test item.

    Args:
        user, item (ndarray of str [U]): ids, sorted by user; rank (int [U]): from 1; ties (int [U]): other items at the same score.
        top (int [U, K]): the first items of each ranking, as indexes into `items` (ndarray of str [n_items]).
    """

    user: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    ties: np.ndarray
    top: np.ndarray
    items: np.ndarray


def read_ranks(path):
    """Read `ranks.npz`.

    Raises:
        ValueError: missing, damaged, or written before rankings were kept.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in ("user", "item", "rank", "ties", "top", "items")}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no readable ranks ({error}). Delete its run folder, and the model is run again.") from error
    order = np.argsort(columns["user"], kind="stable")
    return Ranks(**{name: column if name == "items" else column[order] for name, column in columns.items()})


def user_metric(ranks, metric):
    """A metric such as `ndcg@10` for each user, float64 [U].

    A target that shares its score with others gets the mean over the places that it could take among them, so that a model that
    scores all items alike is no better than chance.

    Raises:
        ValueError: a metric that is not one of a single target's rank.
    """
    name, _, k = metric.lower().partition("@")
    if name not in GAINS or not k.isdigit():
        raise ValueError(f"metric {metric}: not one of {', '.join(f'{known}@k' for known in GAINS)}.")
    places = np.arange(1, int(k) + 1, dtype=np.float64)
    total = np.r_[0.0, np.cumsum(GAINS[name](places))]  # [k + 1], gains of the first r places
    first, last = np.minimum(ranks.rank - 1, int(k)), np.minimum(ranks.rank + ranks.ties, int(k))
    return (total[last] - total[first]) / (ranks.ties + 1)
