"""The fused layers give what RecBole's give, attention where no dropout is at work, and leave the rest alone."""

import copy

import pytest
import torch
from recbole.model.layers import FeedForward, MultiHeadAttention

from recbole_molar.model.fused_layers import fuse_layers


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


def test_dropout_stays_recboles():
    plain, fused = layer(0.5).train(), fuse_layers(layer(0.5)).train()
    x, mask = torch.randn(3, 5, 8), torch.zeros(3, 1, 1, 5)
    outs = []
    for one in (plain, fused):
        torch.manual_seed(1)
        outs.append(one(x, mask))
    assert torch.equal(*outs) and not torch.equal(outs[1], fused(x, mask))


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
