"""FPMC (Rendle et al., WWW 2010) as a user encoder: a first-order Markov chain plus a long-term user factor."""

import torch
from torch import nn

from recbole_molar.model.user_encoder.base import UserEncoder


class FPMC(UserEncoder):
    """User embedding = transition(last item) + taste(mean of the items so far), two linear maps.

    FPMC scores a next item j as <V_u, V_j> + <V_last, V'_j>, with free factors for each user and item. A user encoder gets item
    embeddings and no user id, and one table scores both terms. So the item factors are linear maps of the given embeddings, and V_u
    is a map of the history's mean (as in FISM) instead of a free vector: users unseen in training get one too.

    Args:
        embedding_dim (int): D.
        rank (int): rank of each map, FPMC's number of factors.
    """

    def __init__(self, embedding_dim, rank):
        super().__init__()
        self.transition = _low_rank(embedding_dim, rank)
        self.taste = _low_rank(embedding_dim, rank)

    @classmethod
    def build(cls, embedding_dim, decoder=None, max_length=50, *, user_encoder_rank=64):
        """See :meth:`UserEncoder.build`."""
        return cls(embedding_dim, user_encoder_rank)

    def forward(self, item_emb, item_seq_len):
        """See :meth:`UserEncoder.forward`."""
        count = torch.arange(1, item_emb.size(1) + 1, device=item_emb.device)[:, None]  # [L, 1]
        mean = item_emb.float().cumsum(1) / count  # [B, L, D], items 0..t
        return self.transition(item_emb) + self.taste(mean)


def _low_rank(dim, rank):
    """D -> rank -> D without bias: factorised, as the paper's transition cube is."""
    maps = nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim, bias=False))
    for linear in maps:
        nn.init.xavier_normal_(linear.weight)  # as RecBole's FPMC
    return maps
