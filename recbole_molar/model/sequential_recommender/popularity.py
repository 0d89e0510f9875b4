"""Popularity: every user gets the items with the most training interactions."""

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType


class Popularity(SequentialRecommender):
    """The floor under every table. Counts training interactions only; nothing is learned.

    Args:
        config (Config), dataset (HistoryDataset): as for every RecBole model.
    """

    input_type = InputType.POINTWISE
    trains_all_positions = True

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.popularity = torch.nn.Parameter(dataset.item_popularity().float(), requires_grad=False)

    def calculate_loss(self, interaction):
        """Zero: there is nothing to train."""
        return torch.zeros((), device=self.device, requires_grad=True)

    def predict(self, interaction):
        """Popularity of the given items: [B]."""
        return self.popularity[interaction[self.ITEM_ID]]

    def full_sort_predict(self, interaction):
        """Popularity of all items for each user: [B, n_items]."""
        return self.popularity.expand(len(interaction[self.ITEM_SEQ]), -1).clone()
