"""DuoRec: SASRec with two contrasts between user embeddings, by dropout and by common targets (Qiu et al., WSDM 2022, arXiv 2110.05730)."""

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import FIRST_TARGET, TARGET_INDEX, padded_rows
from recbole_molar.model.all_positions import target_indices
from recbole_molar.model.fused_layers import last_layer_at
from recbole_molar.model.like_lengths import parts_of_like_lengths
from recbole_molar.model.loss import ce_loss
from recbole_molar.processes import of_whole_batch, own_part
from recbole.model.sequential_recommender.sasrec import SASRec

CONTRASTS = ("un", "su", "us", "us_x")


class DuoRec(SASRec):
    """RecBole's SASRec, whose user embeddings are spread out by contrastive regularisation.

    Two views of a history beside the first: itself under other dropout, and another training history with the same next item. `contrast`
    says which pairs are drawn together, as in the authors' code: `un` the first and its dropout view (weight `lmd`), `su` the first and
    the same-target history (`lmd_sem`), `us` both, `us_x` the dropout view and the same-target history (`lmd_sem`; the paper's). Negatives
    are the other embeddings of both views in the batch. Where all positions of a history are trained at once, `contrast_rows` of a
    batch's positions take part, drawn anew each time; in prefix training a row is a position. So a batch holds few users, with many
    histories each, where the authors' hold as many as rows: histories of one user are no negatives of each other (but for `same_user_negatives`).

    Args:
        config (Config), dataset (HistoryDataset): as for every RecBole model; same-target histories come from training interactions only.
    """

    reads_all_positions = False  # see AllPositions, as the next
    low_precision_products = False
    loss_names = ("rec", "contrast")

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        if config["contrast"] not in CONTRASTS:
            raise ValueError(f"contrast={config['contrast']}: unknown. Valid: {', '.join(CONTRASTS)}.")
        if config["sim"] not in ("dot", "cos"):
            raise ValueError(f"sim={config['sim']}: unknown. Valid: dot, cos.")
        self.contrast, self.dropout_weight, self.same_target_weight = config["contrast"], config["lmd"], config["lmd_sem"]
        self.temperature, self.cosine, self.contrast_rows = config["tau"], config["sim"] == "cos", config["contrast_rows"]
        self.same_user_negatives = config["same_user_negatives"]
        self.dataset = dataset

    @cached_property
    def histories(self):
        """Made once it trains: a try-out, or an ID model that is loaded, needs none."""
        return SameTargetHistories(self.dataset)

    def calculate_loss(self, interaction):
        """SASRec's loss and the weighted contrast: two scalars. In evaluation mode, where dropout has no views, SASRec's alone."""
        if not self.training:
            return super().calculate_loss(interaction)
        item_seq, item_seq_len, targets = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], interaction[self.POS_ITEM_ID]
        first = self.forward(item_seq, item_seq_len)  # [M, H]; M = B in prefix training
        chosen = torch.randperm(len(first), device=first.device)[: self._own_contrast_rows()]  # [K]
        chosen_targets = self._target_indices(interaction)[chosen]
        owners = torch.from_numpy(self.dataset.first_of_user)[chosen_targets.cpu()].to(self.device)  # where each user's interactions begin
        first_chosen, view, same_target = (first[chosen], owners), None, None  # user embeddings [K, H] and whose they are [K]
        if self.contrast != "su":
            view = self.forward(item_seq, item_seq_len)[chosen], owners
        if self.contrast != "un":
            same_target = self._same_target(chosen_targets)
        first_chosen, view, same_target = (side and tuple(map(of_whole_batch, side)) for side in (first_chosen, view, same_target))
        pairs = {
            "un": [(self.dropout_weight, first_chosen, view)],
            "su": [(self.same_target_weight, first_chosen, same_target)],
            "us": [(self.dropout_weight, first_chosen, view), (self.same_target_weight, first_chosen, same_target)],
            "us_x": [(self.same_target_weight, view, same_target)],
        }[self.contrast]
        contrast = sum(weight * contrast_loss(one, other, self.temperature, self.cosine, self.same_user_negatives) for weight, one, other in pairs)
        return self._next_item_loss(first, targets, interaction), contrast

    def _own_contrast_rows(self):
        """How many of the contrast's rows this process draws among its own positions."""
        return max(1, len(own_part(range(self.contrast_rows))))

    def _next_item_loss(self, user, targets, interaction):
        if self.loss_type == "BPR":
            positive, negative = (self.item_embedding(items) for items in (targets, interaction[self.NEG_ITEM_ID]))
            return self.loss_fct((user * positive).sum(-1), (user * negative).sum(-1))
        with torch.autocast(user.device.type, dtype=torch.bfloat16, enabled=self.low_precision_products):
            return ce_loss(user, self.item_embedding.weight, targets, first=0)

    def _target_indices(self, interaction):
        """Index of each position's target among the sorted interactions: [M]."""
        last, lengths = interaction[TARGET_INDEX], interaction[self.ITEM_SEQ_LEN]
        if not self.reads_all_positions:
            return last
        return target_indices(last, lengths, interaction[self.ITEM_SEQ].size(1), interaction[FIRST_TARGET])

    def _same_target(self, targets):
        """User embeddings [K, H] of other training histories with the same targets, those of like lengths read together; whose they are [K]."""
        item_seq, lengths, owners = (tensor.to(self.device) for tensor in self.histories.draw(targets, self.max_seq_length))
        users, parts = [], parts_of_like_lengths(lengths)
        everywhere, self.reads_all_positions = self.reads_all_positions, False
        try:
            for rows in parts:
                each, counts = torch.arange(len(rows), device=self.device)[:, None], lengths[rows]
                with last_layer_at(self, (each, counts[:, None] - 1)):
                    users.append(self.forward(item_seq[rows, : int(counts.max())], counts))
        finally:
            self.reads_all_positions = everywhere
        return torch.cat(users)[torch.cat(parts).argsort()], owners


