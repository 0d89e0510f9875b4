"""Train RecBole's own sequential models on every position of a history in one pass, where the model allows it.

RecBole trains one row for each prefix. A causal model that ends in `gather_indexes(output, item_seq_len - 1)` computes the
user embedding of every prefix on the way; handing all of them to the model's own loss gives the same targets for a
fraction of the work. Whether a model allows it is not listed anywhere but tried: :func:`allows_all_positions`. So is whether that loss is
the cross-entropy over its item table, which is then computed in blocks: :func:`is_plain_cross_entropy`.
"""

import contextlib

import torch

from recbole_molar.data.dataset import FIRST_TARGET, count_targets
from recbole_molar.model.fused_layers import encoders, last_layer_at
from recbole_molar.model.like_lengths import cut_to_longest, parts_of_like_lengths
from recbole_molar.model.loss import ce_loss

MASK_INDEX = "MASK_INDEX"  # the column that RecBole's transform mask_itemseq adds


class AllPositions:
    """Goes before a RecBole model among the bases of a class; see :func:`with_all_positions`."""

    reads_all_positions = False
    first_targets = None  # of the rows that are read now, [B]: a column of training rows
    plain_cross_entropy = False  # of the states over `item_embedding`
    leaves_out_uncounted = False  # the last layer is computed from the first position that counts
    low_precision_products = False  # bfloat16 for the products of the cross-entropy; its softmax stays in float32

    def gather_indexes(self, output, gather_index):
        """RecBole's for one position a row; in training, the states [M, H] of all valid positions of [B, L, H], see :func:`valid_positions`."""
        if not self.reads_all_positions:
            return super().gather_indexes(output, gather_index)
        return output[valid_positions(gather_index + 1, output.size(1), self.first_targets)]

    def calculate_loss(self, interaction):
        """The model's own loss on all M positions of a batch of windows."""
        if self.plain_cross_entropy:
            return self._blocked_cross_entropy(interaction)
        batch, targets = trim_and_target(interaction, self)
        batch[self.POS_ITEM_ID], batch[self.NEG_ITEM_ID] = targets, sample_negatives(targets, self.n_items)
        with self.reading_all_positions(batch[FIRST_TARGET]):
            return super().calculate_loss(batch)

    @contextlib.contextmanager
    def reading_all_positions(self, first):
        """While inside, the model's states are those of all valid positions, see :func:`valid_positions`; first (Tensor): [B] of the rows to be read."""
        self.reads_all_positions, self.first_targets = True, first
        start = int(first.min()) if self.leaves_out_uncounted else 0
        try:
            with last_layer_at(self, (slice(None), slice(start, None))) if start else contextlib.nullcontext():
                yield
        finally:
            self.reads_all_positions, self.first_targets = False, None

    def users_of_all_positions(self, item_seq, item_seq_len, first):
        """User embeddings after all M valid positions in row order: [B, L], [B], [B] -> [M, H]."""
        with self.reading_all_positions(first):
            return self.forward(item_seq, item_seq_len)

    def n_targets(self, interaction):
        """Positions of a batch that count."""
        return count_targets(interaction, self.ITEM_SEQ_LEN)

    def _blocked_cross_entropy(self, interaction):
        users, targets = [], []
        for rows in parts_of_like_lengths(interaction[self.ITEM_SEQ_LEN], interaction[FIRST_TARGET] if self.leaves_out_uncounted else None):
            batch, wanted = trim_and_target(interaction[rows], self)
            users.append(self.users_of_all_positions(batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN], batch[FIRST_TARGET]))  # [M', H]
            targets.append(wanted)
        user = torch.cat(users)  # [M, H]
        with torch.autocast(user.device.type, dtype=torch.bfloat16, enabled=self.low_precision_products):
            return ce_loss(user, self.item_embedding.weight, torch.cat(targets), first=0)


