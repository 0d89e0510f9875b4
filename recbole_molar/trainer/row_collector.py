"""RecBole's collector of what its metrics read, at a cost that grows with the rows alone."""

import copy
from collections import defaultdict

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.trainer.rows import Rows
from recbole.evaluator import Collector

TOPK = "rec.topk"
OF_EACH_ROW = (TOPK, "rec.meanrank", "rec.score", "rec.items", "data.label")


class RowCollector(Collector):
    """Adds each batch's rows to a block that grows; RecBole's copies all earlier rows with each batch, which for a million users is most of the time."""

    def __init__(self, config):
        super().__init__(config)
        self._rows = defaultdict(Rows)

    def eval_batch_collect(self, scores, interaction, positive_u, positive_i, ranks=None):
        """RecBole's; where the ranks are known, `rec.topk` is read off them.

        Args:
            scores (Tensor): [B, N]; interaction, positive_u, positive_i: as RecBole's.
            ranks (Tensor, optional): of the one positive item of each row, 1 is best, and the number of ties with it: [B, 2].
        """
        if ranks is not None and not any(self.register.need(name) for name in OF_EACH_ROW if name != TOPK):
            if self.register.need(TOPK):
                self._rows[TOPK].append(self._hits(scores, positive_i, ranks))
            return
        super().eval_batch_collect(scores, interaction, positive_u, positive_i)
        for name in OF_EACH_ROW:
            if name in self.data_struct:
                self._rows[name].append(self.data_struct[name])
                del self.data_struct[name]

    def _hits(self, scores, positive_i, ranks):
        """1 where the positive item stands among the first k, and in the last column: [B, k + 1]. Among ties torch's order decides, as in RecBole."""
        k = max(self.topk)
        rank, ties = ranks[:, 0], ranks[:, 1]
        hits = torch.zeros(len(ranks), k + 1, dtype=torch.long)
        hits[:, k] = 1
        known = ((rank <= k) & (ties == 0)).nonzero()[:, 0]
        hits[known, rank[known] - 1] = 1
        unknown = ((rank <= k) & (ties > 0)).nonzero()[:, 0]
        if len(unknown):
            here = unknown.to(scores.device)
            first = scores[here].topk(k, dim=1).indices  # [U, k]
            hits[unknown, :k] = (first == positive_i.to(scores.device)[here, None]).long().cpu()
        return hits

    def get_data_struct(self):
        """All that was collected, the rows on the CPU; the next evaluation begins without any. RecBole's takes counts for tensors and fails."""
        found = copy.copy(self.data_struct)
        found._data_dict = dict(self.data_struct._data_dict)
        for name, rows in self._rows.items():
            found[name] = rows.all()
        self._rows.clear()
        return found
