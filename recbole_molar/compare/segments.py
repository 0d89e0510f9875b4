"""Users and items by kind, from training interactions only, and what a model recommends beyond accuracy.

Shape letters: U users, K places of a ranking, N items.
"""

from pathlib import Path

import numpy as np

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.item_content import find_images
from recbole_molar.utils import create_dataset

PARTS = ("tail", "middle", "head")  # each holds a third of the training interactions
MIN_USERS = 30  # below, a segment's figure says nothing


class Audience:
    """What is known of users and items before a model speaks.

    Args:
        config (Config): of any run of the comparison: its data set and filter.
    """

    def __init__(self, config):
        dataset = create_dataset(config, all_positions=True)
        dataset.build()
        self.split_hash = dataset.split_hash()
        tokens = {field: np.asarray(dataset.field2id_token[field]).astype(str) for field in (dataset.uid_field, dataset.iid_field)}
        self.items = tokens[dataset.iid_field]  # [N], row 0 is padding
        self.popularity = dataset.item_popularity().numpy()  # [N], training interactions
        lengths = dataset.user_ends - dataset.user_starts
        self.history = dict(zip(tokens[dataset.uid_field][dataset.user_ids].tolist(), (lengths - 1).tolist()))
        try:
            self.pictured = set(find_images(Path(config["data_path"]) / (config["item_image_dir"] if "item_image_dir" in config else "images"), self.items[1:]))
        except ValueError:  # no pictures, or none that fits
            self.pictured = set()

    def segments(self, ranks):
        """Users by kind.

        Args:
            ranks (Ranks): of any run.

        Returns:
            dict: axis -> {segment: bool [U]}; segments of fewer than 30 users are left out.
        """
        row = {item: index for index, item in enumerate(self.items.tolist())}
        target = np.array([row[item] for item in ranks.item.tolist()])
        history = np.array([self.history[user] for user in ranks.user.tolist()])
        low, high = np.floor(np.quantile(history, [1 / 3, 2 / 3]))
        part = popularity_parts(self.popularity)[target]
        axes = {
            "test item": {"cold (not in training)": self.popularity[target] == 0, **{name: part == index + 1 for index, name in enumerate(PARTS)}},
            "history": {
                f"short (up to {low:.0f})": history <= low, f"medium (up to {high:.0f})": (history > low) & (history <= high),
                f"long (over {high:.0f})": history > high,
            },
        }
        if self.pictured:
            pictured = np.array([item in self.pictured for item in ranks.item.tolist()])
            axes["picture of the test item"] = {"there": pictured, "missing": ~pictured}
        return {axis: {name: users for name, users in parts.items() if users.sum() >= MIN_USERS} for axis, parts in axes.items()}

    def beyond_accuracy(self, ranks, k):
        """Coverage, novelty and Gini index of the first k items of all rankings.

        Returns:
            dict: `coverage@k`, share of the catalogue that is recommended to anybody; `novelty@k`, mean self-information −log2 p of a
            recommended item, p its share of the training interactions (an item without any counts as one); `gini@k`, 0 where all items
            are recommended alike, near 1 where a few get all.
        """
        row = {item: index for index, item in enumerate(self.items.tolist())}
        place = np.array([row[item] for item in ranks.items.tolist()])  # a run's index -> ours
        shown = np.bincount(place[ranks.top[:, :k]].ravel(), minlength=len(self.items))[1:]  # [N - 1]
        share = np.maximum(self.popularity[1:], 1) / max(1, self.popularity.sum())
        return {
            f"coverage@{k}": float((shown > 0).mean()), f"novelty@{k}": float((shown * -np.log2(share)).sum() / shown.sum()), f"gini@{k}": gini(shown),
        }


def popularity_parts(popularity):
    """0 for an item without a training interaction, else 1 (tail), 2 or 3 (head): each part holds a third of the interactions. [N] -> [N].

    Items stand in the order of their popularity, and one that lies across a border belongs where its last interaction does.
    """
    order = np.argsort(popularity, kind="stable")
    last = np.cumsum(popularity[order]) - 1
    parts = np.empty(len(popularity), dtype=np.int64)
    parts[order] = 1 + np.maximum(0, 3 * last // max(1, popularity.sum()))
    return np.where(popularity > 0, parts, 0)


def gini(counts):
    """Gini index of counts [N]: 0 where all are equal, (N − 1) / N where one has all."""
    counts = np.sort(counts)
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum())) if counts.sum() else 0.0
