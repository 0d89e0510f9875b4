"""Layers in fewer passes over memory: same parameters, same values to rounding, dropout alike in distribution.

RecBole's attention by PyTorch's fused kernel where no dropout is at work, in evaluation and in training with `attn_dropout_prob: 0`; GELU and Swish of its
feed-forward layer always. Any dropout on a CPU by 16 random bits for each value, a fifth of the time of PyTorch's. The last layer of an encoder can be
computed for the positions that are read alone: :func:`last_layer_at`.
"""

import contextlib
import types

import torch
import torch.nn.functional as F
from torch import nn

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole.model.layers import FeedForward, MultiHeadAttention, TransformerEncoder, TransformerLayer


def fuse_layers(model):
    """Let each of RecBole's own attention and feed-forward layers and encoders, and each dropout, in a model use the faster ways. Returns the model."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.forward = types.MethodType(_drop, module)
        elif type(module) is MultiHeadAttention:
            module.forward = types.MethodType(_attend, module)
        elif type(module) is FeedForward:
            fused = {FeedForward.gelu: F.gelu, FeedForward.swish: F.silu}
            module.intermediate_act_fn = fused.get(getattr(module.intermediate_act_fn, "__func__", None), module.intermediate_act_fn)
        elif type(module) is TransformerEncoder and type(module.layer[-1]) is TransformerLayer:
            module.forward, module.asking = types.MethodType(_encode, module), None
    return model


def encoders(model):
    """The encoders of a model that :func:`last_layer_at` knows."""
    return [module for module in model.modules() if hasattr(module, "asking")]


@contextlib.contextmanager
def last_layer_at(model, asking):
    """While inside, encoders of :func:`fuse_layers` give the states at some positions, and zeros elsewhere.

    Args:
        model: the model around them. asking (tuple, optional): the index that takes from states [B, L, H] those of the positions, [B, Q, H]; None asks
            for all, inside another such context too.
    """
    found = [(encoder, encoder.asking) for encoder in encoders(model)]
    for encoder, _ in found:
        encoder.asking = asking
    try:
        yield
    finally:
        for encoder, before in found:
            encoder.asking = before


def _encode(self, hidden_states, attention_mask, output_all_encoded_layers=True):
    """RecBole's TransformerEncoder: [B, L, H] -> list of [B, L, H], one for each layer, or the last alone."""
    if self.asking is None:
        return TransformerEncoder.forward(self, hidden_states, attention_mask, output_all_encoded_layers)
    layers = []
    for layer in self.layer[:-1]:
        hidden_states = layer(hidden_states, attention_mask)
        layers.append(hidden_states)
    mask = attention_mask[:, 0].expand(len(hidden_states), -1, -1)  # [B, L or 1, L]
    mask = mask[self.asking] if mask.size(1) > 1 else mask  # [B, Q or 1, L]
    last = _attend(self.layer[-1].multi_head_attention, hidden_states, mask[:, None], hidden_states[self.asking])
    states = torch.zeros_like(hidden_states)
    states[self.asking] = self.layer[-1].feed_forward(last)
    return [*layers, states] if output_all_encoded_layers else [states]


def _drop(self, x):
    """Dropout; on a CPU with a probability rounded to 1/65536."""
    threshold = round(self.p * 65536)
    if x.device.type != "cpu" or not self.training or not 0 < threshold < 65536:
        return nn.Dropout.forward(self, x)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)  # 4 numbers a draw, -32768 to 32767
    kept = bits[: x.numel()].view(x.shape).float().add_(32769 - threshold).clamp_(0, 1)  # arithmetic throughout: comparisons and choices are slower
    return x * kept.mul_(65536 / (65536 - threshold)).to(x.dtype)


def _attend(self, input_tensor, attention_mask, asking=None):
    """[B, L, H], additive mask [B, 1, Q, L] or [B, 1, 1, L] -> [B, Q, H]; asking [B, Q, H] are the positions that attend, all by default."""
    asking = input_tensor if asking is None else asking
    given = ((self.query, asking), (self.key, input_tensor), (self.value, input_tensor))
    query, key, value = (self.transpose_for_scores(layer(states)).transpose(1, 2) for layer, states in given)  # [B, heads, Q or L, H / heads]
    if self.training and self.attn_dropout.p > 0:
        scores = query @ key.transpose(-1, -2) / self.sqrt_attention_head_size + attention_mask
        context = self.attn_dropout(scores.softmax(-1)) @ value
    else:
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
    context = context.transpose(1, 2).reshape(asking.shape)
    return self.LayerNorm(self.out_dropout(self.dense(context)) + asking)
