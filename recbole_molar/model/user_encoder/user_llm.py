"""The user LLM of HLLM (arXiv 2409.12740): the item LLM's decoder over item embeddings alone."""

from recbole_molar.model.user_encoder.base import UserEncoder


class UserLLM(UserEncoder):
    """The decoder's first layers, causal, over item embeddings as they are: no [User] token, no scaling, no dropout.

    Args:
        decoder (nn.Module): as of :class:`DUEG`; its state at position t is the user embedding there.
    """

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    @classmethod
    def build(cls, embedding_dim, decoder=None, max_length=50):
        """See :meth:`UserEncoder.build`; here `decoder` is required."""
        assert decoder is not None, "UserLLM is an LLM's decoder: build() needs one"
        return cls(decoder)

    def forward(self, item_emb, item_seq_len):
        """See :meth:`UserEncoder.forward`."""
        return self.decoder(item_emb)
