"""The fused layers give what RecBole's give, attention where no dropout is at work, and leave the rest alone."""

import copy

import pytest
import torch
from recbole.model.layers import FeedForward, MultiHeadAttention, TransformerEncoder

from recbole_molar.model.fused_layers import fuse_layers, last_layer_at


def layer(dropout):
    torch.manual_seed(0)
    return MultiHeadAttention(2, 8, 0.0, dropout, 1e-12)


@pytest.mark.parametrize("mask", ["causal", "padding"])
@pytest.mark.parametrize("training", [True, False])
def test_values_and_gradients_are_recboles(mask, training):
    plain, fused = layer(0.0 if training else 0.4).train(training), fuse_layers(torch.nn.Sequential(layer(0.0 if training else 0.4)))[0].train(training)
    wide = torch.triu(torch.full((5, 5), -10000.0), 1)[None, None].expand(3, 1, 5, 5)
    narrow = torch.tensor([[0, 0, 0, 0, 0.0], [0, 0, -1e4, -1e4, -1e4], [0, -1e4, -1e4, -1e4, -1e4]])[:, None, None]
    x = torch.randn(3, 5, 8)
    found = []
    for one in (plain, fused):
        given = x.clone().requires_grad_()
        out = one(given, wide if mask == "causal" else narrow)
        (out * torch.arange(8.0)).sum().backward()
        found.append([out, given.grad, *(parameter.grad for parameter in one.parameters())])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    assert "forward" in vars(fused) and "forward" not in vars(plain) and set(fused.state_dict()) == set(plain.state_dict())


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_is_torchs_in_distribution(p, dtype):
    drop = fuse_layers(torch.nn.Sequential(torch.nn.Dropout(p)))[0].train()
    torch.manual_seed(0)
    x = torch.ones(321, 317, dtype=dtype, requires_grad=True)  # no multiple of four
    out = drop(x)
    kept = (out > 0).float()
    n, spread = x.numel(), (p * (1 - p)) ** 0.5
    assert abs(float(kept.mean()) - (1 - p)) < 4.5 * spread / n**0.5
    assert float(out.detach().float().unique().max()) == pytest.approx(1 / (1 - p), rel=5e-3 if dtype == torch.bfloat16 else 1e-3)
    for apart in (1, 2, 4, 317):  # neighbours know nothing of each other
        both = kept.flatten()[:-apart] * kept.flatten()[apart:]
        assert abs(float(both.mean()) - (1 - p) ** 2) < 9 * spread / n**0.5
    out.sum().backward()
    assert torch.equal(x.grad > 0, out > 0) and torch.equal(x.grad, out.detach())
    torch.manual_seed(0)
    assert torch.equal(drop(x), out) and not torch.equal(drop(x), out)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_all(p):
    x = torch.ones(3, 5)
    assert torch.equal(fuse_layers(torch.nn.Sequential(torch.nn.Dropout(p))).train()(x), (1 - p) * x)


def test_attention_drops_as_recboles():
    """The mean over many draws is that of RecBole's layer, whose own dropout is PyTorch's."""
    plain, fused = layer(0.3).train(), fuse_layers(layer(0.3)).train()
    assert "forward" in vars(fused.attn_dropout) and "forward" not in vars(plain.attn_dropout)
    x, mask = torch.randn(3, 5, 8), torch.zeros(3, 1, 1, 5)
    with torch.no_grad():
        means = [torch.stack([one(x, mask) for _ in range(4000)]).mean(0) for one in (plain, fused)]
    torch.testing.assert_close(*means, atol=0.05, rtol=0)
    assert not torch.allclose(fused(x, mask), fused(x, mask))


@pytest.mark.parametrize("activation", ["gelu", "swish", "relu"])
def test_activations_are_recboles(activation):
    torch.manual_seed(0)
    plain = FeedForward(8, 16, 0.0, activation, 1e-12)
    fused = fuse_layers(torch.nn.Sequential(copy.deepcopy(plain)))[0]
    own = plain.intermediate_act_fn
    assert (fused.intermediate_act_fn is own) == (activation == "relu")  # its kernel is fused as it is
    x = 3 * torch.randn(4, 8)
    torch.testing.assert_close(fused(x), plain(x))


def test_an_activation_of_a_subclass_is_left_alone():
    class Other(FeedForward):
        def gelu(self, x):
            return 2 * x

    other = Other(8, 16, 0.0, "gelu", 1e-12)
    fuse_layers(other)
    assert torch.equal(other.intermediate_act_fn(torch.ones(3)), torch.full((3,), 2.0))


@pytest.mark.parametrize("mask", ["causal", "padding"])
@pytest.mark.parametrize("all_layers", [True, False])
def test_the_last_layer_for_one_place_of_each_row(mask, all_layers):
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(TransformerEncoder(n_layers=2, n_heads=2, hidden_size=8, inner_size=16)).eval()
    x, places = torch.randn(3, 5, 8), torch.tensor([4, 0, 2])
    wide = torch.triu(torch.full((5, 5), -10000.0), 1)[None, None].expand(3, 1, 5, 5)
    narrow = torch.where(torch.arange(5) <= places[:, None], 0.0, -1e4)[:, None, None]
    given = wide if mask == "causal" else narrow
    whole = encoder[0](x, given, output_all_encoded_layers=all_layers)
    fuse_layers(encoder)
    rows = torch.arange(3)
    with last_layer_at(encoder, (rows[:, None], places[:, None])):
        found = encoder[0](x, given, output_all_encoded_layers=all_layers)
    assert len(found) == len(whole) == (2 if all_layers else 1)
    torch.testing.assert_close(found[-1][rows, places], whole[-1][rows, places], rtol=1e-4, atol=1e-5)
    assert found[-1].count_nonzero(-1).count_nonzero() == 3
    torch.testing.assert_close(encoder[0](x, given)[-1], encoder[0](x, given)[-1])
    assert encoder[0](x, given)[-1].count_nonzero(-1).count_nonzero() == 15  # only inside
