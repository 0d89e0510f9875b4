"""The last layer of a decoder for the tokens that are read alone: attention (by `attention.attend`) and the feed-forward network are
computed for no others."""

import contextlib

import torch


class ReadRows:
    """Lets the last decoder layer leave out tokens whose states nobody reads; those are then wrong.

    Args:
        layer (nn.Module): the last one; it is hooked, where it has the parts by their usual names.
    """

    def __init__(self, layer):
        self.read = None  # boolean [N, T] in a pass, one token in each row
        attention = getattr(layer, "self_attn", None)
        if attention is not None:
            attention.read_rows = self
        for part in (getattr(layer, "mlp", None), getattr(attention, "o_proj", None)):
            if isinstance(part, torch.nn.Module):
                part.register_forward_pre_hook(self._choose)
                part.register_forward_hook(self._put_back)

    @contextlib.contextmanager
    def only(self, read):
        """While inside, states count where `read` (boolean, [N, T], one token in each row) alone."""
        self.read = read
        try:
            yield
        finally:
            self.read = None

    def _choose(self, part, given):
        if self.read is not None:
            return (given[0][self.read][None], *given[1:])  # [1, R, D]

    def _put_back(self, part, given, output):
        if self.read is not None:
            return output.new_zeros(*self.read.shape, output.size(-1)).index_put((self.read,), output[0])
