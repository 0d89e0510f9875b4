"""RecBole's collector of what its metrics read, at a cost that grows with the rows alone."""

import copy
from collections import defaultdict

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole.evaluator import Collector

OF_EACH_ROW = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")


class RowCollector(Collector):
    """Keeps each batch's rows apart until all are there; RecBole's copies all earlier rows with each batch, which for a million users is most of the time."""

    def __init__(self, config):
        super().__init__(config)
        self._batches = defaultdict(list)

    def eval_batch_collect(self, *args):
        """RecBole's."""
        super().eval_batch_collect(*args)
        for name in OF_EACH_ROW:
            if name in self.data_struct:
                self._batches[name].append(self.data_struct[name].cpu())
                del self.data_struct[name]

    def get_data_struct(self):
        """All that was collected, the rows on the CPU; the next evaluation begins without any. RecBole's takes counts for tensors and fails."""
        found = copy.copy(self.data_struct)
        found._data_dict = dict(self.data_struct._data_dict)
        for name, rows in self._batches.items():
            found[name] = torch.cat(rows)
        self._batches.clear()
        return found
