"""Embeddings from features: by hand, for items without a modality, and kept or computed anew."""

import pytest
import torch

from recbole_molar.model.content_embedding import ContentEmbedding
from recbole_molar.model.item_adapter import standardize

TEXT = torch.tensor([[0.0, 0.0], [1.0, 5.0], [3.0, 5.5], [1.0, 5.0], [3.0, 5.5]])  # items 1 and 3 are alike, 2 and 4 too
IMAGE = torch.tensor([[0.0], [2.0], [0.0], [6.0], [0.0]])  # 2 and 4 have none


def test_features_by_hand():
    made = ContentEmbedding([TEXT, IMAGE], 3, "linear")
    expected = torch.tensor([[0, 0, 0], [-1, -1, -1], [1, 1, 0], [-1, -1, 1], [1, 1, 0]], dtype=torch.float32)
    torch.testing.assert_close(made.features(), expected)
    with torch.no_grad():
        made.adapter.linear.weight.copy_(torch.eye(3))
        made.adapter.linear.bias.fill_(0.5)
    expected[1:] += 0.5
    torch.testing.assert_close(made.weight, expected)
    torch.testing.assert_close(made(torch.tensor([[3, 0]])), expected[[3, 0]][None])
    torch.testing.assert_close(ContentEmbedding([TEXT, IMAGE], 3, "linear", standardized=False).features(), torch.cat([TEXT, IMAGE], 1))


def test_equal_content_has_equal_embeddings_and_a_row_changes_alone():
    made = ContentEmbedding([TEXT], 4, standardized=False).eval()
    assert torch.equal(made.weight[1], made.weight[3]) and not torch.equal(made.weight[1], made.weight[2])
    other = TEXT.clone()
    other[2] += 1
    with torch.no_grad():
        assert (made.weight != made.compute([other])).any(1).tolist() == [False, False, True, False, False]


def test_standardize_over_those_that_have_features():
    known = IMAGE.any(1)
    torch.testing.assert_close(standardize(IMAGE, known)[known], standardize(torch.cat([torch.zeros(1, 1), IMAGE[known]]))[1:])
    assert not standardize(IMAGE, known)[~known].any()


def test_dropout_is_drawn_once_for_history_and_targets():
    torch.manual_seed(0)
    made = ContentEmbedding([TEXT], 4, dropout=0.5).train()
    assert not torch.equal(made.weight, made.weight)
    with made.computed_once():
        assert torch.equal(made.weight, made.weight) and torch.equal(made(torch.arange(5)), made.weight)
    made.eval()
    made.keep()
    kept = made.weight
    assert made.weight is kept and made.train().eval().weight is not kept


def test_tables_are_saved_where_they_change():
    assert not any("table" in name for name in ContentEmbedding([TEXT], 4).state_dict())
    assert "table_0" in ContentEmbedding([TEXT], 4, saved=True).state_dict()
    with pytest.raises(ValueError, match="item_adapter=none: items have 2 dimensions"):
        ContentEmbedding([TEXT], 4, "none")
