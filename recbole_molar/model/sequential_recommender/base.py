"""What Molar, HLLM and CoLLM share: a table of MIRM's item embeddings, fixed or trained, below a user encoder that reads all positions at once."""

import functools
import math
from logging import getLogger

import torch
import torch.nn.functional as F

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import count_targets
from recbole_molar.model.all_positions import of_all_positions, valid_positions
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.model.item_encoder import encoded_anew, some_items
from recbole_molar.model.like_lengths import parts_of_like_lengths
from recbole_molar.model.loss import nce_loss
from recbole_molar.processes import from_main
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType

MIN_TEMPERATURE = 0.01  # of a learned one, as in CLIP


class MIRMRecommender(SequentialRecommender):
    """Base of the models whose items MIRM reads. Subclasses set `user_encoder` (UserEncoder) and `log_temperature` (scalar), and have
    `calculate_loss`.

    Args:
        config (Config), dataset (HistoryDataset): as for every RecBole model.
        item_table (Tensor): [n_items, D_mirm], MIRM's embeddings, row 0 zeros.
        mirm (MIRM, optional): trained by the recommendation loss too (`item_encoding: end_to_end`); None keeps the table fixed.
    """

    input_type = InputType.POINTWISE
    trains_all_positions = True
    supports_autocast = True
    never_decays = ()  # first part of the names of matrices without weight decay
    rates = {"mirm.": "mirm_learning_rate"}  # first part of a parameter's name -> the property with its learning rate; ~ there: learning_rate

    def __init__(self, config, dataset, item_table, mirm=None):
        super().__init__(config, dataset)
        self.mirm = mirm
        self.end_to_end_items, self.recompute_items = config["end_to_end_items"], config["gradient_checkpointing"]
        # Trained end to end, rows outside the last batches are stale: a resumed run must find them as they were.
        self.register_buffer("mirm_table", item_table.float(), persistent=mirm is not None)
        self._eval_table = None

    def item_embeddings(self, mirm_table=None):
        """Item embeddings of the whole catalogue, [N, D], out of MIRM's table, [N, D_mirm]."""
        return self.mirm_table if mirm_table is None else mirm_table

    def history(self, item_seq, table, gaps=None):
        """What the user encoder reads, [B, L, D]: item_seq [B, L] out of table [N, D]; gaps [B, L] as :meth:`gaps` gives them."""
        return table[item_seq]

    def gaps(self, interaction, length):
        """Times between the items of histories, [B, length], where the model reads them; else None."""

    def forward(self, item_seq, item_seq_len, table=None, gaps=None):
        """User embeddings at every position, and the item embeddings that they are scored against.

        Args:
            item_seq (Tensor): [B, L], right-padded; item_seq_len (Tensor): [B]; table (Tensor, optional): [N, D], if at hand; gaps: see :meth:`history`.

        Returns:
            tuple: user embeddings [B, L, D], item embeddings [N, D].
        """
        table = self.item_embeddings() if table is None else table  # [N, D]
        user = self.user_encoder(self.history(item_seq, table, gaps), item_seq_len)  # [B, L, D]
        return user, table

    def fresh_table(self, item_seq, targets, negatives):
        """MIRM's table for a training step that reads these items (negatives may be None), [N, D_mirm].

        It is fixed, or has the batch's own items encoded anew, with gradients; each item once, `end_to_end_items` at most.
        """
        if self.mirm is None:
            return self.mirm_table
        items = some_items((item_seq, targets, negatives), self.end_to_end_items)
        return encoded_anew(functools.partial(self.mirm.encode_items, recompute=self.recompute_items), self.mirm_table, items)

    def user_embeddings(self, item_seq, item_seq_len, first, table, gaps=None):
        """User embeddings at all M valid positions in row order, see :func:`valid_positions`: [M, D]."""

        def read(item_seq, lengths, first, gaps=None):
            return self.forward(item_seq, lengths, table, gaps)[0][valid_positions(lengths, item_seq.size(1), first)]

        return of_all_positions(read, item_seq, item_seq_len, first, *(() if gaps is None else (gaps,)))

    def shared_negatives(self):
        """`nce_negatives` items for a whole batch, drawn uniformly, the same for all processes: [K]."""
        return from_main(torch.randint(1, self.n_items, (self.n_negatives,), device=self.device))

    def nce(self, user, table, targets, negatives):
        """:func:`nce_loss` of user embeddings [M, D], items [M] and shared negatives [K]; its learned temperature is held at 0.01 or more.

        The parameter itself is held, not what is made of it: beyond a clamp it would have no gradient that brings it back.
        """
        with torch.no_grad():
            self.log_temperature.clamp_(min=math.log(MIN_TEMPERATURE))
        return nce_loss(user, table[targets], table[negatives], targets, negatives, self.log_temperature)

    def _scored(self, user, table):
        """User and item embeddings whose dot product is the score: here cosine over a temperature."""
        return F.normalize(user.float(), dim=-1) * torch.exp(-self.log_temperature), F.normalize(table.float(), dim=-1)

    # ---------------------------------------------------- hooks of the trainer

    def n_targets(self, interaction):
        """Positions of a batch that count."""
        return count_targets(interaction, self.ITEM_SEQ_LEN)

    @torch.no_grad()
    def before_evaluation(self, trainer):
        """Bring the item embeddings up to date once for all batches of an evaluation."""
        if self.mirm is not None:
            self.mirm_table = ItemEmbedding().fill(self.mirm, trainer.accelerator).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            self._eval_table = self.item_embeddings().detach()  # a parameter set here would be taken into checkpoints

    def train(self, mode=True):
        """Training makes the table of the last evaluation stale; RecBole's repeated eval() does not."""
        self._eval_table = None if mode else self._eval_table
        return super().train(mode)

    def parameter_groups(self, config):
        """AdamW groups: weight decay on matrices only, and parts with a learning rate of their own (`rates`)."""
        groups = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                own = (key for part, key in self.rates.items() if name.startswith(part) and config[key] is not None)
                decays = parameter.dim() > 1 and not name.startswith(self.never_decays)
                groups.setdefault((next(own, "learning_rate"), decays), []).append(parameter)
        decay = {True: config["weight_decay"], False: 0.0}
        if not groups:
            getLogger().warning("nothing in this model is trained")
        return [{"params": parameters, "lr": config[rate], "weight_decay": decay[decays]} for (rate, decays), parameters in groups.items()]

    def is_saved(self, name):
        """Checkpoints leave out what another file holds: of MIRM what is not trained."""
        return not name.startswith("mirm.") or name in self._trained_of_mirm

    @functools.cached_property
    def _trained_of_mirm(self):
        return {f"mirm.{name}" for name, value in self.mirm.named_parameters() if value.requires_grad}

    # -------------------------------------------------------------- prediction

    def user_embedding(self, interaction):
        """The user embedding after the whole history and the item embeddings: [B, D], [N, D]."""
        table = self.item_embeddings() if self._eval_table is None else self._eval_table
        item_seq, item_seq_len = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        gaps, user = self.gaps(interaction, item_seq.size(1)), table.new_empty(len(item_seq), table.size(1))
        with torch.autocast(self.device.type, enabled=False):
            for rows in parts_of_like_lengths(item_seq_len):
                lengths, longest = item_seq_len[rows], int(item_seq_len[rows].max())
                history = self.history(item_seq[rows, :longest], table, None if gaps is None else gaps[rows, :longest])
                user[rows] = self.user_encoder.last(history, lengths)
        return user, table

    def full_sort_predict(self, interaction):
        """Scores of all items, fp32: [B, n_items]."""
        user, table = self._scored(*self.user_embedding(interaction))
        return user @ table.T

    def predict(self, interaction):
        """Scores of the given items: [B]."""
        user, table = self._scored(*self.user_embedding(interaction))
        return (user * table[interaction[self.ITEM_ID]]).sum(-1)
