"""Next-item losses against numbers worked by hand and against plain PyTorch."""

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_molar.model.loss import bce_loss, ce_loss, nce_loss


def test_bce_by_hand():
    user = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    positive = torch.tensor([[math.log(3), 5.0], [7.0, 0.0]])  # scores log 3 and 0: σ = 3/4, 1/2
    negative = torch.tensor([[0.0, 1.0], [3.0, math.log(4) / 2]])  # scores 0 and log 4: 1 - σ = 1/2, 1/5
    expected = (math.log(4 / 3) + math.log(2) + math.log(2) + math.log(5)) / 2
    assert bce_loss(user, positive, negative).item() == pytest.approx(expected, rel=1e-6)
    assert bce_loss(user * 0, positive, negative).item() == pytest.approx(2 * math.log(2))


def test_bce_survives_large_scores():
    user = torch.full((1, 1), 1e4, requires_grad=True)
    loss = bce_loss(user, -torch.ones(1, 1), torch.ones(1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(2e4) and user.grad.item() == pytest.approx(2.0)


def test_nce_by_hand():
    user = torch.tensor([[3.0, 0.0]])
    positive = torch.tensor([[5.0, 0.0]])  # cosine 1
    negatives = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])  # cosines 0 and -1
    ids = torch.tensor([7]), torch.tensor([8, 9])
    loss = nce_loss(user, positive, negatives, *ids, torch.tensor(math.log(0.5)))  # scores 2, 0, -2
    assert loss.item() == pytest.approx(math.log(math.exp(2) + 1 + math.exp(-2)) - 2, rel=1e-5)


def test_nce_masks_a_negative_that_is_the_target():
    user, positive, negatives = torch.zeros(2, 4), torch.ones(2, 4), torch.ones(3, 4)
    targets, negative_ids = torch.tensor([5, 6]), torch.tensor([5, 8, 5])
    loss = nce_loss(user, positive, negatives, targets, negative_ids, torch.zeros(()))
    assert loss.item() == pytest.approx((math.log(1 + 1) + math.log(1 + 3)) / 2)


def test_nce_with_every_negative_masked_is_zero():
    user, negatives = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4)
    loss = nce_loss(user, torch.randn(2, 4), negatives, torch.tensor([3, 3]), torch.tensor([3, 3]), torch.zeros(()))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(user.grad).all()


def test_nce_temperature_learns():
    log_temperature = torch.tensor(math.log(0.05), requires_grad=True)
    args = torch.randn(4, 8), torch.randn(4, 8), torch.randn(6, 8), torch.arange(4), torch.arange(10, 16)
    nce_loss(*args, log_temperature).backward()
    assert log_temperature.grad.abs() > 0


def test_nce_log_q_estimates_the_full_softmax():
    """All other items drawn once from a uniform sampler: the corrected loss is the full cross-entropy."""
    table, user = F.normalize(torch.randn(6, 8), dim=-1), F.normalize(torch.randn(1, 8), dim=-1)
    others = torch.tensor([0, 1, 3, 4, 5])
    log_q = torch.full((5,), -math.log(5))
    loss = nce_loss(user, table[2:3], table[others], torch.tensor([2]), others, torch.zeros(()), log_q)
    assert loss.item() == pytest.approx(F.cross_entropy(user @ table.T, torch.tensor([2])).item(), rel=1e-5)
    rare = nce_loss(user, table[2:3], table[others], torch.tensor([2]), others, torch.zeros(()), log_q - 1)
    assert rare > loss  # rarely drawn negatives stand for more of the catalogue


def _ce_case(rows=37, items=23, dim=8):
    generator = torch.Generator().manual_seed(1)
    user = torch.randn(rows, dim, generator=generator, requires_grad=True)
    table = torch.randn(items, dim, generator=generator, requires_grad=True)
    return user, table, torch.randint(1, items, (rows,), generator=generator)


@pytest.mark.parametrize("block", [1, 5, 37, 64, None])
def test_ce_equals_plain_cross_entropy(block):
    user, table, target = _ce_case()
    expected = F.cross_entropy(user @ table[1:].T, target - 1)
    wanted = torch.autograd.grad(3 * expected, (user, table))
    loss = ce_loss(user, table, target, block)
    got = torch.autograd.grad(3 * loss, (user, table))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, other in zip(got, wanted):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert (got[1][0] == 0).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("first, block", [(1, 5), (1, None), (0, 5)])
def test_ce_with_a_teacher_is_that_of_the_mixed_targets(share, first, block):
    user, table, target = _ce_case()
    teacher_user, teacher_table = torch.randn(37, 3, requires_grad=True), torch.randn(23, 3, requires_grad=True)
    mixed = share * (teacher_user @ teacher_table[first:].T).softmax(1).detach() + (1 - share) * F.one_hot(target - first, 23 - first)
    expected = F.cross_entropy(user @ table[first:].T, mixed)
    loss = ce_loss(user, table, target, block, first, teacher=(teacher_user, teacher_table, share))
    torch.testing.assert_close(loss, expected)
    for one, other in zip(torch.autograd.grad(loss, (user, table)), torch.autograd.grad(expected, (user, table)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert ce_loss(user, table, target, block, first, teacher=(teacher_user, teacher_table, share)).item() == pytest.approx(expected.item(), rel=1e-2)


@pytest.mark.parametrize("block", [5, None])
def test_ce_under_autocast(block):
    user, table, target = _ce_case()
    expected = F.cross_entropy(user @ table[1:].T, target - 1)
    wanted = torch.autograd.grad(expected, (user, table))
    with torch.autocast("cpu", torch.bfloat16):
        loss = ce_loss(user, table, target, block)
    got = torch.autograd.grad(loss, (user, table))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-2)
    for one, other in zip(got, wanted):
        assert one.dtype == torch.float32 and (one - other).norm() < 2e-2 * other.norm()


def test_ce_by_hand_and_at_the_edges():
    user, table, target = _ce_case()
    assert ce_loss(user * 0, table, target).item() == pytest.approx(math.log(22), rel=1e-6)
    assert ce_loss(user[:0], table, target[:0]).item() == 0
    huge = ce_loss(user * 1e4, table, target)
    huge.backward()
    assert torch.isfinite(huge) and torch.isfinite(user.grad).all() and torch.isfinite(table.grad).all()


def test_ce_of_a_frozen_table_and_without_grad():
    user, table, target = _ce_case()
    (frozen,) = torch.autograd.grad(ce_loss(user, table.detach(), target, 5), user)
    (plain,) = torch.autograd.grad(ce_loss(user, table, target, 5), user)
    assert torch.equal(frozen, plain)
    with torch.no_grad():
        assert not ce_loss(user, table, target).requires_grad


def test_ce_keeps_no_matrix_of_logits():
    """What autograd holds between forward and backward is the size of the inputs."""
    user, table, target = _ce_case(rows=300, items=400)
    loss = ce_loss(user, table, target, 16)
    assert sum(tensor.numel() for tensor in loss.grad_fn.saved_tensors) == user.numel() + table.numel()
