"""Faster ways inside a backbone give what transformers gives: attention over the pictures of a batch, patches by a product, a processor's tensors."""

import numpy as np
import pytest
import torch
from toy_items import toy_content, toy_mirm
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from recbole_molar.model.backbone import attention
from recbole_molar.model.backbone.attention import NAME, PACKED, attend, attend_packed, wants_products
from recbole_molar.model.backbone.last_layer import ReadRows
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


def masks():
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    padded = causal & torch.tensor([[False] * 2 + [True] * 4, [True] * 6])[:, None]  # the first row of the first history sees nothing
    least = torch.finfo(torch.float32).min
    yield "causal", None, True
    yield "both ways", None, False
    yield "one for all", causal[None, None], True
    yield "boolean", padded[:, None], True
    yield "additive", torch.zeros(2, 1, 6, 6).masked_fill(~padded[:, None], least), True
    yield "infinite", torch.zeros(1, 1, 6, 6).masked_fill(~causal, float("-inf")), True


@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("mask, is_causal", [case[1:] for case in masks()], ids=[case[0] for case in masks()])
def test_attention_is_that_of_the_fused_kernel(mask, is_causal, with_gradients):
    module = torch.nn.Module()
    module.num_key_value_groups, module.read_rows = 2, ReadRows(torch.nn.Module())
    given = [torch.randn(2, heads, 6, 4, requires_grad=with_gradients) for heads in (4, 2, 2)]
    read = torch.zeros(2, 6, dtype=torch.bool)
    read[[0, 1], [5, 3]] = True
    with torch.set_grad_enabled(with_gradients):
        found, _ = attend(module, *given, mask, scaling=0.7, is_causal=is_causal)
        expected, _ = sdpa_attention_forward(module, *given, mask, scaling=0.7, is_causal=is_causal)
        with module.read_rows.only(read):
            alone, _ = attend(module, *given, mask, scaling=0.7, is_causal=is_causal)
        with torch.autocast("cpu", torch.bfloat16):
            low, _ = attend(module, *given, mask, scaling=0.7, is_causal=is_causal)
    counts = slice(2, None)  # what sees nothing has no right answer, only a finite one
    assert torch.allclose(found[:, counts], expected[:, counts], atol=1e-6) and found.isfinite().all()
    assert torch.allclose(alone[read], expected[read], atol=1e-6) and not alone[~read].any()
    assert low.isfinite().all() and torch.allclose(low[:, counts].float(), expected[:, counts], atol=0.05)
    if with_gradients:
        weights = torch.randn_like(found)
        weights[:, :2] = 0
        for states in (found, low.float()):
            for one, other in zip(*(torch.autograd.grad((it * weights).sum(), given, retain_graph=True) for it in (states, expected))):
                assert torch.allclose(one, other, atol=1e-5 if states is found else 0.3)


@pytest.mark.parametrize("name", attention.NOT_OURS)
def test_what_an_architecture_adds_to_attention_is_left_to_transformers(monkeypatch, name):
    given = [torch.randn(1, 2, 3, 4, requires_grad=True) for _ in range(3)]
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *args, **others: (others[name], None))
    assert attend(torch.nn.Module(), *given, None, **{name: "theirs"})[0] == "theirs"
    assert attend(torch.nn.Module(), *given, None)[0].shape == (1, 3, 2, 4)


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
    assert (backbone.plain.config.vision_config._attn_implementation, backbone.decoder.config._attn_implementation) == (PACKED, NAME)
    assert backbone.user_decoder(1).decoder.config._attn_implementation == NAME
    assert any(type(module) is PatchProjection for module in backbone.model.modules())


def test_the_last_layer_is_computed_for_what_is_read_alone(tmp_path):
    mirm = toy_mirm(toy_content(tmp_path)).eval()
    seen = []
    mirm.backbone.decoder.layers[-1].mlp.register_forward_hook(lambda module, given, output: seen.append((tuple(given[0].shape), tuple(output.shape))))
    (_, batch), *_ = mirm.collator.batches([1, 2, 3], 4)
    n, length = batch["input_ids"].shape
    with torch.no_grad():
        found = mirm(batch)
        whole = mirm.backbone.encode(batch)[batch["input_ids"] == mirm.collator.prompt.cur_item_id]
    dim = mirm.embedding_dim
    assert torch.allclose(found, whole, atol=1e-5) and seen == [((1, n, dim), (n, length, dim)), ((n, length, dim), (n, length, dim))]


def test_layers_that_are_computed_again_are_computed_whole(tmp_path):
    """Gradient checkpointing runs the last layer anew when another batch may have been read since."""
    content, gradients = toy_content(tmp_path), []
    for recomputes in (False, True):
        mirm = toy_mirm(content, gradient_checkpointing=recomputes).train()
        sum(mirm([*mirm.collator.batches(items, 4)][0][1]).sum() for items in ([1, 2], [3])).backward()
        gradients.append([value.grad for value in mirm.parameters() if value.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) and all(torch.allclose(*pair, rtol=1e-3, atol=1e-4) for pair in zip(*gradients))
