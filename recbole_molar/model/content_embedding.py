"""Item embeddings made from features, in the place of an ID embedding: one table for each modality, standardised, joined and adapted."""

import contextlib

import torch
from torch import nn

from recbole_molar.model.item_adapter import ItemAdapter, standardize


class ContentEmbedding(nn.Module):
    """Answers `(ids)` and `.weight` as `nn.Embedding` does, so that a model of IDs becomes one of content without a change.

    Args:
        tables (list): float [n_items, D_m] for each modality; a row of zeros (the padding's, and that of an item without it) is no feature.
        dim (int): H, width of the model.
        adapter (str), adapter_size (int), dropout (float): of :class:`ItemAdapter`.
        standardized (bool): zero mean and unit variance in each dimension over the items that have the modality.
        saved (bool): the tables change in training, and belong into a checkpoint.
    """

    def __init__(self, tables, dim, adapter="mlp", adapter_size=256, dropout=0.0, standardized=True, saved=False):
        super().__init__()
        for place, table in enumerate(tables):
            self.register_buffer(f"table_{place}", table.float(), persistent=saved)
        self.n_tables, self.standardized = len(tables), standardized
        self.adapter = ItemAdapter(adapter, sum(table.size(1) for table in tables), dim, adapter_size, dropout)
        self._kept = None

    @property
    def tables(self):
        """The tables of features, a list."""
        return [getattr(self, f"table_{place}") for place in range(self.n_tables)]

    def features(self, tables=None):
        """All features of each item, [n_items, sum of D_m]."""
        return torch.cat([self._scaled(table) for table in (tables or self.tables)], dim=1)

    def _scaled(self, table):
        known = table.detach().any(1)
        return standardize(table, known) if self.standardized and known.any() else table

    def compute(self, tables=None):
        """Embeddings of all items, [n_items, H]; zeros for the padding. `tables`: others than its own, with gradients."""
        adapted = self.adapter(self.features(tables))
        return torch.cat([torch.zeros_like(adapted[:1]), adapted[1:]])

    @property
    def weight(self):
        """Embeddings of all items, [n_items, H]."""
        return self.compute() if self._kept is None else self._kept

    def forward(self, ids):
        """Embeddings of items: [...] -> [..., H]."""
        return self.weight[ids]

    @contextlib.contextmanager
    def computed_once(self, tables=None):
        """While inside, histories and targets share one computation (and one draw of dropout), of `tables` where given."""
        before, self._kept = self._kept, self.compute(tables)
        try:
            yield
        finally:
            self._kept = before

    def keep(self):
        """Compute the embeddings for all that comes before the next change of mode."""
        self._kept = self.compute()

    def train(self, mode=True):
        """Training makes kept embeddings stale."""
        self._kept = None
        return super().train(mode)
