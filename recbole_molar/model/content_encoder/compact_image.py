"""The offline stand-in for an image encoder: a small ViT, to be trained on the catalogue's own pictures by masked image modelling."""

import torch
from torch import nn
from transformers import ViTConfig, ViTForMaskedImageModeling
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from recbole_molar.data.content_collator import ImageCollator
from recbole_molar.model.content_encoder.base import quiet

HIDDEN = 0.5  # share of the patches (SimMIM: 0.4 to 0.8)


class CompactImage(nn.Module):
    """ViT (Dosovitskiy et al., ICLR 2021) at a small size, which paints hidden patches as in SimMIM (Xie et al., CVPR 2022).

    Args:
        content (ItemContent): the items; nothing else is seen.
        hidden_size, layers, heads (int): `encoder_…`. side (int): of the square that pictures are brought to, in pixels; patch (int): divides it.
    """

    def __init__(self, content, hidden_size=128, layers=2, heads=4, side=64, patch=8):
        super().__init__()
        config = ViTConfig(
            hidden_size=hidden_size, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden_size, image_size=side,
            patch_size=patch, encoder_stride=patch, initializer_range=hidden_size**-0.5,  # 0.02 is made for a width of 768
        )  # fmt: skip
        self.model, self.n_patches = ViTForMaskedImageModeling(config), (side // patch) ** 2
        self.processor = ViTImageProcessorPil(size={"height": side, "width": side})
        self.collator = ImageCollator(content, self.processor, (side, side))

    @property
    def encoder(self):
        """What is kept of it."""
        return self.model.vit

    def loss(self, items):
        """Mean absolute error of the hidden pixels of some items' pictures, a scalar."""
        pixels = self.collator.collate(items)["pixel_values"].to(self.model.device)
        order = torch.rand(len(items), self.n_patches, device=pixels.device).argsort(1)
        hidden = order < max(1, int(HIDDEN * self.n_patches))  # [N, patches]
        return self.model(pixel_values=pixels, bool_masked_pos=hidden).loss

    def save(self, folder):
        """Write it as `save_pretrained` does, to be loaded as any other encoder."""
        with quiet():
            self.encoder.save_pretrained(folder)
            self.processor.save_pretrained(folder)
