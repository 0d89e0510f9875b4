"""What every user encoder has in common: item embeddings of a history in, a user embedding after each position out."""

import inspect

import torch
from torch import nn


class UserEncoder(nn.Module):
    """Base of the user encoders (f_U of the paper; DUEG and what its ablation puts in DUEG's place).

    Histories are padded on the right. Position t sees items 0..t only, so one pass gives the user embedding for every prefix, and
    padding needs no mask: what stands behind a history cannot reach it. Values at positions >= `item_seq_len` are finite, no more.
    """

    @classmethod
    def build(cls, embedding_dim, decoder=None, max_length=50):
        """Make the encoder from plain values.

        Args:
            embedding_dim (int): D, in and out.
            decoder (nn.Module, optional): the MLLM's decoder; only DUEG and UserLLM read it.
            max_length (int): longest history, L.
            **options: the encoder's own properties, see :meth:`option_keys`; defaults in `properties/user_encoder/<name>.yaml`.
        """
        raise NotImplementedError

    @classmethod
    def option_keys(cls):
        """Names of the properties that :meth:`build` takes as keyword arguments."""
        return [name for name, it in inspect.signature(cls.build).parameters.items() if it.kind is inspect.Parameter.KEYWORD_ONLY]

    def forward(self, item_emb, item_seq_len):
        """User embedding after each position.

        Args:
            item_emb (Tensor): [B, L, D].
            item_seq_len (Tensor): [B], lengths, >= 1.

        Returns:
            Tensor: [B, L, D]; position `item_seq_len - 1` is E_u.
        """
        raise NotImplementedError

    def last(self, item_emb, item_seq_len):
        """E_u alone, [B, D]: :meth:`forward` at `item_seq_len - 1`; arguments as there."""
        output = self.forward(item_emb, item_seq_len)  # [B, L, D]
        return output[torch.arange(len(output), device=output.device), item_seq_len - 1]  # [B, D]
