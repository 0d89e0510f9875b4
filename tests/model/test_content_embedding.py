"""Embeddings from features: by hand, for items without a modality, and kept or computed anew."""

import pytest
import torch

from recbole_molar.model.content_embedding import ContentEmbedding

TEXT = torch.tensor([[0.0, 0.0], [1.0, 5.0], [3.0, 5.5], [1.0, 5.0], [3.0, 5.5]])  # items 1 and 3 are alike, 2 and 4 too
IMAGE = torch.tensor([[0.0], [2.0], [0.0], [6.0], [0.0]])  # 2 and 4 have none


def test_features_by_hand():
    made = ContentEmbedding([TEXT, IMAGE], 3, "linear", scaling="standardize")
    expected = torch.tensor([[0, 0, 0], [-1, -1, -1], [1, 1, 0], [-1, -1, 1], [1, 1, 0]], dtype=torch.float32)
    torch.testing.assert_close(torch.cat(made.tables, 1), expected)
    with torch.no_grad():
        made.adapter.linear.weight.copy_(torch.eye(3))
        made.adapter.linear.bias.fill_(0.5)
    expected[1:] += 0.5
    torch.testing.assert_close(made.weight, expected)
    torch.testing.assert_close(made(torch.tensor([[3, 0]])), expected[[3, 0]][None])
    torch.testing.assert_close(torch.cat(ContentEmbedding([TEXT, IMAGE], 3, "linear", scaling="none").tables, 1), torch.cat([TEXT, IMAGE], 1))


def test_whitened_features_have_unit_variance_and_no_correlation():
    torch.manual_seed(0)
    table = torch.cat([torch.zeros(2, 4), torch.randn(500, 4) @ torch.tensor([[2.0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]) + 7])
    (white,) = ContentEmbedding([table], 4).tables
    assert not white[:2].any() and white[2:].mean(0).abs().max() < 1e-4
    torch.testing.assert_close(white[2:].T @ white[2:] / 500, torch.eye(4), atol=0.05, rtol=0)
    assert (torch.corrcoef(table[2:].T) - torch.eye(4)).abs().max() > 0.5
    mirrored = ContentEmbedding([table[:, [1, 0, 2, 3]]], 4).tables[0][:, [1, 0, 2, 3]]  # the root is unique: no sign or order is drawn
    torch.testing.assert_close(mirrored, white, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scaling", ["whiten", "standardize", "none"])
def test_rows_encoded_anew_are_scaled_alike(scaling):
    made = ContentEmbedding([TEXT, IMAGE], 3, scaling=scaling)
    for place, table in enumerate((TEXT, IMAGE)):
        torch.testing.assert_close(made.scaled(place, table[[3, 0]]), made.tables[place][[3, 0]])
    one = ContentEmbedding([torch.tensor([[0.0, 0.0], [2.0, 3.0]])], 3, scaling=scaling)  # a single item, which varies in nothing
    assert torch.isfinite(one.tables[0]).all() and torch.isfinite(ContentEmbedding([torch.zeros(3, 2)], 3, scaling=scaling).weight).all()


def test_equal_content_has_equal_embeddings_and_a_row_changes_alone():
    made = ContentEmbedding([TEXT], 4, scaling="none").eval()
    assert torch.equal(made.weight[1], made.weight[3]) and not torch.equal(made.weight[1], made.weight[2])
    other = TEXT.clone()
    other[2] += 1
    with torch.no_grad():
        assert (made.weight != made.compute([other])).any(1).tolist() == [False, False, True, False, False]


def test_dropout_is_drawn_once_for_history_and_targets():
    torch.manual_seed(0)
    made = ContentEmbedding([TEXT], 4, dropout=0.5).train()
    assert not torch.equal(made.weight, made.weight)
    with made.computed_once():
        assert torch.equal(made.weight, made.weight) and torch.equal(made(torch.arange(5)), made.weight)
    made.eval()
    made.keep()
    kept = made.weight
    assert made.eval().weight is kept and made.train().eval().weight is not kept


def test_tables_are_saved_where_they_change():
    assert not any("_0" in name for name in ContentEmbedding([TEXT], 4).state_dict())
    assert {"table_0", "mean_0", "product_0"} < set(ContentEmbedding([TEXT], 4, saved=True).state_dict())
    with pytest.raises(ValueError, match="item_adapter=none: items have 2 dimensions"):
        ContentEmbedding([TEXT], 4, "none")
