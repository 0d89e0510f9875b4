"""RecBole's layers by PyTorch's fused kernels: same parameters, same values to rounding, in fewer passes over memory.

Attention where no dropout is at work, in evaluation and in training with `attn_dropout_prob: 0`; GELU and Swish of the feed-forward layer always.
"""

import types

import torch.nn.functional as F

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole.model.layers import FeedForward, MultiHeadAttention


def fuse_layers(model):
    """Let each of RecBole's own attention and feed-forward layers in a model use the fused kernels. Returns the model."""
    for module in model.modules():
        if type(module) is MultiHeadAttention:
            module.forward = types.MethodType(_attend, module)
        elif type(module) is FeedForward:
            fused = {FeedForward.gelu: F.gelu, FeedForward.swish: F.silu}
            module.intermediate_act_fn = fused.get(getattr(module.intermediate_act_fn, "__func__", None), module.intermediate_act_fn)
    return model


def _attend(self, input_tensor, attention_mask):
    """[B, L, H], additive mask [B, 1, L, L] or [B, 1, 1, L] -> [B, L, H]."""
    if self.training and self.attn_dropout.p > 0:
        return MultiHeadAttention.forward(self, input_tensor, attention_mask)
    parts = (self.transpose_for_scores(layer(input_tensor)).transpose(1, 2) for layer in (self.query, self.key, self.value))  # [B, heads, L, H / heads]
    context = F.scaled_dot_product_attention(*parts, attn_mask=attention_mask)
    context = context.transpose(1, 2).reshape(input_tensor.shape)
    return self.LayerNorm(self.out_dropout(self.dense(context)) + input_tensor)
