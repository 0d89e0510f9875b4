"""Which way of computing attention an MLLM takes: the pictures of a batch in one call, and plain products in training on a CPU.

Vision towers of the Qwen family read all pictures of a batch as one long row, and transformers then calls attention picture by picture. PyTorch's fused
kernel is slow backward on a CPU, in bf16 most of all (tests/benchmarks/attention.py).
"""

import inspect

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

PACKED = "recbole_molar_flash"  # transformers hands a whole batch over at once where a name has "flash" in it


def attend_packed(module, query, key, value, attention_mask=None, scaling=None, dropout=0.0, cu_seq_lens_q=None, max_length_q=None, **others):
    """Attention inside each of several pictures that stand in one row, those of one length together.

    Args:
        query, key, value (Tensor): [1, heads, S, d].
        cu_seq_lens_q (Tensor): [pictures + 1], where each begins, and S. max_length_q (int): longest of them.

    Returns:
        tuple: [1, S, heads, d], None.
    """
    total, n = query.size(2), len(cu_seq_lens_q) - 1
    if n * int(max_length_q) == total:  # one length: the rule, since all pictures have one size
        return _attend(query, key, value, n, scaling, dropout), None
    starts = cu_seq_lens_q[:-1].tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], total])]
    output = query.new_empty(1, total, query.size(1), value.size(3))
    for length in sorted(set(lengths) - {0}):
        own = [start for start, other in zip(starts, lengths) if other == length]
        places = (torch.tensor(own)[:, None] + torch.arange(length)).flatten().to(query.device)
        part = _attend(*(states.index_select(2, places) for states in (query, key, value)), len(own), scaling, dropout)
        output = output.index_copy(1, places, part)
    return output, None


def _attend(query, key, value, n, scaling, dropout):
    """[1, heads, n * T, d] -> [1, n * T, heads, d], attention inside each T."""
    query, key, value = (states[0].unflatten(1, (n, -1)).transpose(0, 1) for states in (query, key, value))  # [n, heads, T, d]
    if wants_products(query) and not dropout:
        scores = query * (query.size(-1) ** -0.5 if scaling is None else scaling) @ key.transpose(-1, -2)
        states = scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    else:
        states = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling)
    return states.permute(0, 2, 1, 3).flatten(0, 1)[None]


def wants_products(states):
    """Whether plain products are the faster way: with a backward pass to come, on a CPU."""
    return states.device.type == "cpu" and torch.is_grad_enabled()


class AttentionChoice:
    """Sets how a transformers model computes attention, anew for each pass.

    Args:
        model (PreTrainedModel): its configs are changed in place.
    """

    def __init__(self, model):
        self._configs = {}  # id -> config, whether its part reads packed pictures
        for module in model.modules():
            config = getattr(module, "config", None)
            if hasattr(config, "_attn_implementation"):
                packed = "cu_seqlens" in inspect.signature(module.forward).parameters
                self._configs[id(config)] = config, packed or self._configs.get(id(config), (config, False))[1]

    def set(self, like):
        """For a pass over tensors such as `like`, with gradients or without as is the mode now."""
        for config, packed in self._configs.values():
            config._attn_implementation = PACKED if packed else "eager" if wants_products(like) else "sdpa"


AttentionInterface.register(PACKED, attend_packed)
