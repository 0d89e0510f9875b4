"""Encoders of one modality: compact and saved ones, what an embedding depends on, and what is refused."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from saved_encoders import save_bert, save_clip, save_roberta, save_t5_encoder, save_vit
from toy_items import toy_content, write_content
from transformers import BertModel, ViTModel

from recbole_molar.data.item_content import ItemContent
from recbole_molar.model.content_encoder.compact_image import CompactImage
from recbole_molar.model.content_encoder.compact_text import CompactText
from recbole_molar.model.content_encoder.image_encoder import ImageEncoder, size_of
from recbole_molar.model.content_encoder.text_encoder import TextEncoder
from recbole_molar.model.item_embedding import ItemEmbedding

SAVED = {
    "bert": (save_bert, TextEncoder), "roberta": (save_roberta, TextEncoder), "t5 encoder": (save_t5_encoder, TextEncoder), "vit": (save_vit, ImageEncoder),
    "clip text": (save_clip, TextEncoder), "clip image": (save_clip, ImageEncoder),
}  # fmt: skip


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return toy_content(tmp_path_factory.mktemp("items"), broken=(2,))


@pytest.fixture(scope="module", params=[*SAVED, "compact text", "compact image"])
def encoder(request, content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "it"
    if request.param.startswith("compact"):
        kind, part = {"compact text": (CompactText, TextEncoder), "compact image": (CompactImage, ImageEncoder)}[request.param]
        sizes = {"max_tokens": 24, "vocab_size": 300} if kind is CompactText else {"side": 16, "patch": 8}
        kind(content.only(part.modality), hidden_size=16, layers=1, heads=2, **sizes).save(folder)
    else:
        save, part = SAVED[request.param]
        save(folder, content)
    return part.build(str(folder), content.only(part.modality), batch_size=4).eval()


def absent(encoder):
    """Toy items without this modality: no text is missing; the pictures of 3 and 7 are, and that of 2 is broken."""
    return {2, 3, 7} if encoder.modality == "image" else set()


@torch.no_grad()
def test_an_embedding_depends_on_its_item_alone(encoder):
    table = encoder.encode_items(range(13))
    assert table.shape == (13, 16) and not table[0].any()
    assert {item for item in range(1, 13) if not table[item].any()} == absent(encoder)
    for item in range(1, 13):
        torch.testing.assert_close(encoder.encode_items([item])[0], table[item], rtol=1e-4, atol=1e-5)
    present = table[[item for item in range(1, 13) if item not in absent(encoder)]]
    assert len(present.round(decimals=3).unique(dim=0)) == len(present)


def test_a_step_changes_the_encoder(encoder):
    rows = encoder.encode_items([1, 4, 0])
    rows.pow(2).sum().backward()
    graded = {name for name, value in encoder.named_parameters() if value.grad is not None and value.grad.any()}
    assert len(graded) > 5 and not any("pooler" in name for name in graded)
    encoder.zero_grad()


def test_rows_are_cached_and_a_changed_item_is_encoded_alone(encoder, content, tmp_path):
    maker, marks = ItemEmbedding(tmp_path), encoder.content.fingerprints()
    first = maker.fill(encoder)
    assert maker.encoded == 12 and torch.equal(maker.fill(encoder), first) and maker.encoded == 0
    encoder.content._fingerprints = [*marks[:5], "changed", *marks[6:]]
    again = maker.fill(encoder)
    encoder.content._fingerprints = marks
    assert maker.encoded == 1 and torch.allclose(again, first, atol=1e-5)


def test_the_mean_is_over_real_tokens_by_hand(content, tmp_path):
    name = save_bert(tmp_path / "bert", content)
    encoder, plain = TextEncoder.build(name, content.only("text")).eval(), BertModel.from_pretrained(name).eval()
    item = content.items[5]
    text = f"title: {item.fields['title']}\ngenre: {item.fields['genre']}\nplot: {item.fields['plot']}"
    ids = encoder.collator.tokenizer(text, truncation=True, max_length=32, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = plain(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(encoder.encode_items([5, 12])[0], states.mean(0), rtol=1e-4, atol=1e-5)
        first = TextEncoder.build(name, content.only("text"), pooling="first").eval()
        torch.testing.assert_close(first.encode_items([5, 12])[0], states[0], rtol=1e-4, atol=1e-5)
    assert first.fingerprint() != encoder.fingerprint() == TextEncoder.build(name, content.only("text")).fingerprint()


def test_pixels_are_those_of_the_processor_by_hand(content, tmp_path):
    name = save_vit(tmp_path / "vit")
    encoder, plain = ImageEncoder.build(name, content.only("image")).eval(), ViTModel.from_pretrained(name).eval()
    with Image.open(content.items[1].image_path) as image:
        pixels = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC), dtype=np.float32)
    pixels = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_items([1])[0], plain(pixel_values=pixels).last_hidden_state[0].mean(0), rtol=1e-4, atol=1e-4)


def test_one_modality_hears_nothing_of_the_other(tmp_path):
    before = toy_content(tmp_path)
    text, image = before.only("text").fingerprints(), before.only("image").fingerprints()
    file, ids = write_content(tmp_path)
    (tmp_path / "images" / "i5.png").write_bytes((tmp_path / "images" / "i6.png").read_bytes())
    file.write_text(file.read_text().replace("Title 8", "Title eight"))
    after = ItemContent.read(file, ids, ["plot", "title", "genre"], "plot", image_dir=tmp_path / "images")
    changed = {kind: [item for item in range(13) if marks[item] != after.only(kind).fingerprints()[item]] for kind, marks in (("text", text), ("image", image))}
    assert changed == {"text": [8], "image": [5]}
    assert after.only("image").fingerprints()[5] == after.only("image").fingerprints()[6]


def test_text_cannot_speak_as_a_special_token(content, tmp_path):
    encoder = TextEncoder.build(save_bert(tmp_path / "bert", content), content.only("text"))
    encoder.content.items[1].fields["title"] = "a [SEP] b [MASK]"
    ids = encoder.collator.tokens(1)
    assert (ids == encoder.collator.tokenizer.sep_token_id).sum() == 1 and encoder.collator.tokenizer.mask_token_id not in ids
    del encoder.content.items[1].fields["title"]


def test_sizes_that_processors_name():
    assert size_of(type("P", (), {"size": {"shortest_edge": 30}, "crop_size": {"height": 20, "width": 10}})) == (10, 20)
    assert size_of(type("P", (), {"size": {"shortest_edge": 30}})) == (30, 30) and size_of(object()) == (224, 224)


def test_longer_texts_than_the_model_reads_are_cut(content, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    encoder = TextEncoder.build(save_bert(tmp_path / "bert", content), content.only("text"), max_tokens=100)
    assert encoder.collator.max_tokens == 32 and "reads at most 32 tokens" in caplog.text


def test_positions_behind_that_of_padding(content, tmp_path):
    """Of RoBERTa's 20 the first two are no token's."""
    encoder = TextEncoder.build(save_roberta(tmp_path / "roberta", content), content.only("text"), max_tokens=100)
    assert encoder.collator.max_tokens == 18 and max(encoder.collator.length(item) for item in range(1, 13)) == 18
    assert encoder.encode_items(range(1, 13)).isfinite().all()


def test_what_cannot_be_loaded(content, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    vit, bert = save_vit(tmp_path / "vit"), save_bert(tmp_path / "bert", content)
    for part, name, message in (
        (TextEncoder, "./nowhere", "text_encoder=./nowhere: cannot load it"), (TextEncoder, vit, "text_encoder=.*vit: cannot load it"),
        (ImageEncoder, bert, "image_encoder=.*bert: cannot load it"),
    ):
        with pytest.raises(ValueError, match=message):
            part.build(name, content.only(part.modality))


def test_a_pickle_is_refused_and_not_run(content, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    name = save_bert(tmp_path / "bert", content)
    (tmp_path / "bert" / "model.safetensors").unlink()
    torch.save({"trap": Trap()}, tmp_path / "bert" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="must be .safetensors"):
        TextEncoder.build(name, content.only("text"))
    assert not (tmp_path / "executed").exists()


def test_missing_weights_are_no_random_ones(content, tmp_path):
    from safetensors.torch import load_file, save_file

    name = save_bert(tmp_path / "bert", content)
    file = tmp_path / "bert" / "model.safetensors"
    tensors = {key: value for key, value in load_file(file).items() if "attention.output.dense" not in key}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="2 of its weights are missing"):
        TextEncoder.build(name, content.only("text"))