def n_targets(model, interaction, n_parts=1):
    """Over how many targets each part of a model's loss is the mean, to weigh the shares of a batch.

    Args:
        model: its own `n_targets(interaction)` says it, a number or a list of one for each part; else a row has one target, or as many as
            RecBole's transform hid items in it. interaction: a batch. n_parts (int): of the loss.

    Returns:
        list of int: [n_parts]. A part that all processes compute alike, from what :func:`gathered` gives, may have any.
    """
    if hasattr(model, "n_targets"):
        found = model.n_targets(interaction)
    elif MASK_INDEX in interaction.interaction:
        found = int((interaction[MASK_INDEX] > 0).sum())
    else:
        found = len(interaction)
    return found if isinstance(found, list) else [found] * n_parts


def trim_and_target(interaction, model):
    """Cut a batch to its longest history and read its targets.

    Args:
        interaction: RecBole's batch of windows; model: names of the fields.

    Returns:
        tuple: the batch as a dict of tensors with lists cut to [B, L], and the targets [M] of its valid positions in row order, see :func:`valid_positions`.
    """
    batch = cut_to_longest(interaction, model).interaction
    lengths, item_seq = batch[model.ITEM_SEQ_LEN], batch[model.ITEM_SEQ]
    valid = valid_positions(lengths, item_seq.size(1), batch[FIRST_TARGET])
    return batch, position_targets(item_seq, lengths, interaction[model.POS_ITEM_ID])[valid]


def of_all_positions(read, item_seq, item_seq_len, first, *more):
    """User embeddings at all M valid positions in row order, histories of like lengths read together.

    Args:
        read (callable): item_seq [B', L'], item_seq_len [B'], first [B'], each of `more` [B', L'] -> [M', D], in row order.
        item_seq, more (Tensors): [B, L]; item_seq_len, first (Tensor): [B].

    Returns:
        Tensor: [M, D].
    """
    valid = valid_positions(item_seq_len, item_seq.size(1), first)  # [B, L]
    place = valid.flatten().cumsum(0).view(valid.shape) - 1  # of each position among the valid ones
    users, places = [], []
    for rows in parts_of_like_lengths(item_seq_len):
        lengths = item_seq_len[rows]
        longest = int(lengths.max())
        users.append(read(item_seq[rows, :longest], lengths, first[rows], *(one[rows, :longest] for one in more)))
        places.append(place[rows, :longest][valid[rows, :longest]])
    return torch.cat(users)[torch.cat(places).argsort()]


def position_targets(item_seq, item_seq_len, last_target):
    """`item_seq` rolled left, with the row's own target in the last place: [B, L], [B], [B] -> [B, L]."""
    targets = torch.roll(item_seq, -1, dims=1)
    targets[torch.arange(len(item_seq), device=item_seq.device), item_seq_len - 1] = last_target
    return targets


def valid_positions(item_seq_len, width, first=None):
    """True where a position holds an item, and the next one is a target: [B], first target [B] (None: 0) -> bool [B, width]."""
    positions = torch.arange(width, device=item_seq_len.device)
    holds = positions < item_seq_len[:, None]
    return holds if first is None else holds & (positions >= first[:, None])


def target_indices(last, item_seq_len, width, first=None):
    """Which interactions the targets of all M valid positions are, as `target_index` counts them: of the rows [B], [B], width, [B] -> [M]."""
    everywhere = (last - item_seq_len + 1)[:, None] + torch.arange(width, device=last.device)
    return everywhere[valid_positions(item_seq_len, width, first)]


def sample_negatives(targets, n_items):
    """One uniform negative for each target, never the target itself nor the padding: [M] -> [M]."""
    if n_items < 3:
        raise ValueError(f"{n_items - 1} item(s): a negative needs at least two.")
    shift = torch.randint(1, n_items - 1, targets.shape, device=targets.device)
    return (targets - 1 + shift) % (n_items - 1) + 1


def with_all_positions(model_class):
    """A subclass of a RecBole model that trains on all positions; same name, same parameters."""
    return type(model_class.__name__, (AllPositions, model_class), {"__module__": model_class.__module__})


