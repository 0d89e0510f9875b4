"""SASRec (Kang & McAuley, ICDM 2018) as a user encoder: RecBole's Transformer encoder over given item embeddings."""

import torch
from torch import nn

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole.model.layers import TransformerEncoder
from recbole_molar.model.user_encoder.base import UserEncoder
from recbole_molar.property_error import bad_value

LAYER_NORM_EPS = 1e-12  # as RecBole's SASRec.yaml
INIT_STD = 0.02


class SASRec(UserEncoder):
    """Learned positions, layer norm, dropout, then causal self-attention blocks.

    Args:
        embedding_dim (int): D.
        max_length (int): longest history.
        n_layers, n_heads, inner_size (int): shape of the blocks; `n_heads` divides D.
        dropout (float): on the input and in the blocks.
    """

    def __init__(self, embedding_dim, max_length, n_layers, n_heads, inner_size, dropout):
        super().__init__()
        if embedding_dim % n_heads:
            raise bad_value("user_encoder_heads", n_heads, f"must divide the embedding size, {embedding_dim}.")
        self.position_embedding = nn.Embedding(max_length, embedding_dim)
        self.input_norm = nn.LayerNorm(embedding_dim, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.encoder = TransformerEncoder(
            n_layers, n_heads, embedding_dim, inner_size, dropout, dropout, hidden_act="gelu", layer_norm_eps=LAYER_NORM_EPS
        )
        self.apply(_init_weights)

    @classmethod
    def build(
        cls,
        embedding_dim,
        decoder=None,
        max_length=50,
        *,
        user_encoder_layers=2,
        user_encoder_heads=2,
        user_encoder_inner_size=256,
        user_encoder_dropout=0.2,
    ):
        """See :meth:`UserEncoder.build`."""
        return cls(
            embedding_dim, max_length, user_encoder_layers, user_encoder_heads, user_encoder_inner_size, user_encoder_dropout
        )

    def forward(self, item_emb, item_seq_len):
        """See :meth:`UserEncoder.forward`."""
        length = item_emb.size(1)
        hidden = self.dropout(self.input_norm(item_emb + self.position_embedding.weight[:length]))  # [B, L, D]
        # RecBole adds the mask to the scores: 0 where a position may look, -10000 elsewhere.
        mask = torch.full((length, length), -10000.0, device=item_emb.device).triu(1)[None, None]  # [1, 1, L, L]
        return self.encoder(hidden, mask, output_all_encoded_layers=False)[-1]


def _init_weights(module):
    """RecBole's initialisation of SASRec."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
