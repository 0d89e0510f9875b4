"""The ID-based model whose user embeddings the post-alignment loss reads (paper, section 3.4)."""

import contextlib
import inspect

import torch
from torch import nn

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import FIRST_TARGET
from recbole_molar.model.all_positions import in_evaluation, n_targets, of_all_positions
from recbole_molar.model.fused_layers import last_layer_at
from recbole_molar.property_error import bad_value
from recbole.data.interaction import Interaction


class IDModel(nn.Module):
    """Adapter around any RecBole sequential model: gives its user embedding E_id.

    Where the embedding comes from, first match: the model's own `user_embedding(interaction)`; `forward(item_seq,
    item_seq_len)` of models such as SASRec and GRU4Rec; FPMC's two user factors side by side; else the last [B, H] state
    that the model's `full_sort_predict` makes on its way to the scores (BERT4Rec, CORE, …).

    Args:
        model: a RecBole sequential model, trained or to be trained.
        trains (bool): False freezes it.
        max_length (int, optional): of the histories that it will be given. Where it cannot read as many items it gets the last of them.
    """

    def __init__(self, model, trains, max_length=None):
        super().__init__()
        self.model = model
        self.trains = trains
        self.length = None if max_length is None or _reads(model, max_length) else model.max_seq_length
        if not trains:
            model.requires_grad_(False).eval()

    def train(self, mode=True):
        """A frozen ID model stays in evaluation mode."""
        return super().train(mode and self.trains)

    def forward(self, interaction):
        """User embedding after the whole history: batch of rows -> [B, D_id].

        Raises:
            PropertyError: this model keeps its user embedding to itself.
        """
        with torch.set_grad_enabled(self.trains and torch.is_grad_enabled()):
            return self._read(self._user_embedding, interaction)

    def _read(self, function, interaction):
        readable = self._readable(interaction)
        with contextlib.nullcontext() if readable is interaction else last_layer_at(self.model, None):  # another place is the last one
            return function(readable)

    def _readable(self, interaction):
        """The batch with the last items of histories that are too long for the model."""
        item_seq, lengths = interaction[self.model.ITEM_SEQ], interaction[self.model.ITEM_SEQ_LEN]
        if self.length is None or item_seq.size(1) == self.length:
            return interaction
        kept, columns = lengths.clamp(max=self.length), torch.arange(self.length, device=item_seq.device)
        places = (lengths - kept)[:, None] + columns
        last = item_seq.gather(1, places.clamp(max=item_seq.size(1) - 1)) * (columns < kept[:, None])
        own = {self.model.ITEM_SEQ: last, self.model.ITEM_SEQ_LEN: kept}
        if FIRST_TARGET in interaction.interaction:
            own[FIRST_TARGET] = (interaction[FIRST_TARGET] - (lengths - kept)).clamp(min=0)
        return Interaction({**interaction.interaction, **own})

    def _user_embedding(self, interaction):
        model = self.model
        own = getattr(model, "user_embedding", None)
        if callable(own) and not isinstance(own, nn.Module):  # Caser, HGN, … keep a table of users under this name
            return _checked(own(interaction), model)
        item_seq, item_seq_len = interaction[model.ITEM_SEQ], interaction[model.ITEM_SEQ_LEN]
        if list(inspect.signature(model.forward).parameters) == ["item_seq", "item_seq_len"]:
            return _checked(model.forward(item_seq, item_seq_len), model)
        if hasattr(model, "UI_emb") and hasattr(model, "LI_emb"):  # FPMC
            last = item_seq.gather(1, (item_seq_len - 1)[:, None]).squeeze(1)
            return torch.cat([model.UI_emb(interaction[model.USER_ID]), model.LI_emb(last)], dim=-1)
        return _checked(_last_state(model, interaction), model)

    def item_embeddings(self):
        """Item embeddings of all items, `item_embedding` of the model: [N, D_id].

        Raises:
            PropertyError: it has none.
        """
        table = getattr(getattr(self.model, "item_embedding", None), "weight", None)
        if table is None or len(table) < self.model.n_items:
            raise bad_value("id_model", type(self.model).__name__, "has no table of item embeddings, item_embedding. Take a model such as SASRec or GRU4Rec.")
        return table[: self.model.n_items]  # a mask's row may follow

    @torch.no_grad()
    def all_users(self, item_seq, item_seq_len, first):
        """User embeddings after each valid position, see :func:`valid_positions`, whose products with :meth:`item_embeddings` are the logits of its
        softmax: [B, L], [B], [B] -> [M, D_id]."""
        return of_all_positions(self.model.users_of_all_positions, item_seq, item_seq_len, first)

    def full_sort_predict(self, interaction):
        """The model's own scores of all items."""
        return self._read(self.model.full_sort_predict, interaction)

    def predict(self, interaction):
        """The model's own scores of the given items."""
        return self._read(self.model.predict, interaction)

    def calculate_loss(self, interaction):
        """The model's own loss, for joint training: a scalar, the sum where it has parts."""
        loss = self.model.calculate_loss(self._readable(interaction))
        return sum(loss) if isinstance(loss, tuple) else loss

    def n_targets(self, interaction):
        """See :func:`n_targets`."""
        return n_targets(self.model, self._readable(interaction))[0]


