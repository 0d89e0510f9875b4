"""Molar: content embeddings of items, an LLM over them for the user, and late alignment with an ID model (arXiv 2412.18176)."""

import math

import torch
from torch import nn
from tqdm import tqdm

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import FIRST_TARGET, TARGET_INDEX, TIME_GAPS
from recbole_molar.lookup import find_class
from recbole_molar.model.alignment import alignment_loss
from recbole_molar.model.all_positions import sample_negatives, target_indices, trim_and_target
from recbole_molar.model.item_adapter import ItemAdapter, ItemScaling
from recbole_molar.model.loss import bce_loss, ce_loss
from recbole_molar.model.sequential_recommender.base import MIRMRecommender
from recbole_molar.model.sequential_recommender.ease import SetScores
from recbole_molar.processes import bar_off, gathered, n_processes, of_whole_batch, own_part

MOST_TEACHER_BYTES = 2**31  # of what distillation reads, kept for all training positions; beyond, the ID model computes it in each epoch


class Molar(MIRMRecommender):
    """The recommender of stage 2: table of item embeddings -> DUEG -> scores, with the post-alignment loss.

    Args:
        config (Config), dataset (HistoryDataset): as for every RecBole model.
        item_table (Tensor): [n_items, D_mirm], MIRM's embeddings, row 0 zeros.
        user_decoder (nn.Module): the first layers of the MLLM's decoder, for DUEG.
        id_model (IDModel, optional): None where neither the alignment (`align_weight`), the distillation (`distill_weight`) nor the late fusion of
            scores (`score_fusion_weight`) wants it.
        id_dim (int, optional): dimension of E_id; where it is not D (the paper makes them equal), a linear map leads to D.
        mirm (MIRM, optional): trained by the recommendation loss too (`item_encoding: end_to_end`); None keeps the table fixed.
    """

    stages = "recbole_molar.stages"  # what comes before it: see quick_start
    never_decays = ("item_id_residual", "gap_vectors")
    rates = {**MIRMRecommender.rates, "user_encoder.decoder.": "dueg_learning_rate"}

    def __init__(self, config, dataset, item_table, user_decoder, id_model=None, id_dim=None, mirm=None):
        item_table = item_table.float()
        scaling = ItemScaling(config["item_standardize"], item_table)
        super().__init__(config, dataset, scaling(item_table) if mirm is None else item_table, mirm)
        self.scaling = nn.Identity() if mirm is None else scaling  # a fixed table is scaled once, above
        self.rec_loss, self.n_negatives = config["rec_loss"], config["nce_negatives"]
        self.cosine, self.align_weight, self.align_temperature = config["score_function"] == "cosine", config["align_weight"], config["align_temperature"]
        scale, dim = config["item_content_scale"], user_decoder.config.hidden_size
        self.content_scale = 1.0 if scale is None else scale
        adapter = ItemAdapter(config["item_adapter"], item_table.size(1), dim, config["item_adapter_size"], config["item_dropout"])
        self.item_adapter = adapter if self.content_scale else None  # made either way: what is drawn after it is the same with and without content
        self.item_id_residual = nn.Embedding(self.n_items, dim, padding_idx=0) if config["item_id_residual"] else None
        encoder = find_class(config["user_encoder"], "model.user_encoder", key="user_encoder")
        options = {key: config[key] for key in encoder.option_keys() if key in config}
        self.user_encoder = encoder.build(dim, decoder=user_decoder, max_length=self.max_seq_length, **options)
        self.gap_vectors = nn.Embedding.from_pretrained(torch.zeros(TIME_GAPS, dim), freeze=False) if config["history_time_gaps"] else None
        if self.gap_vectors is not None:
            self.register_buffer("time_gaps", dataset.time_gaps(), persistent=False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config["score_temperature"])), requires_grad=self.rec_loss == "nce")
        self.id_model, self.id_users, self.teacher_users = id_model, None, None
        self.distill_weight, self.fusion_weight = config["distill_weight"] or 0.0, config["score_fusion_weight"] or 0.0
        self.ease_weight, self.ease = config["ease_fusion_weight"] or 0.0, None
        if self.ease_weight:
            self.ease = SetScores(dataset, config["ease_reg_weight"])
        self.aligns = id_model is not None and self.align_weight > 0
        self.id_projection = nn.Linear(id_dim, dim, bias=False) if self.aligns and id_dim != dim else nn.Identity()
        if self.item_id_residual is not None:
            self._start_id_vectors()
        self.loss_names = ("rec", *(["align"] if self.aligns else []), *(["id"] if id_model is not None and id_model.trains else []))

    @torch.no_grad()
    def _start_id_vectors(self):
        """At zero, so that content alone tells items apart at first; without content at random, as SASRec's item embeddings."""
        weight = self.item_id_residual.weight
        weight.zero_() if self.content_scale else weight[1:].normal_(std=0.02)

    # ------------------------------------------------------------ the picture

    def item_embeddings(self, mirm_table=None, items=None):
        """Item embeddings from MIRM's table, the adapter and (if switched on) the ID residual.

        Args:
            mirm_table (Tensor, optional): [N, D_mirm]; None takes the model's own.
            items (Tensor, optional): internal ids, [U]; None takes the whole catalogue.

        Returns:
            Tensor: [U, D], or [N, D].
        """
        residual = None
        if self.item_id_residual is not None:
            residual = self.item_id_residual.weight if items is None else self.item_id_residual(items)
        if self.item_adapter is None:
            return residual
        content = self.scaling(self.mirm_table if mirm_table is None else mirm_table)
        content = self.item_adapter(content if items is None else content[items]) * self.content_scale
        return content if residual is None else content + residual

    def history(self, item_seq, table, gaps=None):
        """See :class:`MIRMRecommender`; to each item the vector of the time since the one before it."""
        items = super().history(item_seq, table)
        return items if gaps is None else items + self.gap_vectors(gaps).to(items.dtype)

    def gaps(self, interaction, length):
        """See :class:`MIRMRecommender`; what stands behind a history has any. The target's own time is in none of them."""
        if self.gap_vectors is None:
            return None
        places = (interaction[TARGET_INDEX] - interaction[self.ITEM_SEQ_LEN])[:, None] + torch.arange(length, device=self.time_gaps.device)
        return self.time_gaps[places.clamp(max=len(self.time_gaps) - 1)].long()

    def calculate_loss(self, interaction):
        """Parts of L_total = L_rec + α · L_align, each already weighted, as a tuple in the order of `loss_names`."""
        batch, targets = trim_and_target(interaction, self)
        item_seq, item_seq_len, first = batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN], batch[FIRST_TARGET]
        negatives, read = self._draw_negatives(targets), None
        mirm_table = self.fresh_table(item_seq, targets, negatives)
        if negatives is not None:  # the loss reads few items of the catalogue: the adapter is for them alone
            read, (item_seq, targets, negatives) = numbered_anew(item_seq, targets, negatives)
        table = self.item_embeddings(mirm_table, read)  # [N, D], or [U, D]
        user = self.user_embeddings(item_seq, item_seq_len, first, table, self.gaps(batch, item_seq.size(1)))  # E_con, [M, D]
        rec = self._next_item_loss(user, table, targets, negatives, self._teacher(batch))
        content_user = user[(item_seq_len - first).cumsum(0) - 1]  # at the last position of each row, [B, D]
        align = (self.align_weight * self._post_alignment(interaction, content_user),) if self.aligns else ()
        return (rec, *align, *self._id_loss(interaction))

    def n_targets(self, interaction):
        """Positions of a batch; those of the ID model's loss, where it trains too, as that model counts them."""
        return [(self.id_model if name == "id" else super(Molar, self)).n_targets(interaction) for name in self.loss_names]

    # ----------------------------------------------------------------- losses

    def _draw_negatives(self, targets):
        if self.rec_loss == "bce":
            return sample_negatives(targets, self.n_items)  # [M]
        if self.rec_loss == "nce":
            return self.shared_negatives()
        return None

    def _teacher(self, batch):
        """What the cross-entropy distils from, see :func:`ce_loss`: the ID model at every position, as late fusion adds its scores at the last one."""
        if not self.distill_weight:
            return None
        item_seq, item_seq_len, first = batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN], batch[FIRST_TARGET]
        if self.teacher_users is None:
            users = self.id_model.all_users(item_seq, item_seq_len, first)
        else:
            users = self.teacher_users[target_indices(batch[TARGET_INDEX], item_seq_len, item_seq.size(1), first)]
        return users, self.id_model.item_embeddings(), self.distill_weight

    def _next_item_loss(self, user, table, targets, negatives, teacher):
        if self.rec_loss == "bce":
            user, table = self._scored(user, table)
            return bce_loss(user, table[targets], table[negatives])
        if self.rec_loss == "nce":
            return self.nce(user, table, targets, negatives)
        return ce_loss(*self._scored(user, table), targets, teacher=teacher)

    def _scored(self, user, table):
        """See :class:`MIRMRecommender`; or the embeddings as they are (the paper)."""
        return super()._scored(user, table) if self.cosine or self.rec_loss == "nce" else (user, table)

    def _post_alignment(self, interaction, content_user):
        id_user = self.id_model(interaction) if self.id_users is None else self.id_users[self._id_row[interaction[TARGET_INDEX]]]
        id_user, content_user, user_ids = map(of_whole_batch, (self.id_projection(id_user), content_user, interaction[self.USER_ID]))
        return alignment_loss(id_user, content_user, self.align_temperature, user_ids)

    def _id_loss(self, interaction):
        return (self.id_model.calculate_loss(interaction),) if "id" in self.loss_names else ()

    # ---------------------------------------------------- hooks of the trainer

    @torch.no_grad()
    def before_training(self, train_data, trainer):
        """A frozen ID model gives the same in each epoch: compute once, for all training rows, what alignment and distillation read of it."""
        rows = train_data._dataset.inter_feat
        if self.aligns and not self.id_model.trains:
            self._keep_id_users(rows)
        if self.distill_weight:
            self._keep_teacher(rows, torch.bfloat16 if trainer.accelerator.mixed_precision == "bf16" else torch.float32)

    def _keep_id_users(self, rows):
        """After each row's whole history, [rows, D_id]."""
        starts = own_part(range(0, len(rows), 256))
        parts = [self.id_model(rows[[0]].to(self.device))[:0]]  # a process may have nothing else
        for start in tqdm(starts, desc="ID user embeddings", leave=False, disable=bar_off()):
            parts.append(self.id_model(rows[slice(start, start + 256)].to(self.device)))
        self.id_users = gathered(torch.cat(parts))  # [rows, D_id]
        self._id_row = torch.zeros(int(rows[TARGET_INDEX].max()) + 1, dtype=torch.long, device=self.device)
        self._id_row[rows[TARGET_INDEX].to(self.device)] = torch.arange(len(rows), device=self.device)

    def _keep_teacher(self, rows, dtype):
        """At each position, by its target's index, [interactions, D_id], where that is not too much."""
        size, dim = int(rows[TARGET_INDEX].max()) + 1, self.id_model.item_embeddings().size(1)
        if size * dim * dtype.itemsize > MOST_TEACHER_BYTES:
            return
        self.teacher_users = torch.zeros(size, dim, dtype=dtype, device=self.device)
        places = [torch.zeros(0, dtype=torch.long, device=self.device)]  # as above
        for start in tqdm(own_part(range(0, len(rows), 256)), desc="teacher", leave=False, disable=bar_off()):
            batch, _ = trim_and_target(rows[slice(start, start + 256)].to(self.device), self)
            item_seq, item_seq_len, first = batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN], batch[FIRST_TARGET]
            places.append(target_indices(batch[TARGET_INDEX], item_seq_len, item_seq.size(1), first))
            self.teacher_users[places[-1]] = self.id_model.all_users(item_seq, item_seq_len, first).to(dtype)
        if n_processes() > 1:
            own = torch.cat(places)
            self.teacher_users[gathered(own)] = gathered(self.teacher_users[own])

    def is_saved(self, name):
        """Nor is the frozen ID model, which has a file of its own, nor what EASE has by a formula."""
        return super().is_saved(name) and not (name.startswith("id_model.") and not self.id_model.trains) and not name.startswith("ease.")

    # -------------------------------------------------------------- prediction

    def full_sort_predict(self, interaction):
        """Scores of all items, fp32: [B, n_items]; with late fusion the ID model's are added, and EASE's.

        Molar's and the ID model's are logits of a softmax over the catalogue where both were trained by cross-entropy: their sum multiplies the two
        distributions.
        """
        scores = super().full_sort_predict(interaction)
        if self.fusion_weight:
            scores = scores + self.fusion_weight * self.id_model.full_sort_predict(interaction).view_as(scores)
        return scores + self.ease_weight * self.ease(interaction) if self.ease_weight else scores

    def predict(self, interaction):
        """Scores of the given items: [B]."""
        scores = super().predict(interaction)
        if self.fusion_weight:
            scores = scores + self.fusion_weight * self.id_model.predict(interaction)
        return scores + self.ease_weight * self.ease(interaction).gather(1, interaction[self.ITEM_ID][:, None])[:, 0] if self.ease_weight else scores


def numbered_anew(*ids):
    """Items by their place among those that occur.

    Args:
        *ids (Tensor): internal ids, of any shape.

    Returns:
        tuple: the items that occur, [U], in order, first the padding; a list of `ids` with their places there.
    """
    items, places = torch.cat([ids[0].new_zeros(1), *(part.flatten() for part in ids)]).unique(return_inverse=True)
    parts = places[1:].split([part.numel() for part in ids])
    return items, [part.view_as(given) for part, given in zip(parts, ids, strict=True)]