class SameTargetHistories:
    """Draws training histories by their next item.

    Args:
        dataset (HistoryDataset): its training part.
    """

    def __init__(self, dataset):
        if dataset.all_positions:
            histories = zip(dataset.user_starts, dataset.train_histories(), strict=True)
            indices = np.concatenate([np.arange(start + 1, start + len(history)) for start, history in histories])
        else:  # each row has one target; which rows are for training is not to be told from the histories where eval_args splits by ratio
            indices = dataset.inter_feat[TARGET_INDEX].numpy()
        self.items, self.first_of_user = dataset.sorted_items, torch.from_numpy(dataset.first_of_user)  # [all interactions]
        targets = torch.from_numpy(indices)  # each user's training interactions but the first
        self.by_item = targets[self.items[targets].argsort(stable=True)]  # [T]
        self.counts = torch.bincount(self.items[targets], minlength=dataset.item_num)  # [n_items]
        self.starts = self.counts.cumsum(0) - self.counts
        self.place = torch.zeros(len(self.items), dtype=torch.long)
        self.place[self.by_item] = torch.arange(len(self.by_item))

    def draw(self, target_indices, max_length):
        """Another history for each target; the same one where there is no other.

        Args:
            target_indices (Tensor [K]): among the sorted interactions; max_length (int): items of a history, its last ones.

        Returns:
            tuple of Tensors: histories [K, longest], padded on the right; lengths [K]; owners [K], where each user's interactions begin. On the CPU.
        """
        target_indices = target_indices.cpu()
        items = self.items[target_indices]
        others = self.counts[items] - 1
        own = self.place[target_indices] - self.starts[items]
        drawn = (torch.rand(len(items)) * others).long()
        drawn = torch.where(others > 0, drawn + (drawn >= own), own)
        found = self.by_item[self.starts[items] + drawn]
        begins = torch.maximum(self.first_of_user[found], found - max_length)
        lengths = found - begins
        return padded_rows(self.items, begins.numpy(), lengths.numpy(), int(lengths.max())), lengths, self.first_of_user[found]


def contrast_loss(one, other, temperature, cosine, same_user=False):
    """NT-Xent over two views of K rows: each of the 2 K embeddings finds its partner among those of other users.

    Args:
        one, other (tuple of Tensors): user embeddings [K, H]; owners [K], equal where the user is.
        same_user (bool): among all others instead.

    Returns:
        Tensor: mean over 2 K; log(2 K − 1) when all embeddings are equal and all users different.
    """
    both, owners = (torch.cat(sides) for sides in zip(one, other, strict=True))  # [2 K, H], [2 K]
    both = F.normalize(both.float(), dim=-1) if cosine else both.float()
    places = torch.arange(len(both), device=both.device)
    owners, partner = places if same_user else owners, places.roll(len(both) // 2)
    own = (owners[:, None] == owners).scatter(1, partner[:, None], False)  # itself, and the user's other histories but the partner
    return F.cross_entropy((both @ both.T / temperature).masked_fill(own, float("-inf")), partner)
