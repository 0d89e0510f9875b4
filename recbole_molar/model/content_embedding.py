"""Item embeddings made from features, in the place of an ID embedding: one table for each modality, scaled, joined and adapted."""

import contextlib

import torch
from torch import nn

from recbole_molar.model.item_adapter import ItemAdapter, scaled, scaling_of


class ContentEmbedding(nn.Module):
    """Answers `(ids)` and `.weight` as `nn.Embedding` does, so that a model of IDs becomes one of content without a change.

    Args:
        tables (list): float [n_items, D_m] for each modality; a row of zeros (the padding's, and that of an item without it) is no feature.
        dim (int): H, width of the model.
        adapter (str), adapter_size (int), dropout (float): of :class:`ItemAdapter`.
        scaling (str): see :func:`scaling_of`; found from these tables, and kept when rows are encoded anew.
        saved (bool): the tables change in training, and belong into a checkpoint.
    """

    def __init__(self, tables, dim, adapter="mlp", adapter_size=256, dropout=0.0, scaling="whiten", saved=False):
        super().__init__()
        self.n_tables = len(tables)
        for place, table in enumerate(tables):
            mean, product = scaling_of(table.float(), scaling)
            self.register_buffer(f"mean_{place}", mean, persistent=saved)
            self.register_buffer(f"product_{place}", product, persistent=saved)
            self.register_buffer(f"table_{place}", self.scaled(place, table.float()), persistent=saved)
        self.adapter = ItemAdapter(adapter, sum(table.size(1) for table in tables), dim, adapter_size, dropout)
        self._kept = None

    @property
    def tables(self):
        """The tables of scaled features, a list of [n_items, D_m]."""
        return [getattr(self, f"table_{place}") for place in range(self.n_tables)]

    def scaled(self, place, rows):
        """Features of some items, scaled as the table of this place is: [N, D_m] -> [N, D_m]; zeros stay."""
        return scaled(rows, getattr(self, f"mean_{place}"), getattr(self, f"product_{place}"))

    def compute(self, tables=None):
        """Embeddings of all items, [n_items, H]; zeros for the padding. `tables`: others than its own, with gradients."""
        adapted = self.adapter(torch.cat(tables or self.tables, dim=1))
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
        """Compute the embeddings for all that comes before the next training."""
        self._kept = self.compute()

    def train(self, mode=True):
        """Training makes kept embeddings stale; RecBole's repeated eval() does not."""
        self._kept = None if mode else self._kept
        return super().train(mode)
