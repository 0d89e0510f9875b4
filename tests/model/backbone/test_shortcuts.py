"""Faster ways inside a backbone give what transformers gives: attention over the pictures of a batch, patches by a product, a processor's tensors."""

import numpy as np
import pytest
import torch
from toy_items import toy_content, toy_mirm
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from recbole_molar.model.backbone.attention import PACKED, attend_packed, wants_products
from recbole_molar.model.backbone.patches import PatchProjection, project_patches_by_product
from recbole_molar.model.backbone.pixels import PictureInputs


def picture_by_picture(query, key, value, lengths):
    parts = zip(*(states.split(lengths, dim=2) for states in (query, key, value)))
    module = torch.nn.Module()
    return torch.cat([sdpa_attention_forward(module, *part, None, is_causal=False)[0] for part in parts], dim=1)


@pytest.mark.parametrize("lengths", [[6], [6, 6, 6], [8, 2, 8, 2], [3, 5, 3]])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_packed_attention_is_that_of_each_picture(lengths, with_gradients):
    given = [torch.randn(1, 2, sum(lengths), 4, requires_grad=with_gradients) for _ in range(3)]
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    with torch.set_grad_enabled(with_gradients):
        assert wants_products(given[0]) == with_gradients
        found, _ = attend_packed(None, *given, cu_seq_lens_q=ends, max_length_q=max(lengths), is_causal=False)
        expected = picture_by_picture(*given, lengths)
    assert torch.allclose(found, expected, atol=1e-6)
    if with_gradients:
        weights = torch.randn_like(found)
        for one, other in zip(*(torch.autograd.grad((states * weights).sum(), given) for states in (found, expected))):
            assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_a_patch_through_a_product_is_the_convolution(bias):
    convolution = torch.nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4), bias=bias)
    patches, weights = torch.randn(5, 3, 2, 4, 4), torch.randn(5, 8, 1, 1, 1)
    whole = torch.randn(1, 3, 4, 8, 8)  # more than one patch: a convolution still
    expected = [convolution(patches), convolution(whole)]
    gradients = torch.autograd.grad((expected[0] * weights).sum(), convolution.parameters())
    names = [name for name, _ in convolution.named_parameters()]
    project_patches_by_product(convolution)
    found = [convolution(patches), convolution(whole)]
    assert type(convolution) is PatchProjection and [name for name, _ in convolution.named_parameters()] == names
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected))
    again = torch.autograd.grad((found[0] * weights).sum(), convolution.parameters())
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(again, gradients))


def pictures(n, width=12, height=10):
    return list(np.random.default_rng(n).integers(0, 256, (n, height, width, 3), dtype=np.uint8))


def scale_and_turn(images):
    """A processor that scales each channel by its own numbers, puts pixels in patches, and says how many patches there are."""
    pixels = (np.stack(images).astype(np.float32) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    rows, columns = pixels.shape[1] // 2, pixels.shape[2] // 2
    patches = pixels.reshape(len(images), rows, 2, columns, 2, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 12)
    return {"pixel_values": torch.from_numpy(np.concatenate([patches, patches], 1)).float(), "grid": torch.tensor([[1, rows, columns]] * len(images))}


def test_a_processor_that_only_rearranges_is_asked_for_its_rule_alone():
    calls = []

    def counted(images):
        calls.append(len(images))
        return scale_and_turn(images)

    inputs = PictureInputs(counted, (12, 10))
    for n in (1, 3, 7):
        found, expected = inputs(pictures(n)), scale_and_turn(pictures(n))
        assert found.keys() == expected.keys() and all(found[name].shape == expected[name].shape for name in found)
        assert torch.allclose(found["pixel_values"], expected["pixel_values"], atol=1e-5) and torch.equal(found["grid"], expected["grid"])
    assert calls == [1, 1, 1, 1, 2], "black, white, two digits of 360 places, two random pictures"
    inputs(pictures(2, width=14))
    assert calls[-1] == 2 and len(calls) == 6, "a picture of another size goes to the processor"


@pytest.mark.parametrize(
    "process",
    [
        lambda images: {"pixel_values": torch.nn.functional.avg_pool2d(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255.0, 2)},  # resizes
        lambda images: {"pixel_values": torch.from_numpy(np.stack(images)).float() ** 0.5},  # not linear
        lambda images: {"pixel_values": torch.from_numpy(np.stack(images)).float() / np.stack(images).mean()},  # depends on the other pictures
        lambda images: {"pixel_values": torch.from_numpy(np.stack(images)).float(), "sizes": [image.shape for image in images]},  # no tensor
        lambda images: {"pixel_values": torch.from_numpy(np.stack(images))},  # whole numbers that differ
    ],
    ids=["resizes", "not linear", "joint", "no tensor", "integers"],
)
def test_any_other_processor_goes_on_as_it_is(process):
    inputs = PictureInputs(process, (12, 10))
    found, expected = inputs(pictures(3)), process(pictures(3))
    assert found.keys() == expected.keys() and torch.equal(found["pixel_values"], expected["pixel_values"])


def test_compact_takes_all_three_ways(tmp_path):
    backbone = toy_mirm(toy_content(tmp_path)).backbone
    backbone.image_inputs([np.zeros(backbone.image_inputs.shape, np.uint8)])
    assert backbone.image_inputs._rules.keys() == {"pixel_values", "image_grid_thw"}
    backbone.attention.set(torch.zeros(1))
    assert backbone.plain.config.vision_config._attn_implementation == PACKED
    assert any(type(module) is PatchProjection for module in backbone.model.modules())
