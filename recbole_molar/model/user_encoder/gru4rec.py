"""GRU4Rec (Hidasi et al., ICLR 2016; Tan et al., DLRS 2016) as a user encoder: a GRU over given item embeddings."""

import contextlib

import torch
from torch import nn

from recbole_molar.model.user_encoder.base import UserEncoder


class GRU4Rec(UserEncoder):
    """Dropout, GRU, linear map back to D, as in RecBole's GRU4Rec.

    Args:
        embedding_dim (int): D.
        hidden_size (int): width of the GRU.
        n_layers (int): stacked GRUs.
        dropout (float): on the input.
    """

    def __init__(self, embedding_dim, hidden_size, n_layers, dropout):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(embedding_dim, hidden_size, n_layers, bias=False, batch_first=True)
        self.output = nn.Linear(hidden_size, embedding_dim)
        for name, weight in self.gru.named_parameters():
            (nn.init.orthogonal_ if "_hh_" in name else nn.init.xavier_uniform_)(weight)

    @classmethod
    def build(
        cls,
        embedding_dim,
        decoder=None,
        max_length=50,
        *,
        user_encoder_layers=1,
        user_encoder_hidden_size=128,
        user_encoder_dropout=0.2,
    ):
        """See :meth:`UserEncoder.build`."""
        return cls(embedding_dim, user_encoder_hidden_size, user_encoder_layers, user_encoder_dropout)

    def forward(self, item_emb, item_seq_len):
        """See :meth:`UserEncoder.forward`."""
        item_emb = self.dropout(item_emb)
        on_gpu = item_emb.is_cuda  # autocast there takes float16 for cuDNN's GRU, whatever its own type
        with torch.autocast("cuda", enabled=False) if on_gpu else contextlib.nullcontext():
            hidden, _ = self.gru(item_emb.float() if on_gpu else item_emb)  # [B, L, hidden_size]
        return self.output(hidden)
