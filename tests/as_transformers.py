"""A backbone without its shortcuts, for what is compared with them."""

import contextlib
from unittest import mock

from torch import nn

from recbole_molar.model.backbone.patches import PatchProjection


@contextlib.contextmanager
def as_transformers_computes(mirm):
    """While inside, MIRM's model computes as transformers does: SDPA, picture by picture; a convolution; the processor's own work on each picture."""
    backbone = mirm.backbone
    with (
        mock.patch.object(backbone.attention, "set", lambda like: backbone.plain.set_attn_implementation("sdpa")),
        mock.patch.object(PatchProjection, "forward", nn.Conv3d.forward),
        mock.patch.object(mirm.collator, "image_inputs", backbone.image_inputs.process),
    ):
        yield
