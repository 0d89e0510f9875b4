"""How transformers' models compute attention here: PyTorch's fused kernel, but plain products where that is slow; all pictures of a batch at once; the last
layer for the tokens that are read alone.

On a CPU the fused kernel is slow backward, in bf16 most of all (tests/benchmarks/attention.py). Vision towers of the Qwen family read all pictures of a batch
as one long row, and transformers would call attention picture by picture.
"""

import inspect

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

NAME, PACKED = "recbole_molar", "recbole_molar_flash"  # transformers hands a whole batch over at once where a name has "flash" in it
UNSEEN = -1e30  # finite in bf16, where the least fp32 number is not
NOT_OURS = ("softcap", "position_bias", "s_aux", "cache")  # of some architectures


def attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, is_causal=None, **others):
    """Attention as `AttentionInterface` wants it.

    Args:
        module (nn.Module): with `read_rows` (ReadRows, optional). query (Tensor): [B, heads, T, d]; key, value (Tensor): [B, key heads, S, d].
        attention_mask (Tensor, optional): [B or 1, 1, T, S], boolean (True is seen) or additive.

    Returns:
        tuple: [B, T, heads, d], None.
    """
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if any(others.get(name) is not None for name in NOT_OURS):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **others)
    rows = getattr(module, "read_rows", None)
    if rows is None or rows.read is None:
        return _attend(module, query, key, value, attention_mask, scaling, dropout, is_causal), None
    read = rows.read  # [B, T], one token in each row
    seen = _seen_from(read, attention_mask, is_causal, key.size(2))
    asking = query.transpose(1, 2)[read][:, :, None]  # [B, heads, 1, d]
    states = _attend(module, asking, key, value, seen, scaling, dropout, False)  # [B, 1, heads, d]
    return states.new_zeros(*read.shape, *states.shape[2:]).index_put((read,), states[:, 0]), None


def _seen_from(read, mask, is_causal, length):
    """The mask's rows of the tokens that are read, [B, 1, 1, S], or None."""
    if mask is not None:
        return mask.expand(len(read), -1, -1, -1).transpose(1, 2)[read][:, :, None]
    if not is_causal:
        return None
    return (torch.arange(length, device=read.device) <= read.int().argmax(1)[:, None])[:, None, None]


def _attend(module, query, key, value, mask, scaling, dropout, is_causal):
    """The faster way of the two, [B, T, heads, d]."""
    if not wants_products(query) or dropout:
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=is_causal)[0]
    if mask is None and is_causal and query.size(2) > 1:
        mask = torch.ones(query.size(2), key.size(2), dtype=torch.bool, device=query.device).tril()[None, None]
    return _products(query, key, value, mask, scaling)


def _products(query, key, value, mask, scaling):
    """[B, heads, T, d], [B, key heads, S, d] -> [B, T, heads, d] without repeating a key; softmax and products in the precision of autocast."""
    device, groups = query.device.type, query.size(1) // key.size(1)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    with torch.autocast(device, enabled=False):  # it would copy all scores to fp32 and back
        query = query * (query.size(-1) ** -0.5 if scaling is None else scaling)
        query, key, value = query.to(dtype).unflatten(1, (-1, groups)), key.to(dtype), value.to(dtype)
        scores = (query.flatten(2, 3) @ key.transpose(2, 3)).unflatten(2, (groups, -1))  # [B, key heads, groups, T, S]
        if mask is not None:
            mask = additive_mask(mask, dtype) if mask.dtype == torch.bool else mask.clamp(min=UNSEEN).to(dtype)
            scores += mask[:, None]
        states = scores.softmax(-1).flatten(2, 3) @ value  # [B, key heads, groups * T, d]
    return states.unflatten(2, (groups, -1)).flatten(1, 2).transpose(1, 2).contiguous()


def additive_mask(seen, dtype):
    """A boolean mask, True where a token is seen, as one that is added to attention scores; of the same shape."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, UNSEEN)


def wants_products(states):
    """Whether plain products are the faster way: with a backward pass to come, on a CPU."""
    return states.device.type == "cpu" and torch.is_grad_enabled()


def _mask(*args, **kwargs):
    """A mask of the kind that :func:`attend` reads fastest."""
    on_cpu = torch.device(kwargs.get("device", "cpu")).type == "cpu"
    return (eager_mask if on_cpu and torch.is_grad_enabled() else sdpa_mask)(*args, **kwargs)


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
        return _attend_each(module, query, key, value, n, scaling, dropout), None
    starts = cu_seq_lens_q[:-1].tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], total])]
    output = query.new_empty(1, total, query.size(1), value.size(3))
    for length in sorted(set(lengths) - {0}):
        own = [start for start, other in zip(starts, lengths) if other == length]
        places = (torch.tensor(own)[:, None] + torch.arange(length)).flatten().to(query.device)
        part = _attend_each(module, *(states.index_select(2, places) for states in (query, key, value)), len(own), scaling, dropout)
        output = output.index_copy(1, places, part.to(output.dtype))
    return output, None


def _attend_each(module, query, key, value, n, scaling, dropout):
    """[1, heads, n * T, d] -> [1, n * T, heads, d], attention inside each T."""
    query, key, value = (states[0].unflatten(1, (n, -1)).transpose(0, 1) for states in (query, key, value))  # [n, heads, T, d]
    return _attend(module, query, key, value, None, scaling, dropout, False).flatten(0, 1)[None]


def attend_our_way(model):
    """Let a transformers model compute attention by :func:`attend` and :func:`attend_packed`, where it would by SDPA; its configs are changed in place."""
    configs = {}  # id -> config, whether its part reads packed pictures
    for module in model.modules():
        config = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) == "sdpa":
            packed = "cu_seqlens" in inspect.signature(module.forward).parameters
            configs[id(config)] = config, packed or configs.get(id(config), (config, False))[1]
    for config, packed in configs.values():
        config._attn_implementation = PACKED if packed else NAME


AttentionInterface.register(NAME, attend)
AttentionInterface.register(PACKED, attend_packed)
AttentionMaskInterface.register(NAME, _mask)
