"""Rows grow as a list that is joined would."""

import torch

from recbole_molar.trainer.rows import Rows


def test_rows_are_those_that_came():
    parts = [torch.randint(100, (size, 3)) for size in (5, 1, 0, 4096, 9000, 2)]
    rows = Rows(parts[:1])
    for part in parts[1:]:
        rows.append(part)
    assert torch.equal(rows.all(), torch.cat(parts)) and len(rows) == 13104 and rows.all().dtype == torch.long
    assert Rows().all() is None and not Rows()
