"""Layers in fewer passes over memory: same parameters, same values to rounding, dropout alike in distribution.

RecBole's attention by PyTorch's fused kernel where no dropout is at work, in evaluation and in training with `attn_dropout_prob: 0`; GELU and Swish of its
feed-forward layer always. Any dropout on a CPU by 16 random bits for each value, a fifth of the time of PyTorch's. In evaluation the last layer of an
encoder can be computed for the last item of each history alone: :func:`last_states_only`.
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
            module.forward, module.places = types.MethodType(_encode, module), None
    return model


@contextlib.contextmanager
def last_states_only(model, places):
    """While inside, encoders of :func:`fuse_layers` give the state at one place of each row, and zeros elsewhere.

    Args:
        model: the model around them. places (Tensor): [B].
    """
    encoders = [module for module in model.modules() if hasattr(module, "places")]
    for encoder in encoders:
        encoder.places = places
    try:
        yield
    finally:
        for encoder in encoders:
            encoder.places = None


def _encode(self, hidden_states, attention_mask, output_all_encoded_layers=True):
    """RecBole's TransformerEncoder: [B, L, H] -> list of [B, L, H], one for each layer, or the last alone."""
    if self.places is None:
        return TransformerEncoder.forward(self, hidden_states, attention_mask, output_all_encoded_layers)
    layers = []
    for layer in self.layer[:-1]:
        hidden_states = layer(hidden_states, attention_mask)
        layers.append(hidden_states)
    rows, mask = torch.arange(len(hidden_states), device=hidden_states.device), attention_mask.expand(len(hidden_states), -1, -1, -1)
    mask = mask[rows, :, self.places, None] if mask.size(2) > 1 else mask  # [B, 1, 1, L]
    last = _attend(self.layer[-1].multi_head_attention, hidden_states, mask, hidden_states[rows, self.places, None])
    states = torch.zeros_like(hidden_states)
    states[rows, self.places] = self.layer[-1].feed_forward(last)[:, 0]
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
    if self.training and self.attn_dropout.p > 0:
        return MultiHeadAttention.forward(self, input_tensor, attention_mask)
    asking = input_tensor if asking is None else asking
    given = ((self.query, asking), (self.key, input_tensor), (self.value, input_tensor))
    parts = (self.transpose_for_scores(layer(states)).transpose(1, 2) for layer, states in given)  # [B, heads, Q or L, H / heads]
    context = F.scaled_dot_product_attention(*parts, attn_mask=attention_mask)
    context = context.transpose(1, 2).reshape(asking.shape)
    return self.LayerNorm(self.out_dropout(self.dense(context)) + asking)