@contextlib.contextmanager
def in_evaluation(model):
    """While inside, the model is in evaluation; afterwards as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def allows_all_positions(model):
    """Try whether the states and the loss at all positions are those of the prefixes, each fed alone.

    Args:
        model: an instance of :func:`with_all_positions`.

    Returns:
        bool: False too if the model gathers nothing, or reads something else than the history and the next item.
    """
    width = min(6, model.max_seq_length)
    generator = torch.Generator().manual_seed(0)
    item_seq = torch.zeros(2, model.max_seq_length, dtype=torch.long)
    item_seq[:, :width] = torch.randint(1, model.n_items, (2, width), generator=generator)
    item_seq = item_seq.to(model.device)
    lengths = torch.full((2,), width, device=model.device)
    columns = torch.arange(item_seq.size(1), device=item_seq.device)
    prefix_len = torch.arange(1, width + 1, device=item_seq.device).repeat(2)  # [2 * width]
    prefixes = item_seq.repeat_interleave(width, dim=0) * (columns < prefix_len[:, None])
    try:
        with in_evaluation(model):
            at_once = model.users_of_all_positions(item_seq, lengths, torch.zeros_like(lengths))
            alone = model.forward(prefixes, prefix_len)  # [2 * width, H]
            if at_once.shape != alone.shape or not torch.allclose(at_once, alone, atol=1e-4, rtol=1e-3):
                return False
            loss_alone = _loss(model, prefixes, prefix_len)
            with model.reading_all_positions(torch.zeros_like(lengths)):
                return torch.allclose(_loss(model, item_seq, lengths), loss_alone, atol=1e-4, rtol=1e-3)
    except (TypeError, RuntimeError, IndexError, AttributeError, KeyError, ValueError):
        return False  # this model wants other inputs: it is trained on prefixes, as RecBole does


@torch.no_grad()
def is_plain_cross_entropy(model):
    """Try whether the loss of a model that allows all positions is the cross-entropy of its states over `item_embedding`, padding included.

    RecBole's own models alone are tried: a subclass may add, in training, what the trial does not see.

    Args:
        model: an instance of :func:`with_all_positions`.
    """
    table = getattr(getattr(model, "item_embedding", None), "weight", None)
    owner = next(base for base in type(model).__mro__ if base is not AllPositions and "calculate_loss" in vars(base))
    if table is None or not owner.__module__.startswith("recbole.") or type(model).__mro__[2].__module__.partition(".")[0] != "recbole":
        return False
    width = min(6, model.max_seq_length)
    item_seq = torch.randint(1, model.n_items, (4, width), generator=torch.Generator().manual_seed(1)).to(model.device)
    lengths = torch.full((4,), width, device=model.device)
    with in_evaluation(model), model.reading_all_positions(torch.zeros_like(lengths)):
        own = _loss(model, item_seq, lengths)
        ours = ce_loss(model.forward(item_seq, lengths), table, torch.ones(4 * width, dtype=torch.long, device=model.device), first=0)
    return own.shape == ours.shape and torch.allclose(own, ours, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def reads_counted_alone(model):
    """Try whether a model's states are the same when the last layer is left out where positions do not count; False where there is nothing to leave out.

    Args:
        model: an instance of :func:`with_all_positions` that allows it.
    """
    if not encoders(model):
        return False
    width, found = min(6, model.max_seq_length), []
    item_seq = torch.randint(1, model.n_items, (2, width), generator=torch.Generator().manual_seed(2)).to(model.device)
    lengths, first = torch.full((2,), width, device=model.device), torch.full((2,), width // 2, device=model.device)
    try:
        with in_evaluation(model):
            for model.leaves_out_uncounted in (True, False):
                found.append(model.users_of_all_positions(item_seq, lengths, first))
        return torch.allclose(*found, atol=1e-4, rtol=1e-3)
    except (RuntimeError, IndexError):
        return False
    finally:
        model.leaves_out_uncounted = False


def _loss(model, item_seq, item_seq_len):
    """RecBole's own loss of a trial batch, with item 1 as every target and item 2 as every negative."""
    n_targets = int(item_seq_len.sum()) if model.reads_all_positions else len(item_seq)
    target = torch.ones(n_targets, dtype=torch.long, device=item_seq.device)
    batch = {model.ITEM_SEQ: item_seq, model.ITEM_SEQ_LEN: item_seq_len, model.POS_ITEM_ID: target, model.NEG_ITEM_ID: target + 1}
    loss = super(AllPositions, model).calculate_loss(batch)
    return sum(loss) if isinstance(loss, tuple) else loss
