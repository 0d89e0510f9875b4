"""A backbone without its shortcuts, for what is compared with them."""

import contextlib
from unittest import mock

from torch import nn

from recbole_molar.model.backbone.attention import attend_our_way
from recbole_molar.model.backbone.last_layer import ReadRows
from recbole_molar.model.backbone.patches import PatchProjection


@contextlib.contextmanager
def as_transformers_computes(mirm):
    """While inside, MIRM's model computes as transformers does: SDPA, picture by picture; a convolution; the processor's own work on
    each picture; the last layer for all tokens."""
    backbone = mirm.backbone
    backbone.plain.set_attn_implementation("sdpa")
    with (
        mock.patch.object(ReadRows, "only", lambda rows, read: contextlib.nullcontext()),
        mock.patch.object(PatchProjection, "forward", nn.Conv3d.forward),
        mock.patch.object(mirm.collator, "image_inputs", backbone.image_inputs.process),
    ):
        yield
    attend_our_way(backbone.plain)
