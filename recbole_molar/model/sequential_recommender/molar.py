"""Molar: content embeddings of items, an LLM over them for the user, and late alignment with an ID model (arXiv 2412.18176)."""

import functools
import math
from logging import getLogger

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.lookup import find_class
from recbole_molar.model.alignment import alignment_loss
from recbole_molar.model.all_positions import sample_negatives, trim_and_target, valid_positions
from recbole_molar.model.like_lengths import parts_of_like_lengths
from recbole_molar.model.item_adapter import ItemAdapter, standardize
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.model.item_encoder import encoded_anew, some_items
from recbole_molar.model.loss import bce_loss, ce_loss, nce_loss
from recbole_molar.processes import bar_off, from_main, gathered, of_whole_batch, own_part
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType



class Molar(SequentialRecommender):
    """The recommender of stage 2: table of item embeddings -> DUEG -> scores, with the post-alignment loss.

    Args:
        config (Config), dataset (HistoryDataset): as for every RecBole model.
        item_table (Tensor): [n_items, D_mirm], MIRM's embeddings, row 0 zeros.
        user_decoder (nn.Module): the first layers of the MLLM's decoder, for DUEG.
        id_model (IDModel, optional): None leaves the alignment out (`align_weight: 0`).
        id_dim (int, optional): dimension of E_id; where it is not D (the paper makes them equal), a linear map leads to D.
        mirm (MIRM, optional): trained by the recommendation loss too (`item_encoding: end_to_end`); None keeps the table fixed.
    """

    stages = "recbole_molar.stages"  # what comes before it: see quick_start
    input_type = InputType.POINTWISE
    trains_all_positions = True
    supports_autocast = True

    def __init__(self, config, dataset, item_table, user_decoder, id_model=None, id_dim=None, mirm=None):
        super().__init__(config, dataset)
        self.mirm = mirm
        self.rec_loss, self.n_negatives = config["rec_loss"], config["nce_negatives"]
        self.cosine, self.align_weight, self.align_temperature = config["score_function"] == "cosine", config["align_weight"], config["align_temperature"]
        self.end_to_end_items, self.recompute_items = config["end_to_end_items"], config["gradient_checkpointing"]
        self.standardize = config["item_standardize"]
        dim = user_decoder.config.hidden_size
        # Trained end to end, rows outside the last batches are stale: a resumed run must find them as they were.
        self.register_buffer("mirm_table", item_table.float(), persistent=mirm is not None)
        self.item_adapter = ItemAdapter(config["item_adapter"], item_table.size(1), dim, config["item_adapter_size"], config["item_dropout"])
        self.item_id_residual = nn.Embedding(self.n_items, dim, padding_idx=0) if config["item_id_residual"] else None
        encoder = find_class(config["user_encoder"], "model.user_encoder", key="user_encoder")
        options = {key: config[key] for key in encoder.option_keys() if key in config}
        self.user_encoder = encoder.build(dim, decoder=user_decoder, max_length=self.max_seq_length, **options)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config["score_temperature"])), requires_grad=self.rec_loss == "nce")
        self.id_model, self.id_users = id_model, None
        self.id_projection = nn.Linear(id_dim, dim, bias=False) if id_dim not in (None, dim) else nn.Identity()
        if self.item_id_residual is not None:
            nn.init.zeros_(self.item_id_residual.weight)
        self.loss_names = ("rec",) if id_model is None else ("rec", "align", "id") if id_model.trains else ("rec", "align")
        self._eval_table = None

    # ------------------------------------------------------------ the picture

    def forward(self, item_seq, item_seq_len, table=None):
        """User embeddings at every position, and the item embeddings that they are scored against.

        Args:
            item_seq (Tensor): [B, L], right-padded; item_seq_len (Tensor): [B]; table (Tensor, optional): [N, D], if at hand.

        Returns:
            tuple: E_con [B, L, D], item embeddings [N, D].
        """
        table = self.item_embeddings() if table is None else table  # [N, D]
        history = table[item_seq]  # [B, L, D]
        user = self.user_encoder(history, item_seq_len)  # [B, L, D]
        return user, table

    def item_embeddings(self, mirm_table=None):
        """Item embeddings of the whole catalogue, [N, D], from MIRM's table, the adapter and (if switched on) the ID residual."""
        table = self.mirm_table if mirm_table is None else mirm_table
        table = self.item_adapter(standardize(table) if self.standardize else table)
        return table if self.item_id_residual is None else table + self.item_id_residual.weight

    def calculate_loss(self, interaction):
        """Parts of L_total = L_rec + α · L_align, each already weighted, as a tuple in the order of `loss_names`."""
        batch, targets = trim_and_target(interaction, self)
        item_seq, item_seq_len = batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN]
        negatives = self._draw_negatives(targets)
        table = None if self.mirm is None else self.item_embeddings(self._fresh_table(item_seq, targets, negatives))
        user, content_user, table = self._user_embeddings(item_seq, item_seq_len, table)
        rec = self._next_item_loss(user, table, targets, negatives)
        if self.id_model is None:
            return (rec,)
        return (rec, self.align_weight * self._post_alignment(interaction, content_user), *self._id_loss(interaction))

    def n_targets(self, interaction):
        """Positions of a batch; those of the ID model's loss, where it trains too, as that model counts them."""
        positions = int(interaction[self.ITEM_SEQ_LEN].sum())
        return [self.id_model.n_targets(interaction) if name == "id" else positions for name in self.loss_names]

    def _user_embeddings(self, item_seq, item_seq_len, table):
        """E_con at all M valid positions in row order, [M, D], at the last one of each row, [B, D], and the item embeddings."""
        table = self.item_embeddings() if table is None else table
        valid = valid_positions(item_seq_len, item_seq.size(1))  # [B, L]
        place = valid.flatten().cumsum(0).view(valid.shape) - 1  # of each position among the valid ones
        users, places = [], []
        for rows in parts_of_like_lengths(item_seq_len):
            lengths = item_seq_len[rows]
            longest = int(lengths.max())
            user, _ = self.forward(item_seq[rows, :longest], lengths, table)
            users.append(user[valid[rows, :longest]])
            places.append(place[rows, :longest][valid[rows, :longest]])
        user = torch.cat(users)[torch.cat(places).argsort()]  # [M, D]
        return user, user[item_seq_len.cumsum(0) - 1], table

    # ----------------------------------------------------------------- losses

    def _draw_negatives(self, targets):
        if self.rec_loss == "bce":
            return sample_negatives(targets, self.n_items)  # [M]
        if self.rec_loss == "nce":
            return from_main(torch.randint(1, self.n_items, (self.n_negatives,), device=targets.device))  # [K], the same for all processes
        return None

    def _next_item_loss(self, user, table, targets, negatives):
        if self.rec_loss == "bce":
            user, table = self._scored(user, table)
            return bce_loss(user, table[targets], table[negatives])
        if self.rec_loss == "nce":
            return nce_loss(user, table[targets], table[negatives], targets, negatives, self.log_temperature)
        return ce_loss(*self._scored(user, table), targets)

    def _scored(self, user, table):
        """User and item embeddings whose dot product is the score: cosine over a temperature, or as they are (the paper)."""
        if not (self.cosine or self.rec_loss == "nce"):
            return user, table
        return F.normalize(user.float(), dim=-1) * torch.exp(-self.log_temperature), F.normalize(table.float(), dim=-1)

    def _post_alignment(self, interaction, content_user):
        id_user = self.id_model(interaction) if self.id_users is None else self.id_users[self._id_row[interaction["target_index"]]]
        id_user, content_user, user_ids = map(of_whole_batch, (self.id_projection(id_user), content_user, interaction[self.USER_ID]))
        return alignment_loss(id_user, content_user, self.align_temperature, user_ids)

    def _id_loss(self, interaction):
        return (self.id_model.calculate_loss(interaction),) if self.id_model.trains else ()

    # ------------------------------------------------------------ end to end

    def _fresh_table(self, item_seq, targets, negatives):
        """MIRM's table with the batch's own items encoded anew, with gradients; each item once, `end_to_end_items` at most."""
        items = some_items((item_seq, targets, negatives), self.end_to_end_items)
        return encoded_anew(functools.partial(self.mirm.encode_items, recompute=self.recompute_items), self.mirm_table, items)

    # ---------------------------------------------------- hooks of the trainer

    @torch.no_grad()
    def before_training(self, train_data, trainer):
        """A frozen ID model's user embeddings are the same in each epoch: compute those of all training rows once."""
        if self.id_model is None or self.id_model.trains:
            return
        rows = train_data._dataset.inter_feat
        starts = own_part(range(0, len(rows), 256))
        parts = [self.id_model(rows[[0]].to(self.device))[:0]]  # a process may have nothing else
        for start in tqdm(starts, desc="ID user embeddings", leave=False, disable=bar_off()):
            parts.append(self.id_model(rows[slice(start, start + 256)].to(self.device)))
        self.id_users = gathered(torch.cat(parts))  # [rows, D_id]
        self._id_row = torch.zeros(int(rows["target_index"].max()) + 1, dtype=torch.long, device=self.device)
        self._id_row[rows["target_index"].to(self.device)] = torch.arange(len(rows), device=self.device)

    @torch.no_grad()
    def before_evaluation(self, trainer):
        """Bring the item embeddings up to date once for all batches of an evaluation."""
        if self.mirm is not None:
            self.mirm_table = ItemEmbedding().fill(self.mirm, trainer.accelerator, self.mirm.encode_batch_size).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            self._eval_table = self.item_embeddings()

    def train(self, mode=True):
        """Training makes the table of the last evaluation stale; RecBole's repeated eval() does not."""
        self._eval_table = None if mode else self._eval_table
        return super().train(mode)

    def parameter_groups(self, config):
        """AdamW groups: weight decay on matrices only, MIRM at its own learning rate."""
        groups = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                of_mirm, decays = name.startswith("mirm."), parameter.dim() > 1 and not name.startswith("item_id_residual")
                groups.setdefault((of_mirm, decays), []).append(parameter)
        rates = {True: config["mirm_learning_rate"], False: config["learning_rate"]}
        decay = {True: config["weight_decay"], False: 0.0}
        if not groups:
            getLogger().warning("nothing in this model is trained")
        return [{"params": parameters, "lr": rates[of_mirm], "weight_decay": decay[decays]} for (of_mirm, decays), parameters in groups.items()]

    def is_saved(self, name):
        """Checkpoints leave out what another file holds: the frozen ID model, and of MIRM what its tuning does not train."""
        if name.startswith("mirm."):
            return name in self._trained_of_mirm
        return not (name.startswith("id_model.") and not self.id_model.trains)

    @functools.cached_property
    def _trained_of_mirm(self):
        return {f"mirm.{name}" for name, value in self.mirm.named_parameters() if value.requires_grad}

    # -------------------------------------------------------------- prediction

    def user_embedding(self, interaction):
        """E_con after the whole history and the item embeddings: [B, D], [N, D]."""
        table = self.item_embeddings() if self._eval_table is None else self._eval_table
        item_seq, item_seq_len = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        user = table.new_empty(len(item_seq), table.size(1))
        with torch.autocast(self.device.type, enabled=False):
            for rows in parts_of_like_lengths(item_seq_len):
                lengths = item_seq_len[rows]
                user[rows] = self.user_encoder.last(table[item_seq[rows, : int(lengths.max())]], lengths)
        return user, table

    def full_sort_predict(self, interaction):
        """Scores of all items, fp32: [B, n_items]."""
        user, table = self._scored(*self.user_embedding(interaction))
        return user @ table.T

    def predict(self, interaction):
        """Scores of the given items: [B]."""
        user, table = self._scored(*self.user_embedding(interaction))
        return (user * table[interaction[self.ITEM_ID]]).sum(-1)
