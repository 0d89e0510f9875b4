"""The compact encoders and their training: what is hidden, losses by hand, that it learns, and that it is kept."""

import logging
import math

import pytest
import torch
from toy_items import toy_content

from recbole_molar.device import make_accelerator
from recbole_molar.model.content_encoder.compact_image import CompactImage
from recbole_molar.model.content_encoder.compact_text import SPECIAL, CompactText
from recbole_molar.trainer.masked_trainer import FEWEST_STEPS, MaskedTrainer


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return toy_content(tmp_path_factory.mktemp("items"), broken=(2,))


def make(content, modality):
    if modality == "text":
        return CompactText(content.only("text"), max_tokens=24, hidden_size=16, layers=1, heads=2, vocab_size=300)
    return CompactImage(content.only("image"), hidden_size=16, layers=1, heads=2, side=16, patch=8)


def trainer_of(content, modality, folder, **options):
    options = {"batch_size": 4, "epochs": 20, "learning_rate": 0.01, **options}
    return MaskedTrainer(lambda: make(content, modality), folder, make_accelerator("fp32", use_cpu=True), **options)


def test_what_is_hidden(content):
    torch.manual_seed(0)
    compact = make(content, "text")
    ids = compact.collator.collate([1] * 500)["input_ids"]
    hidden, chosen = compact.hide(ids)
    real = ids >= len(SPECIAL)
    assert not chosen[~real].any() and chosen.any(1).all() and torch.equal(hidden[~chosen], ids[~chosen])
    n = int(chosen.sum())
    assert n / int(real.sum()) == pytest.approx(0.15, abs=0.02)
    assert int((hidden[chosen] == compact.mask_id).sum()) / n == pytest.approx(0.8, abs=0.04)
    assert int((hidden[chosen] == ids[chosen]).sum()) / n == pytest.approx(0.1, abs=0.03)


@torch.no_grad()
def test_losses_by_hand(content):
    text = make(content, "text")
    for value in text.model.cls.parameters():
        value.zero_()
    assert text.loss([1, 2, 3]).item() == pytest.approx(math.log(text.model.config.vocab_size), rel=1e-5)
    image = make(content, "image")
    for value in image.model.decoder.parameters():
        value.zero_()
    one = image.collator.collate([1])["pixel_values"]
    mean = torch.stack([image.loss([1]) for _ in range(200)]).mean()  # painted grey: the error is what is hidden, on average all of it
    assert mean == pytest.approx(one.abs().mean().item(), rel=0.1)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_it_learns_and_is_kept(content, tmp_path, modality):
    trainer = trainer_of(content, modality, tmp_path / "encoder")
    before = torch.get_rng_state()
    report = trainer.fit()
    assert torch.equal(torch.get_rng_state(), before)
    assert not report["reused"] and report["loss"][1] < 0.9 * report["loss"][0]
    assert {"config.json", "model.safetensors"} < {file.name for file in (tmp_path / "encoder").iterdir()}
    trainer.make = None  # not called again
    assert trainer.fit() == {"folder": str(tmp_path / "encoder"), "reused": True}
    again = trainer_of(content, modality, tmp_path / "again").fit()
    assert again["loss"] == pytest.approx(report["loss"], rel=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "encoder", "locks"]


def test_a_line_for_each_epoch(content, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer_of(content, "image", tmp_path / "image-1", epochs=8).fit()  # 9 pictures can be read: 3 batches
    lines = [record.message for record in caplog.records if ", epoch " in record.message]
    assert [line.partition(": loss ")[0] for line in lines] == [f"image encoder, epoch {epoch}" for epoch in range(1, 9)]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_one_is_made_anew(content, tmp_path, name):
    trainer, file = trainer_of(content, "text", tmp_path / "text-1", epochs=1), tmp_path / "text-1" / name
    whole = trainer.fit() and file.read_bytes()
    file.write_bytes(whole[:-9]) if name.startswith("model") else file.unlink()
    assert not trainer.fit()["reused"] and file.read_bytes() == whole and trainer.fit()["reused"]


def test_a_loss_that_is_no_number(content, tmp_path):
    with pytest.raises(ValueError, match="text encoder, step 2: the loss is (nan|inf)"):
        trainer_of(content, "text", tmp_path / "text-1", learning_rate=1e30).fit()
    assert not (tmp_path / "text-1").exists()


def test_steps(content, tmp_path):
    trainer = trainer_of(content, "text", tmp_path, epochs=3)
    assert trainer.n_steps(400) == 300 and trainer.n_steps(1) == FEWEST_STEPS
    assert trainer_of(content, "text", tmp_path, epochs=0).n_steps(400) == 0


def test_a_training_that_fails_leaves_nothing(content, tmp_path, monkeypatch):
    trainer = trainer_of(content, "text", tmp_path / "encoder", epochs=1)
    monkeypatch.setattr(CompactText, "save", lambda self, folder: (folder.mkdir(), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
