"""Histories of like lengths: each row once, parts bounded, lists cut and nothing else."""

from types import SimpleNamespace

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_molar.model import like_lengths
from recbole_molar.model.like_lengths import cut_to_longest, first_halves, parts_of_like_lengths


@pytest.mark.parametrize("most, n_parts", [(1, 5), (9, 3), (100, 2), (250, 1)])
def test_each_row_once_in_order_of_length(monkeypatch, most, n_parts):
    monkeypatch.setitem(like_lengths.POSITIONS, "cpu", most)
    lengths = torch.tensor([3, 50, 1, 3, 2])
    parts = parts_of_like_lengths(lengths)
    assert torch.cat(parts).tolist() == [2, 4, 0, 3, 1] and len(parts) == n_parts
    assert all(len(rows) == 1 or len(rows) * int(lengths[rows].max()) <= most for rows in parts)


def test_rows_where_all_positions_count_stand_apart(monkeypatch):
    monkeypatch.setitem(like_lengths.POSITIONS, "cpu", 9)
    lengths, first = torch.tensor([3, 5, 1, 3, 2, 4]), torch.tensor([0, 2, 0, 0, 0, 3])
    assert [rows.tolist() for rows in parts_of_like_lengths(lengths, first)] == [[2, 4, 0], [3], [5], [1]]
    for plain, found in zip(parts_of_like_lengths(lengths), parts_of_like_lengths(lengths, torch.zeros_like(lengths)), strict=True):
        assert torch.equal(plain, found)


def test_only_lists_are_cut():
    batch = Interaction({"seq": torch.arange(10).view(2, 5), "length": torch.tensor([2, 3]), "pair": torch.zeros(2, 2), "user": torch.tensor([7, 8])})
    cut = cut_to_longest(batch, SimpleNamespace(ITEM_SEQ="seq", ITEM_SEQ_LEN="length"))
    assert cut["seq"].tolist() == [[0, 1, 2], [5, 6, 7]] and cut["pair"].shape == (2, 2) and cut["user"].tolist() == [7, 8]
    assert batch["seq"].shape == (2, 5)


def test_first_halves_leave_something_to_cut():
    columns = {"seq": torch.arange(1, 11).view(2, 5), "length": torch.tensor([5, 1]), "features": torch.ones(2, 5, 3), "user": torch.tensor([7, 8])}
    columns["seq"][1, 1:] = 0
    half = first_halves(Interaction(columns), SimpleNamespace(ITEM_SEQ="seq", ITEM_SEQ_LEN="length"))
    assert half["seq"].tolist() == [[1, 2, 0, 0, 0], [6, 0, 0, 0, 0]] and half["length"].tolist() == [2, 1]
    assert half["features"].sum().item() == 9 and half["user"].tolist() == [7, 8] and columns["seq"][0, 4] == 5
