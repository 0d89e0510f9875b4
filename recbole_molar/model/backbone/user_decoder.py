"""The decoder of an MLLM cut to its first layers, without word embeddings: what DUEG runs on (paper: "the same MLLM's decoder")."""

import copy

import torch
import torch.utils.checkpoint
from torch import nn

from recbole_molar.model.backbone.attention import additive_mask, attend_our_way
from recbole_molar.model.backbone.quantization import full_weight
from recbole_molar.sharding import whole_tensor


class DecoderStack(nn.Module):
    """First k decoder layers and the final norm of a backbone, with its weights; reads vectors instead of words.

    Args:
        decoder (PreTrainedModel): the backbone's text decoder; it is copied, not changed. LoRA layers are merged into the copy.
        num_layers (int, optional): k; None takes all.

    Raises:
        ValueError: k is not between 1 and the decoder's depth.
    """

    def __init__(self, decoder, num_layers=None):
        super().__init__()
        kept = self_attention_layers(decoder.config)
        num_layers = len(kept) if num_layers is None else num_layers
        if not isinstance(num_layers, int) or not 1 <= num_layers <= len(kept):
            raise ValueError(f"num_layers={num_layers}: the backbone's decoder has {len(kept)} layers. Valid: 1 to {len(kept)}.")
        kept = kept[:num_layers]
        self.config = _cut_config(decoder.config, kept)
        self.decoder = type(decoder)._from_config(self.config, dtype=torch.float32)
        missing, unexpected = self.decoder.load_state_dict(_cut_weights(decoder, kept), strict=False)
        assert not unexpected and all("embed_tokens" in name for name in missing), (missing, unexpected)
        # No words are read: an unused embedding would get no gradient, which DDP reports as an error.
        self.decoder.set_input_embeddings(nn.Identity())
        attend_our_way(self.decoder)

    def forward(self, inputs_embeds, attention_mask=None, position_ids=None):
        """States after the final norm.

        Args:
            inputs_embeds (Tensor): [B, L, D].
            attention_mask (Tensor, optional): [B, L] with 0 at padding (then causal as well), or [B, 1, L, L], boolean (True is
                seen) or additive, which is taken as it is; None is causal.
            position_ids (Tensor, optional): [B, L]; 0, 1, … by default.

        Returns:
            Tensor: [B, L, D], no cache kept.
        """
        batch, length, _ = inputs_embeds.shape
        if position_ids is None:
            # Always given: some decoders would otherwise count from what an earlier call left behind.
            position_ids = torch.arange(length, device=inputs_embeds.device).expand(batch, -1)
        if attention_mask is None:
            # With no mask at all, transformers reads positions that do not rise by one as several packed sequences.
            attention_mask = torch.ones(batch, length, dtype=torch.long, device=inputs_embeds.device)
        elif attention_mask.dim() == 4 and attention_mask.dtype == torch.bool:
            attention_mask = additive_mask(attention_mask, inputs_embeds.dtype)
        output = self.decoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, use_cache=False)
        return output.last_hidden_state

    def drop_in_layers(self, p):
        """From now on, dropout of probability p on what attention and feed-forward network of each layer add to the states."""
        self.layer_dropout = nn.Dropout(p).train(self.training)
        for layer in self.decoder.layers:
            for block in (layer.self_attn, layer.mlp):
                block.register_forward_hook(self._drop)

    def _drop(self, block, given, output):
        return (self.layer_dropout(output[0]), *output[1:]) if isinstance(output, tuple) else self.layer_dropout(output)  # attention gives its weights too

    def gradient_checkpointing(self, enabled=True):
        """Recompute activations in the backward pass (less memory, more time); acts in training mode only."""
        checkpoint_activations(self.decoder, enabled)


def checkpoint_activations(model, enabled=True):
    """Gradient checkpointing in all layers of a transformers model.

    Its public name differs between the releases that we serve (5.17 has no `activation_checkpointing_enable`), this one does not.
    """
    model._set_gradient_checkpointing(enable=enabled, gradient_checkpointing_func=_checkpoint)


def _checkpoint(function, *args, **kwargs):
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, **kwargs)


def self_attention_layers(config):
    """Indices of the layers that need no picture (Mllama's cross-attention layers do)."""
    skipped = set(getattr(config, "cross_attention_layers", None) or [])
    return [index for index in range(config.num_hidden_layers) if index not in skipped]


def _cut_config(config, kept):
    cut = copy.deepcopy(config)
    cut.vocab_size, cut.pad_token_id, cut.num_hidden_layers, cut.use_cache = 1, None, len(kept), False
    if getattr(cut, "cross_attention_layers", None):
        cut.cross_attention_layers = []
    if getattr(cut, "layer_types", None):
        cut.layer_types = [config.layer_types[index] for index in kept]
    return cut


def _cut_weights(decoder, kept):
    """State of the kept layers under their new indices, and of the norm; fp32 copies, LoRA merged, 4 bits unpacked."""
    parts = {f"layers.{new}.": decoder.layers[old] for new, old in enumerate(kept)}
    others = {f"{name}.": part for name, part in decoder.named_children() if part is not decoder.layers and part is not decoder.get_input_embeddings()}
    return {name: value for prefix, part in {**parts, **others}.items() for name, value in _weights(part, prefix).items()}


def _weights(part, prefix):
    """State of a module as it would be without adapters and quantisation."""
    weights, packed = {}, set()
    for name, module in part.named_modules():
        if hasattr(module, "base_layer") and hasattr(module, "get_delta_weight"):
            packed.add(name)
            weights[f"{name}.weight"] = full_weight(module.base_layer) + sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
            weights.update({f"{name}.bias": module.base_layer.bias} if module.base_layer.bias is not None else {})
        elif isinstance(module, nn.Linear) and not any(name.startswith(f"{other}.") for other in packed):
            packed.add(name)
            weights[f"{name}.weight"] = full_weight(module)
            weights.update({f"{name}.bias": module.bias} if module.bias is not None else {})
    for name, tensor in part.state_dict().items():
        if not any(name.startswith(f"{other}.") for other in packed):
            weights[name] = tensor
    return {prefix + name: whole_tensor(tensor.detach()).cpu().float() for name, tensor in weights.items()}
