"""DUEG, Dynamic User Embedding Generator (f_U of the paper): the MLLM's own decoder reads item embeddings and a [User] token."""

import torch
import torch.nn.functional as F
from torch import nn

from recbole_molar.model.user_encoder.base import UserEncoder
from recbole_molar.model.user_encoder.gru4rec import GRU4Rec

USER_TOKEN_PLACES = ("last", "first")


class DUEG(UserEncoder):
    """The decoder's first layers over item embeddings, causal, with a learned [User] vector.

    `user_token` says where [User] stands and so what is read:

    - `last` (the paper): after the history; its own state is the user embedding. For all prefixes in one pass there is one [User]
      for each position t. It sees items 0..t and itself, no other [User], and has position t + 1; items see items only. Each then
      has the state that it would have at the end of its prefix alone. 2L tokens under a dense mask.
    - `first`: before the history; the state of item t is the user embedding. L + 1 tokens, plainly causal.

    Args:
        decoder (nn.Module): `decoder(inputs_embeds, attention_mask=None, position_ids=None) -> [B, T, D]`, causal where no mask is
            given.
        embedding_dim (int): D, the decoder's width.
        user_token (str): `last` or `first`.
        dropout (float): on the item embeddings.
        input_scale (float, optional): item embeddings are divided by their root mean square and multiplied by a learned scalar that
            starts here; the table's scale need not be the word embeddings'. None takes them as they are.
        recurrent_size (int, optional): width of a GRU below the decoder, whose output is added to each item embedding: order and recency,
            which attention finds hard to learn from few users (not in the paper). None leaves it out.
        layer_dropout (float, optional): on what attention and feed-forward network of each layer of the decoder add to its states, as in the
            Transformers of recommenders; decoders of LLMs have none (not in the paper). None leaves it out.
    """

    def __init__(self, decoder, embedding_dim, user_token, dropout, input_scale, recurrent_size=None, layer_dropout=None):
        super().__init__()
        if user_token not in USER_TOKEN_PLACES:
            raise ValueError(f"dueg_user_token={user_token}: unknown. Valid: {', '.join(USER_TOKEN_PLACES)}.")
        self.decoder = decoder
        self.user_token_place = user_token
        self.dropout = nn.Dropout(dropout)
        self.input_scale = None if input_scale is None else nn.Parameter(torch.tensor(float(input_scale)))
        std = getattr(decoder.config, "initializer_range", 0.02) if input_scale is None else float(input_scale)
        self.user_token = nn.Parameter(torch.randn(embedding_dim) * std)
        self.recurrent = None if recurrent_size is None else GRU4Rec.build(embedding_dim, user_encoder_hidden_size=recurrent_size)
        if layer_dropout:
            decoder.drop_in_layers(layer_dropout)

    @classmethod
    def build(
        cls,
        embedding_dim,
        decoder=None,
        max_length=50,
        *,
        dueg_user_token="first",
        dueg_dropout=0.1,
        dueg_input_scale=1.0,
        dueg_recurrent_size=None,
        dueg_layer_dropout=None,
    ):
        """See :meth:`UserEncoder.build`; here `decoder` is required."""
        assert decoder is not None, "DUEG is the MLLM's decoder: build() needs one"
        return cls(decoder, embedding_dim, dueg_user_token, dueg_dropout, dueg_input_scale, dueg_recurrent_size, dueg_layer_dropout)

    def forward(self, item_emb, item_seq_len):
        """See :meth:`UserEncoder.forward`."""
        items = self._inputs(item_emb)  # [B, L, D]
        batch, length, dim = items.shape
        if self.user_token_place == "first":
            users = self.user_token.to(items.dtype).expand(batch, 1, dim)
            return self.decoder(torch.cat([users, items], dim=1))[:, 1:]
        users = self.user_token.to(items.dtype).expand(batch, length, dim)
        positions = torch.arange(length, device=items.device)
        states = self.decoder(
            torch.cat([items, users], dim=1),  # [B, 2L, D]
            attention_mask=_all_prefixes_mask(length, items).expand(batch, -1, -1, -1),
            position_ids=torch.cat([positions, positions + 1]).expand(batch, -1),
        )
        return states[:, length:]

    def last(self, item_emb, item_seq_len):
        """See :meth:`UserEncoder.last`; for `last` one [User] a row is put behind its history, L + 1 tokens instead of 2L."""
        if self.user_token_place == "first":
            return super().last(item_emb, item_seq_len)
        items = F.pad(self._inputs(item_emb), (0, 0, 0, 1))  # [B, L + 1, D]
        at_end = torch.arange(items.size(1), device=items.device) == item_seq_len[:, None]  # [B, L + 1]
        states = self.decoder(torch.where(at_end[..., None], self.user_token.to(items.dtype), items))
        return states[at_end]  # [B, D]

    def _inputs(self, item_emb):
        """Item embeddings at the scale that the decoder reads, [B, L, D]."""
        if self.input_scale is not None:
            item_emb = F.rms_norm(item_emb, item_emb.shape[-1:], eps=1e-6) * self.input_scale
        item_emb = self.dropout(item_emb)
        if self.recurrent is None:
            return item_emb
        with torch.autocast(item_emb.device.type, enabled=False):
            return item_emb + self.recurrent(item_emb.float(), None)


def _all_prefixes_mask(length, like):
    """Additive mask [1, 1, 2L, 2L] for L items followed by the [User] token of each of their prefixes.

    Additive, because SDPA on a CPU would turn a boolean one into this again in each layer.
    """
    causal = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    own = torch.eye(length, dtype=torch.bool, device=like.device)
    seen = torch.cat([torch.cat([causal, torch.zeros_like(own)], 1), torch.cat([causal, own], 1)])  # [2L, 2L]
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill_(~seen, float("-inf"))[None, None]
