"""One contract for every user encoder, and what DUEG promises beyond it."""

import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from transformers import LlamaConfig, LlamaModel, Qwen2VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

from recbole_molar.lookup import available, find_class
from recbole_molar.model.backbone.user_decoder import DecoderStack
from recbole_molar.model.user_encoder.dueg import DUEG

KIND = "model.user_encoder"
B, L, D = 4, 7, 16
DECODERS = {"qwen2_vl": (Qwen2VLTextConfig, Qwen2VLTextModel), "llama": (LlamaConfig, LlamaModel)}
PROPERTIES = Path(__file__).parents[3] / "properties" / "user_encoder"
DUEGS = ({"dueg_user_token": "last"}, {"dueg_input_scale": None}, {"dueg_recurrent_size": 8}, {"dueg_recurrent_size": 8, "dueg_user_token": "last"},
         {"dueg_layer_dropout": 0.3})  # fmt: skip
CASES = [(name, {}) for name in available(KIND)] + [("DUEG", options) for options in DUEGS]
ids = [name + "".join(f"-{value}" for value in options.values()) for name, options in CASES]
every_encoder = pytest.mark.parametrize("name, options", CASES, ids=ids)


def tiny_decoder(architecture="qwen2_vl"):
    """A decoder of random weights, as the backbone hands it to DUEG."""
    rope = {"rope_type": "default", "rope_theta": 1e4} | ({"mrope_section": [2, 1, 1]} if architecture == "qwen2_vl" else {})
    shape = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32}
    tokens = {"vocab_size": 8, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config_class, model_class = DECODERS[architecture]
    return DecoderStack(model_class(config_class(**shape, **tokens, rope_parameters=rope, initializer_range=0.1)))


def build(name, options, **more):
    torch.manual_seed(0)
    return find_class(name, KIND).build(D, decoder=tiny_decoder(), max_length=L, **options, **more)


def histories():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(B, L, D, generator=generator), torch.tensor([L, 1, 4, 6])


def valid(output, item_seq_len):
    return output[torch.arange(output.size(1)) < item_seq_len[:, None]]


def test_the_four_encoders_are_found():
    assert {"DUEG", "SASRec", "GRU4Rec", "FPMC"} <= set(available(KIND))


@pytest.mark.parametrize("name", available(KIND))
def test_properties_name_every_option_with_its_default(name):
    encoder = find_class(name, KIND)
    stated = yaml.safe_load((PROPERTIES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert stated == {key: inspect.signature(encoder.build).parameters[key].default for key in encoder.option_keys()}


@every_encoder
def test_shape_and_finite_in_padding(name, options):
    output = build(name, options)(*histories())
    assert output.shape == (B, L, D) and torch.isfinite(output).all()


@every_encoder
def test_the_future_changes_nothing(name, options):
    encoder, (items, lengths) = build(name, options).eval(), histories()
    for position in (1, 3, L - 1):
        changed = items.clone()
        changed[:, position:] = torch.randn(B, L - position, D)
        before, after = encoder(items, lengths), encoder(changed, lengths)
        torch.testing.assert_close(before[:, :position], after[:, :position], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(before[0, position], after[0, position])


@every_encoder
def test_the_past_counts(name, options):
    encoder, (items, lengths) = build(name, options).eval(), histories()
    changed = torch.cat([items[:, 1:2], items[:, :1], items[:, 2:]], dim=1)
    changed[:, 0] *= -1
    assert not torch.allclose(encoder(items, lengths)[0, -1], encoder(changed, lengths)[0, -1], atol=1e-6)


@every_encoder
def test_padding_changes_nothing(name, options):
    encoder, (items, lengths) = build(name, options).eval(), histories()
    noise = torch.where((torch.arange(L) < lengths[:, None])[..., None], items, 9 * torch.randn(B, L, D))
    expected = valid(encoder(items, lengths), lengths)
    torch.testing.assert_close(valid(encoder(noise, lengths), lengths), expected, atol=1e-5, rtol=1e-5)
    short = encoder(items[2:3, :4], lengths[2:3])
    torch.testing.assert_close(short[0], encoder(items, lengths)[2, :4], atol=1e-5, rtol=1e-5)


@every_encoder
def test_batch_composition_changes_nothing(name, options):
    encoder, (items, lengths) = build(name, options).eval(), histories()
    alone = torch.cat([valid(encoder(items[row : row + 1], lengths[row : row + 1]), lengths[row : row + 1]) for row in range(B)])
    torch.testing.assert_close(alone, valid(encoder(items, lengths), lengths), atol=1e-5, rtol=1e-5)


@every_encoder
def test_last_is_forward_at_the_last_item(name, options):
    encoder, (items, lengths) = build(name, options).eval(), histories()
    expected = encoder(items, lengths)[torch.arange(B), lengths - 1]
    torch.testing.assert_close(encoder.last(items, lengths), expected, atol=1e-5, rtol=1e-5)


@every_encoder
def test_gradient_reaches_items_and_every_parameter(name, options):
    encoder, (items, lengths) = build(name, options), histories()
    items.requires_grad_()
    (valid(encoder(items, lengths), lengths) * torch.randn(int(lengths.sum()), D)).sum().backward()
    real = torch.arange(L) < lengths[:, None]
    assert (items.grad[real].abs().sum(-1) > 0).all() and (items.grad[~real] == 0).all()
    missing = [key for key, it in encoder.named_parameters() if it.grad is None or not it.grad.any()]
    assert not missing


@every_encoder
def test_runs_under_autocast(name, options):
    encoder, (items, lengths) = build(name, options).eval(), histories()
    expected = encoder(items, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        output = encoder(items, lengths)
        last = encoder.last(items, lengths)
    assert (output.float() - expected).norm() < 3e-2 * expected.norm()
    assert (last.float() - expected[torch.arange(B), lengths - 1]).norm() < 3e-2 * last.float().norm()


@every_encoder
def test_learns_a_cycle(name, options):
    """Item i is always followed by i + 1: a few steps find it, from any start."""
    encoder = build(name, options)
    items = F.normalize(torch.randn(6, D), dim=-1) * D**0.5
    sequence = (torch.arange(6)[:, None] + torch.arange(L + 1)) % 6
    lengths = torch.full((6,), L)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.01)
    for _ in range(60):
        scores = encoder(items[sequence[:, :-1]], lengths) @ items.T
        optimizer.zero_grad()
        F.cross_entropy(scores.flatten(0, 1), sequence[:, 1:].flatten()).backward()
        optimizer.step()
    scores = encoder.eval().last(items[sequence[:, :-1]], lengths) @ items.T
    assert (scores.argmax(-1) == sequence[:, -1]).all()


@pytest.mark.parametrize("architecture", DECODERS)
def test_dueg_all_prefixes_equal_each_prefix_alone(architecture):
    """The state of every [User] is what the decoder, plainly causal, gives for that prefix with [User] at its end."""
    torch.manual_seed(0)
    dueg = DUEG.build(D, decoder=tiny_decoder(architecture), dueg_user_token="last", dueg_input_scale=None).eval()
    items, lengths = histories()
    output = dueg(items, lengths)
    for position in range(L):
        user = dueg.user_token.expand(B, 1, D)
        alone = dueg.decoder(torch.cat([items[:, : position + 1], user], dim=1))[:, -1]
        torch.testing.assert_close(output[:, position], alone, atol=1e-5, rtol=1e-5)


def test_dueg_first_reads_the_items_behind_the_user_token():
    dueg, (items, lengths) = build("DUEG", {"dueg_user_token": "first", "dueg_input_scale": None}).eval(), histories()
    plain = dueg.decoder(torch.cat([dueg.user_token.expand(B, 1, D), items], dim=1))
    assert torch.equal(dueg(items, lengths), plain[:, 1:])


def test_dueg_input_scale_makes_it_blind_to_the_tables_scale():
    dueg, (items, lengths) = build("DUEG", {}).eval(), histories()
    torch.testing.assert_close(dueg(items, lengths), dueg(50 * items, lengths), atol=1e-4, rtol=1e-4)
    plain = build("DUEG", {"dueg_input_scale": None}).eval()
    assert not torch.allclose(plain(items, lengths), plain(50 * items, lengths), atol=1e-2)


def test_dueg_learns_its_token_over_a_frozen_decoder():
    dueg, (items, lengths) = build("DUEG", {}), histories()
    dueg.decoder.requires_grad_(False)
    dueg(items, lengths).sum().backward()
    assert dueg.user_token.grad.abs().sum() > 0 and dueg.input_scale.grad.abs() > 0


def test_what_a_user_wrote_wrong_is_named():
    with pytest.raises(ValueError, match="dueg_user_token=middle.*last, first"):
        build("DUEG", {"dueg_user_token": "middle"})
    with pytest.raises(ValueError, match="user_encoder_heads=3.*16"):
        build("SASRec", {"user_encoder_heads": 3})
    assert DUEG.option_keys() == ["dueg_user_token", "dueg_dropout", "dueg_input_scale", "dueg_recurrent_size", "dueg_layer_dropout"]
