"""The learning-rate schedule, by hand."""

import pytest

from recbole_molar.trainer.schedule import warmup_cosine


@pytest.mark.parametrize(("step", "share"), [(0, 0.01), (5, 0.505), (10, 1.0), (55, 0.5), (100, 0.0), (200, 0.0)])
def test_warm_up_then_cosine(step, share):
    assert warmup_cosine(step, 100, 10) == pytest.approx(share)


def test_final_share_and_constant():
    assert warmup_cosine(100, 100, 10, final=0.01) == pytest.approx(0.01)
    assert warmup_cosine(60, 100, 10, cosine=False) == 1.0
    assert warmup_cosine(0, 100, 0) == 1.0
