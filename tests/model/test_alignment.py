"""Post-alignment loss against numbers worked by hand."""

import math

import pytest
import torch

from recbole_molar.model.alignment import alignment_loss


def test_zero_embeddings_give_log_b_in_each_direction():
    zero = torch.zeros(5, 8)
    assert alignment_loss(zero, torch.randn(5, 8), 0.1).item() == pytest.approx(2 * math.log(5), rel=1e-6)


def test_by_hand():
    id_user = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    content_user = torch.tensor([[3.0, 0.0], [5.0, 0.0]])  # cosines / 0.5: [[2, 2], [0, 0]]
    rows = math.log(2)  # each row of scores is constant
    columns = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    assert alignment_loss(id_user, content_user, 0.5).item() == pytest.approx(rows + columns, rel=1e-5)


def test_symmetric_and_blind_to_length_and_order():
    one, other, order = torch.randn(6, 4), torch.randn(6, 4), torch.randperm(6)
    loss = alignment_loss(one, other, 0.2)
    for pair in ((other, one), (3 * one, 0.5 * other), (one[order], other[order])):
        torch.testing.assert_close(alignment_loss(*pair, 0.2), loss)


def test_low_temperature_and_aligned_users_give_zero():
    assert alignment_loss(torch.eye(4), torch.eye(4), 0.01).item() < 1e-6


def test_a_users_second_window_is_no_negative():
    one, other = torch.zeros(4, 8), torch.zeros(4, 8)
    loss = alignment_loss(one, other, 0.1, user_ids=torch.tensor([1, 1, 2, 3]))
    assert loss.item() == pytest.approx(2 * (2 * math.log(3) + 2 * math.log(4)) / 4, rel=1e-6)
    same = torch.randn(3, 8, requires_grad=True)
    alone = alignment_loss(same, torch.randn(3, 8), 0.1, user_ids=torch.tensor([9, 9, 9]))
    alone.backward()
    assert alone.item() == 0 and torch.isfinite(same.grad).all()


def test_distinct_ids_change_nothing_and_autocast_stays_precise():
    one, other = torch.randn(6, 4), torch.randn(6, 4)
    loss = alignment_loss(one, other, 0.05)
    assert torch.equal(alignment_loss(one, other, 0.05, user_ids=torch.arange(6)), loss)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(alignment_loss(one, other, 0.05), loss)


def test_gradient_reaches_both_sides_and_the_temperature():
    one, other, temperature = (it.requires_grad_() for it in (torch.randn(6, 4), torch.randn(6, 4), torch.tensor(0.1)))
    alignment_loss(one, other, temperature).backward()
    assert all(it.grad.abs().sum() > 0 for it in (one, other, temperature))
