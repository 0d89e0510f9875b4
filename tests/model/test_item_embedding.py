"""The table and its cache: reused, mended item by item, rebuilt when broken."""

import pytest
import torch
from toy_items import toy_content, toy_mirm, write_content

from recbole_molar.data.item_content import ItemContent
from recbole_molar.model.item_embedding import ItemEmbedding, _log_summary, effective_rank

PLOT = "i5\tTitle 5"


@pytest.fixture
def mirm(tmp_path):
    return toy_mirm(toy_content(tmp_path, broken=(2,)), encode_batch_size=4)


def fill(mirm, folder):
    maker = ItemEmbedding(folder)
    return maker.fill(mirm), maker.encoded


def test_the_table_is_what_mirm_says(mirm, tmp_path, caplog):
    caplog.set_level("INFO")
    table, encoded = fill(mirm, None)
    assert encoded == 12 and table.dtype == torch.float32 and not table[0].any()
    with torch.no_grad():
        assert torch.allclose(table, mirm.encode_items(range(13)), atol=1e-5)
    assert "without image: 2; broken images: 1" in caplog.text


def test_a_second_run_reuses_it(mirm, tmp_path):
    table, _ = fill(mirm, tmp_path / "cache")
    again, encoded = fill(mirm, tmp_path / "cache")
    assert encoded == 0 and torch.equal(table, again)


def test_one_changed_item_is_encoded_alone(mirm, tmp_path):
    table, _ = fill(mirm, tmp_path / "cache")
    file, ids = write_content(tmp_path, broken=(2,))
    file.write_text(file.read_text().replace(PLOT, PLOT + " small"))
    content = ItemContent.read(file, ids, ["plot", "title", "genre"], "plot", image_dir=tmp_path / "images")
    changed = toy_mirm(content)
    changed.backbone = mirm.backbone  # the same weights and tokenizer
    changed.collator.prompt = mirm.collator.prompt
    again, encoded = fill(changed, tmp_path / "cache")
    assert encoded == 1 and [row for row in range(13) if not torch.equal(table[row], again[row])] == [5]


def test_data_sets_of_one_mirm_keep_each_others_rows(mirm, tmp_path, monkeypatch):
    def catalogue(word):
        (tmp_path / word).mkdir(exist_ok=True)
        file, ids = write_content(tmp_path / word)
        file.write_text(file.read_text().replace("Title", word))
        other = toy_mirm(ItemContent.read(file, ids, ["plot", "title", "genre"], "plot", modalities=["text"]))
        other.backbone, other.collator.prompt = mirm.backbone, mirm.collator.prompt
        return other

    assert [fill(catalogue(word), tmp_path / "cache")[1] for word in ("Name", "Song", "Name", "Song")] == [12, 12, 0, 0]
    monkeypatch.setattr("recbole_molar.model.item_embedding.MOST_BYTES", 4 * mirm.embedding_dim * 18)
    assert [fill(catalogue(word), tmp_path / "cache")[1] for word in ("Tale", "Name", "Tale")] == [12, 12, 6]  # six others fit


def test_embeddings_that_are_no_numbers_are_named_and_not_kept(mirm, tmp_path, monkeypatch):
    forward, seen = type(mirm).forward, []

    def broken(self, batch):
        rows = forward(self, batch)
        seen.append(len(rows))
        return rows.masked_fill(torch.arange(len(rows))[:, None] == 0, float("nan")) if len(seen) == 2 else rows

    monkeypatch.setattr(type(mirm), "forward", broken)
    with pytest.raises(ValueError, match=r"item embeddings of i\d+ are not finite numbers. Try precision=fp32"):
        fill(mirm, tmp_path / "cache")
    assert fill(mirm, tmp_path / "cache")[0].isfinite().all()


def test_other_weights_or_another_prompt_start_anew(mirm, tmp_path):
    fill(mirm, tmp_path / "cache")
    mirm.collator.prompt.max_tokens = 20
    assert fill(mirm, tmp_path / "cache")[1] == 12
    with torch.no_grad():
        next(iter(mirm.parameters())).add_(1e-3)
    assert fill(mirm, tmp_path / "cache")[1] == 12


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_corrupted_file_is_rebuilt(mirm, tmp_path, damage, caplog):
    table, _ = fill(mirm, tmp_path / "cache")
    file = next((tmp_path / "cache").glob("items-*"))
    whole = bytearray(file.read_bytes())
    whole[-5] ^= 0xFF
    file.write_bytes({"cut": whole[:-100], "flipped": whole, "empty": b""}[damage])
    again, encoded = fill(mirm, tmp_path / "cache")
    assert encoded == 12 and torch.equal(table, again) and "computed anew" in caplog.text
    assert fill(mirm, tmp_path / "cache")[1] == 0


def test_a_run_cut_while_filling_goes_on(mirm, tmp_path, monkeypatch):
    maker, batches = ItemEmbedding(tmp_path / "cache", save_minutes=0), mirm.collator.batches

    def cut(*arguments):
        for number, batch in enumerate(batches(*arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(mirm.collator, "batches", cut)
    with pytest.raises(KeyboardInterrupt):
        maker.fill(mirm)
    monkeypatch.setattr(mirm.collator, "batches", batches)
    assert fill(mirm, tmp_path / "cache")[1] == 4


def test_effective_rank_counts_directions():
    torch.manual_seed(0)
    spread, line = torch.randn(4001, 16), torch.randn(4001, 1) * torch.arange(1.0, 17)
    assert effective_rank(spread) > 15.8 and effective_rank(line) == pytest.approx(1, abs=1e-3)
    two = torch.cat([line[:, :8], torch.randn(4001, 1) * torch.ones(8)], dim=1)
    assert effective_rank(two) == pytest.approx(2, abs=0.05)
    assert effective_rank(torch.zeros(5, 16)) >= 0  # items without content


@pytest.mark.parametrize("rank, warned", [(3, True), (60, False)])
def test_collapsed_embeddings_are_told(rank, warned, caplog):
    caplog.set_level("INFO")
    torch.manual_seed(0)
    _log_summary(torch.randn(301, rank) @ torch.randn(rank, 64), 300, 1.0)
    assert "effective rank" in caplog.text and ("mirm_view_contrast_weight=1" in caplog.text) == warned