def check_teacher(model, max_length):
    """Find out before a model is trained whether Molar can distil from it; max_length (int): of Molar's histories.

    Raises:
        PropertyError: it cannot.
    """
    if not getattr(model, "plain_cross_entropy", False):
        reason = "is not trained on all positions by the cross-entropy over its items. Take SASRec or GRU4Rec with id_loss_type=CE, or distill_weight=~."
        raise bad_value("id_model", type(model).__name__, reason)
    if not _reads(model, max_length):
        raise bad_value("id_MAX_ITEM_LIST_LENGTH", model.max_seq_length, f"for distill_weight it must read histories of MAX_ITEM_LIST_LENGTH={max_length}.")


@torch.no_grad()
def _reads(model, length):
    """Try whether a model reads a history of so many items: one with a table of positions does not."""
    one = torch.ones(2, dtype=torch.long, device=model.device)
    rows = Interaction({model.USER_ID: one, model.ITEM_SEQ: one[:, None].repeat(1, length), model.ITEM_SEQ_LEN: one * length})
    try:
        with torch.random.fork_rng(devices=[]), in_evaluation(model):
            model.full_sort_predict(rows)
        return True
    except (TypeError, AttributeError, KeyError, NotImplementedError):
        return True  # it reads something else than histories, or scores one item at a time, as DIN
    except (IndexError, RuntimeError):
        return False


class IDModels(nn.Module):
    """Several finished ID models as one: their embeddings side by side, and the mean of their scores, which multiplies their distributions.

    Args:
        parts (list of IDModel): frozen.
    """

    trains = False

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, interaction):
        """User embeddings after the whole history: batch of rows -> [B, sum of D_id]."""
        return torch.cat([part(interaction) for part in self.parts], dim=1)

    def item_embeddings(self):
        """Item embeddings of all items: [N, sum of D_id]."""
        return torch.cat([part.item_embeddings() for part in self.parts], dim=1)

    def all_users(self, item_seq, item_seq_len, first):
        """As :meth:`IDModel.all_users`, [M, sum of D_id], at a scale that gives the mean of the logits."""
        return torch.cat([part.all_users(item_seq, item_seq_len, first) for part in self.parts], dim=1) / len(self.parts)

    def full_sort_predict(self, interaction):
        """The mean of the models' scores of all items: [B, N]."""
        return sum(part.full_sort_predict(interaction).view(len(interaction), -1) for part in self.parts) / len(self.parts)

    def predict(self, interaction):
        """The mean of the models' scores of the given items: [B]."""
        return sum(part.predict(interaction) for part in self.parts) / len(self.parts)


def check_user_embedding(model, rows, with_items=False):
    """Find out before a model is trained whether its user embedding can be read; rows (Interaction): any two.

    Args:
        with_items (bool): its item embeddings too, which must be of the same size.

    Raises:
        PropertyError: they cannot.
    """
    id_model = IDModel(model, trains=True)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        user = id_model.eval()(rows)
    if with_items and id_model.item_embeddings().size(1) != user.size(1):
        sizes = f"its users have {user.size(1)} dimensions and its items {id_model.item_embeddings().size(1)}; one map takes both"
        raise bad_value("id_model", type(model).__name__, f"{sizes}. Set the sizes alike, or take SASRec.")


def _last_state(model, interaction):
    """The last [B, H] that `forward` or `gather_indexes` returned inside `full_sort_predict`."""
    states, width = [], len(interaction[model.ITEM_SEQ_LEN])

    def recorded(function):
        def call(*args, **kwargs):
            output = function(*args, **kwargs)
            if torch.is_tensor(output) and output.dim() == 2 and len(output) == width:
                states.append(output)
            return output

        return call

    originals = {name: getattr(model, name) for name in ("forward", "gather_indexes")}
    try:
        for name, function in originals.items():
            object.__setattr__(model, name, recorded(function))
        model.full_sort_predict(interaction)
    except NotImplementedError:  # DIN scores one item at a time
        return None
    finally:
        for name in originals:
            object.__delattr__(model, name)
    return states[-1] if states else None


def _checked(embedding, model):
    if not torch.is_tensor(embedding) or embedding.dim() != 2 or embedding.size(1) == model.n_items:  # RepeatNet gives the scores themselves
        raise bad_value("id_model", type(model).__name__, "shows no user embedding. Give the class a method user_embedding(interaction) -> [B, D].")
    return embedding
