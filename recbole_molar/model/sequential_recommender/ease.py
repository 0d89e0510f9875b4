"""EASE: a weight for each pair of items in closed form; a user's scores are the sums over all that they have had (Steck, WWW 2019, arXiv 1905.03375)."""

import logging

import numpy as np
import scipy.sparse
import torch
from torch import nn

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import TARGET_INDEX
from recbole_molar.property_error import bad_value
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType

REG_WEIGHT = 300.0
MOST_ITEMS = 20_000  # 1.5 GiB of weights, twice that in float64 to find them, and some five minutes on one core
FLOPS = 2.5e10  # float64, of one core; finding the weights of n items takes n³


class EASE(SequentialRecommender):
    """A linear autoencoder of the history as a set: it knows no order, and all of a history, however long, counts alike.

    Weak where the next item follows from the last ones, and so by itself; but it has what models of order lack, and its scores
    added to theirs lift them (Molar's `ease_fusion_weight`). Nothing is learned step by step.

    Args:
        config (Config): with `ease_reg_weight`, λ, None for :data:`REG_WEIGHT`.
        dataset (HistoryDataset): its training part, from whose training interactions alone the weights come.

    Raises:
        PropertyError: more items than :data:`MOST_ITEMS`.
    """

    input_type = InputType.POINTWISE
    trains_all_positions = True

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        check_size("model", "EASE", self.n_items)
        self.scores = SetScores(dataset, config["ease_reg_weight"])

    def calculate_loss(self, interaction):
        """Zero: there is nothing to train."""
        return torch.zeros((), device=self.device, requires_grad=True)

    def predict(self, interaction):
        """Scores of the given items: [B]."""
        return self.scores(interaction).gather(1, interaction[self.ITEM_ID][:, None])[:, 0]

    def full_sort_predict(self, interaction):
        """Scores of all items, most between 0 and 1: [B, n_items]."""
        return self.scores(interaction)


class SetScores(nn.Module):
    """EASE's weights, and the scores that they give.

    Args:
        dataset (HistoryDataset): its training part; reg_weight (float, optional): λ, above 0, default :data:`REG_WEIGHT`.
    """

    def __init__(self, dataset, reg_weight):
        super().__init__()
        self.dataset = dataset
        self.register_buffer("weights", item_weights(dataset.train_histories(), dataset.item_num, reg_weight or REG_WEIGHT))  # [n_items, n_items]

    def forward(self, interaction):
        """Batch of rows, by their column `target_index` -> the sum of the weights of each item before the target, each counted once: [B, n_items]."""
        rows, items = self.dataset.seen_before(interaction[TARGET_INDEX])
        had = torch.zeros(len(interaction), len(self.weights))
        had[rows, items] = 1.0
        return had.to(self.weights.device) @ self.weights


def item_weights(histories, n_items, reg_weight):
    """B = I − P · diag(P)⁻¹ with P = (XᵀX + λI)⁻¹: the weights, without any from an item to itself, that give X back with the least squares.

    Args:
        histories (list of int array): items of each user, from 1; n_items (int): the padding, 0, among them; reg_weight (float): λ.

    Returns:
        Tensor: float32 [n_items, n_items], from row to column; 0 from and to an item that no history has.
    """
    logging.getLogger().info("EASE: a weight for each pair of %s items, about %.0f s on one core", f"{n_items - 1:,}", n_items**3 / FLOPS + 1)
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    items = np.concatenate(histories)
    x = scipy.sparse.csr_matrix((np.ones(len(items)), (users, items)), shape=(len(histories), n_items))
    x.data[:] = 1.0  # an item had twice counts once
    gram = torch.from_numpy((x.T @ x).toarray())
    gram.diagonal().add_(reg_weight)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    return (-inverse / inverse.diagonal()).fill_diagonal_(0.0).float()


def check_size(key, value, n_items):
    """Find out before anything is trained whether EASE can have so many items, for the property that asks for it.

    Raises:
        PropertyError: it cannot.
    """
    if n_items > MOST_ITEMS:
        raise bad_value(key, value, f"EASE has a weight for each pair of items, and {n_items:,} items are too many. Valid: at most {MOST_ITEMS:,}.")
