"""Contract of all backbones: the built-in part, and tiny models in the format of each published architecture, loaded as a user's are."""

import contextlib
import functools
import inspect
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import tiny_backbones
import transformers as hf
import yaml
from PIL import Image
from safetensors import torch as safetensors
from as_transformers import as_transformers_computes
from toy_items import SIZE, TINY, toy_content, toy_mirm

from recbole_molar.data.prompt import COMPRESS, CUR_ITEM
from recbole_molar.lookup import available
from recbole_molar.model.backbone.base import TILING
from recbole_molar.model.backbone.compact import Compact
from recbole_molar.model.backbone.pretrained import why_not_loaded
from recbole_molar.model.finetune.base import Sample
from recbole_molar.model.finetune.objective import OBJECTIVES, StageOneObjective
from recbole_molar.model.mirm import MIRM

SAVERS = {name: function for name, function in vars(tiny_backbones).items() if name.startswith("save_")}
OF_TEXT_ALONE = [name for name in SAVERS if name.startswith("save_text_")]
BACKBONES = ["compact", *SAVERS]
for_pictures = pytest.mark.parametrize("source", [name for name in BACKBONES if name not in OF_TEXT_ALONE], indirect=True)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return toy_content(tmp_path_factory.mktemp("items"))


@pytest.fixture(scope="module")
def content(items, source):
    """The items, as far as the backbone can read them."""
    return items.only("text") if "save_text_" in source else items


@pytest.fixture(scope="module", params=BACKBONES)
def source(request, items, tmp_path_factory):
    """What a user types as `mirm_backbone`."""
    if request.param == "compact":
        return "compact"
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            SAVERS[request.param](folder, items)
        except ImportError as missing:  # SmolVLM wants num2words; in transformers 5.17 it and Idefics3 want torchvision
            pytest.skip(f"transformers: {str(missing).strip().splitlines()[0]}")
    return str(folder)


def build(content, source, **options):
    sizes = {} if source == "compact" else {"backbone_options": {}}
    return toy_mirm(content, backbone=source, **sizes, **options).eval()


@pytest.fixture(scope="module")
def mirm(content, source):
    return build(content, source)


def close(one, other):
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(one.abs().max()))


@torch.no_grad()
def test_an_embedding_depends_on_its_item_alone(mirm):
    ids = list(range(1, 13))
    table = mirm.encode_items(ids)
    assert table.shape == (12, mirm.embedding_dim) and len(table.round(decimals=3).unique(dim=0)) == 12
    for item in ids:
        assert close(mirm.encode_items([item])[0], table[item - 1])
    assert close(mirm.encode_items(ids[::-1]).flip(0), table)
    assert close(mirm.encode_items([2, 2, 0])[:2], table[[1, 1]]) and not mirm.encode_items([2, 0])[1].any()


@torch.no_grad()
def test_the_padding_side_changes_nothing(mirm, content):
    right = mirm.encode_items(range(1, 13))
    mirm.collator.padding_side = "left"
    left = mirm.encode_items(range(1, 13))
    mirm.collator.padding_side = "right"
    assert close(left, right)


def test_shortcuts_change_neither_embeddings_nor_gradients(content, source):
    ways, ids = [build(content, source).train() for _ in range(2)], list(range(1, 13))
    weights = torch.randn(12, ways[0].embedding_dim)
    tables = []
    for mirm, way in zip(ways, (contextlib.nullcontext, as_transformers_computes)):
        with way(mirm):
            tables.append(mirm.encode_items(ids))
            (tables[-1] * weights).sum().backward()
            tables.append(mirm.eval().encode_items(ids).detach())
            with torch.no_grad():
                tables.append(mirm.encode_items(ids))
    for table in tables[1:]:
        assert close(tables[0].detach(), table.detach())
    values = dict(ways[1].named_parameters())
    for name, value in ways[0].named_parameters():
        assert (value.grad is None) == (values[name].grad is None), name
        assert value.grad is None or torch.allclose(value.grad, values[name].grad, rtol=1e-3, atol=1e-4 * float(values[name].grad.abs().max() + 1)), name


@pytest.mark.parametrize("tuning", ["lora", "frozen"])
def test_frozen_weights_held_in_bf16_are_what_autocast_computes_with(content, source, tuning):
    ways, ids, found = [build(content, source, tuning=tuning).train() for _ in range(2)], list(range(1, 13)), []
    with torch.no_grad():
        for value in (value for mirm in ways for value in mirm.parameters()):
            value.copy_(value.bfloat16())  # as most weights are published
    ways[1].backbone.hold_frozen_in_bf16()
    assert ways[0].fingerprint() == ways[1].fingerprint()
    for mirm in ways:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            table = mirm.encode_items(ids)
            scores = mirm.backbone.logits(table.detach())
        if tuning == "lora":
            table.square().sum().backward()
        found.append([table.detach(), scores.detach(), *(value.grad for value in mirm.parameters() if value.grad is not None)])
    assert len(found[0]) == len(found[1]) > (2 if tuning == "lora" else 1)
    for one, other in zip(*found):
        assert one.dtype == other.dtype and torch.equal(one, other)
    held = [name for name, value in ways[1].backbone.model.named_parameters() if value.dtype == torch.bfloat16]
    assert any("mlp" in name for name in held) and not any("norm" in name or "embed_tokens" in name or "lora_" in name for name in held)
    assert {value.dtype for value in ways[1].backbone.user_decoder(1).parameters()} == {torch.float32}


@for_pictures
def test_one_cur_item_in_each_row_and_no_mixing(mirm):
    for _, batch in mirm.collator.batches(list(range(1, 13)), 4):
        assert ((batch["input_ids"] == mirm.collator.prompt.cur_item_id).sum(1) == 1).all()
    with pytest.raises(AssertionError, match="one batch"):
        mirm.collator.collate([1, 3])
    doubled = mirm.collator.collate([3])
    doubled = {name: torch.cat([value, value], 1) for name, value in doubled.items()}
    with pytest.raises(AssertionError, match="exactly once"):
        mirm(doubled)


@for_pictures
@torch.no_grad()
def test_image_and_text_both_reach_the_embedding(mirm):
    for parts in ("image", "attributes"):
        assert not close(mirm.encode_items([1, 2], parts=parts), mirm.encode_items([1, 2]))
    images = mirm.encode_items([1, 2, 4], parts="image")
    assert not close(images[0], images[1])


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_for_text_alone_the_decoder_is_trained_and_nothing_else(content, source, tuning):
    mirm = build(content.only("text"), source, tuning=tuning)
    mirm.backbone.freeze_all_but_decoder()
    trained, decoder = [value for value in mirm.parameters() if value.requires_grad], set(map(id, mirm.backbone.decoder.parameters()))
    assert trained and all(id(value) in decoder for value in trained)
    embeddings = mirm.encode_items([1, 2, 3])
    (embeddings * torch.randn_like(embeddings)).sum().backward()
    reached = [value for value in trained if value.grad is not None and value.grad.any()]
    assert len(reached) > len(trained) / 4  # LoRA's first factors, and layers that look at a picture, have none yet
    assert all(value.grad is None for value in mirm.parameters() if id(value) not in decoder)


@for_pictures
@torch.no_grad()
def test_the_picture_reaches_the_embedding(mirm, monkeypatch):
    before = mirm.encode_items([1, 2, 4])
    pictures = {item: mirm.collator.images.get(item) for item in (1, 2, 4)}
    monkeypatch.setattr(mirm.collator.images, "get", lambda item: pictures[{1: 2, 2: 1, 4: 4}[item]])
    after = mirm.encode_items([1, 2, 4])
    change = (after - before).norm(dim=1) / before.norm(dim=1)
    assert (change[:2] > 0.01).all() and change[2] < 1e-5


@for_pictures
def test_no_edge_of_a_picture_is_lost(mirm):
    """CLIP's processor scales the shorter side and cuts out the middle; nothing may be cut from a tall picture."""
    width, height = mirm.collator.images.size
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert height == 2 * width
    for rows in (slice(0, height // 8), slice(height - height // 8, height)):
        changed = picture.copy()
        changed[rows] = 255 - changed[rows]
        before, after = (mirm.backbone.image_inputs([image])["pixel_values"] for image in (picture, changed))
        assert before.shape == after.shape and (before - after).abs().max() > 0.1


@for_pictures
@torch.no_grad()
def test_a_batch_is_what_the_processor_of_the_architecture_makes(mirm):
    backbone, processor = mirm.backbone, mirm.backbone.processor
    marks = [getattr(backbone.plain.config, f"vision_{end}_token_id", None) for end in ("start", "end")]
    picture = getattr(processor, "image_token", "<image>").join(backbone.tokenizer.decode([token]) if token else "" for token in marks)
    whole = {name: False for name in TILING if hasattr(processor.image_processor, name)}
    text = (backbone.tokenizer.bos_token or "") + COMPRESS[False, True] + picture + CUR_ITEM
    image = Image.fromarray(mirm.collator.images.get(1))
    if getattr(processor.image_processor, "do_center_crop", False):  # it is given the whole picture at the size that it would cut out
        image = image.resize((processor.image_processor.crop_size["width"], processor.image_processor.crop_size["height"]))
    expected = processor(text=[text], images=[[np.asarray(image)]], return_tensors="pt", add_special_tokens=False, **whole)
    batch = mirm.collator.collate([1], "image")
    assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
    states = backbone.plain(**expected, output_hidden_states=True, use_cache=False).hidden_states[-1]
    assert close(backbone.encode(batch), states)


@torch.no_grad()
def test_text_that_looks_like_a_picture_is_spelled_out(mirm):
    prompt, backbone = mirm.collator.prompt, mirm.backbone
    tokens = [backbone.image_token_id if backbone.reads_pictures else backbone.tokenizer.eos_token_id, prompt.cur_item_id]
    special = [backbone.tokenizer.decode([token]) for token in tokens]
    assert special[1] == CUR_ITEM
    ids = prompt.encode(f"red {special[0]} green {special[1]} old")
    assert not set(tokens) & set(ids)
    assert backbone.tokenizer.decode(ids).replace(" ", "") == f"red{special[0]}green{special[1]}old"


def test_what_puts_equal_weights_to_another_use_is_in_the_fingerprint(items):
    marks = [
        MIRM.build(items, backbone="compact", image_size=SIZE, backbone_options=options, tuning=tuning, **more).fingerprint()
        for options, tuning, more in (
            ({}, "full", {}), ({"compact_num_heads": 2, "compact_num_kv_heads": 1}, "full", {}), ({"compact_vision_heads": 2}, "full", {}),
            ({}, "lora", {"lora_alpha": 16}), ({}, "lora", {"lora_alpha": 64}),
        )
    ]
    assert len(set(marks)) == 5 and marks[0] == MIRM.build(items, backbone="compact", image_size=SIZE, backbone_options={}).fingerprint()


@for_pictures
def test_what_becomes_of_pixels_is_in_the_fingerprint(content, source):
    one, other = build(content, source), build(content, source)
    assert one.fingerprint() == other.fingerprint()
    other.backbone.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    assert one.fingerprint() != other.fingerprint()


def test_a_tokenizer_without_padding(content, source, tmp_path):
    """Where a checkpoint names no token for it, the end of a text is one."""
    if source == "compact":
        return
    shutil.copytree(source, tmp_path / "copy")
    file = tmp_path / "copy" / "tokenizer_config.json"
    words = json.loads(file.read_text())
    (tmp_path / "copy" / "special_tokens_map.json").unlink(missing_ok=True)
    words.pop("pad_token", None)
    ends = [words.get("eos_token")] if "save_text_" not in source else [words.pop("eos_token"), None]  # a processor wants one for several pictures
    for end in ends:
        file.write_text(json.dumps({**words, **({"eos_token": end} if end else {})}))
        mirm = build(content, str(tmp_path / "copy"))
        with torch.no_grad():
            assert mirm.backbone.pad_id is not None and mirm.encode_items([1, 2, 3]).isfinite().all()


@pytest.mark.parametrize("made, here, message", [
    ({"tuning": "lora", "lora_alpha": 16}, {"tuning": "lora", "lora_alpha": 64}, "mirm_lora_alpha=16.0, but this run has mirm_lora_alpha=64.0"),
    ({"backbone_options": {"compact_num_heads": 2, "compact_num_kv_heads": 1}}, {"backbone_options": {"compact_num_heads": 4}}, "compact_num_heads=2"),
    ({"backbone_options": {"compact_vision_heads": 2}}, {"backbone_options": {"compact_vision_heads": 4}}, "compact_vision_heads=2"),
])  # fmt: skip
def test_finished_weights_of_another_use(items, tmp_path, made, here, message):
    """Their shapes are the same, and what they compute is not."""
    one, other = (MIRM.build(items, **{"backbone": "compact", "image_size": SIZE, "backbone_options": {}, **options}) for options in (made, here))
    one.save(tmp_path / "mirm.safetensors")
    with pytest.raises(ValueError, match=message):
        other.load_finished(tmp_path / "mirm.safetensors")
    one.load_finished(tmp_path / "mirm.safetensors")


def test_loaded_weights_are_those_on_disk_in_float32(content, source):
    one, other = (MIRM.build(content, backbone=source, image_size=SIZE, backbone_options={}, seed=seed).backbone for seed in (1, 2))
    weights, words = other.weights(), [id(layer.weight) for layer in (one.plain.get_input_embeddings(), one.plain.get_output_embeddings())]
    assert all(value.dtype == torch.float32 for value in weights.values())
    if source != "compact":  # which is made from the seed
        for name, value in one.weights().items():
            rows = slice(-1) if id(value) in words else slice(None)  # [Cur_Item]'s may be new
            assert torch.equal(value[rows], weights[name][rows]), name


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_words_and_head_are_those_of_the_file(content, source, tuning):
    if source == "compact":
        return  # which has no file
    stored = {name: value for file in Path(source).glob("*.safetensors") for name, value in safetensors.load_file(file).items()}
    words = next(value for name, value in stored.items() if name.endswith("embed_tokens.weight"))
    head = next((value for name, value in stored.items() if name.endswith("lm_head.weight")), words)
    backbone = MIRM.build(content, backbone=source, image_size=SIZE, backbone_options={}, tuning=tuning).backbone
    new = backbone.tokenizer.convert_tokens_to_ids(CUR_ITEM)
    for wanted, layer in ((words, backbone.plain.get_input_embeddings()), (head, backbone.plain.get_output_embeddings())):
        rows = [row for row in range(min(len(wanted), layer.weight.size(0))) if row != new]
        assert len(rows) > 100 and torch.equal(layer.weight[rows], wanted[rows].float())


@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
def test_a_step_changes_only_what_it_should(content, source, tuning):
    mirm = build(content, source, tuning=tuning).train()
    before = {name: value.detach().clone() for name, value in mirm.named_parameters()}
    trained = [value for value in mirm.parameters() if value.requires_grad]
    if tuning == "frozen":
        assert not trained
        return
    optimizer = torch.optim.SGD(trained, lr=1.0)
    for _ in range(2):  # LoRA's first factor moves only once its second has left zero
        optimizer.zero_grad()
        mirm.encode_items([1, 3]).pow(2).sum().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    changed = {name for name, value in mirm.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    if tuning == "lora":
        assert all("lora_" in name or "trainable_tokens" in name for name in changed)
        in_decoder = {id(value) for value in mirm.backbone.decoder.parameters()}
        assert all(id(value) in in_decoder for name, value in mirm.named_parameters() if "lora_" in name)
        trainable = {name for name, value in mirm.named_parameters() if value.requires_grad}
        assert {f"backbone.model.{name}" for name in mirm.backbone.weights()} == trainable
    else:
        assert any("vis" in name for name in changed) is mirm.backbone.reads_pictures and any("layers.1" in name for name in changed)


@torch.no_grad()
def test_an_untrained_adapter_changes_nothing_and_is_as_large_as_the_table_of_memory_says(content, source):
    options = {"backbone": source, "image_size": SIZE, "backbone_options": TINY if source == "compact" else {}}
    one, other = (MIRM.build(content, tuning=tuning, **options).eval() for tuning in ("frozen", "lora"))
    assert close(one.encode_items([1, 3]), other.encode_items([1, 3]))
    counted = runpy.run_path(Path(__file__).parents[2] / "benchmarks" / "backbone_memory.py")["count"](one.backbone.plain)
    assert counted["adapter"] == sum(value.numel() for value in other.backbone.weights().values())
    assert counted["all"] == sum(value.numel() for value in one.parameters())
    assert counted["decoder"] == sum(value.numel() for value in one.backbone.user_decoder().parameters())


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_stage_one_trains_it(content, source, kind):
    mirm = build(content, source, tuning="lora").train()
    samples = [Sample((1,), "red green"), Sample((2,), "old")], [Sample((1, 3), "red", target=2), Sample((4, 5), "blue", target=6)]
    for batch in samples:
        loss, _ = StageOneObjective(mirm, kind)(batch, "Describe:")
        loss.backward()
    gradients = [value.grad for name, value in mirm.backbone.weights().items() if "lora_" in name]
    assert all(value is not None and value.isfinite().all() for value in gradients) and any(value.any() for value in gradients)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_save_and_load(content, source, tuning, tmp_path):
    one, other = build(content, source, tuning=tuning), build(content, source, tuning=tuning)
    with torch.no_grad():
        for value in one.backbone.weights().values():
            value.add_(0.1 * torch.randn_like(value))
    assert one.fingerprint() != other.fingerprint()
    one.save(tmp_path / "mirm.safetensors", {"made": "by a test"})
    assert other.load(tmp_path / "mirm.safetensors") ["made"] == "by a test"
    assert one.fingerprint() == other.fingerprint()
    assert torch.equal(one.encode_items([1, 3]), other.encode_items([1, 3]))


def test_checkpointed_gradients_equal_plain_ones(content, source):
    gradients = []
    for checkpointing in (False, True):
        mirm = build(content, source, gradient_checkpointing=checkpointing).train()
        assert mirm.backbone.plain.is_gradient_checkpointing is checkpointing
        mirm.encode_items([1, 3]).pow(2).sum().backward()
        gradients.append(torch.cat([value.grad.flatten() for value in mirm.parameters() if value.grad is not None]))
    assert close(*gradients)


def test_bfloat16_autocast(content, source):
    mirm = build(content, source, tuning="lora", gradient_checkpointing=True).train()
    with torch.autocast("cpu", torch.bfloat16):
        states = mirm.encode_items([1, 3])
    states.pow(2).sum().backward()
    plain = mirm.encode_items([1, 3])
    assert states.dtype == torch.float32 and (states - plain).norm() < 0.05 * plain.norm()
    assert all(value.grad.isfinite().all() and value.grad.any() and value.dtype == torch.float32 for value in mirm.backbone.weights().values())


@torch.no_grad()
def test_the_user_decoder_is_the_decoder_cut_short(mirm):
    vectors = torch.randn(2, 5, mirm.embedding_dim)
    mirm.encode_items([1, 2])  # leaves position offsets behind in Qwen2-VL
    decoder = mirm.backbone.decoder
    states = decoder(inputs_embeds=vectors, position_ids=torch.arange(5).expand(2, -1), output_hidden_states=True, use_cache=False)
    assert close(mirm.backbone.user_decoder(1)(vectors), decoder.norm(states.hidden_states[1]))
    assert close(mirm.backbone.user_decoder()(vectors), states.last_hidden_state)
    assert not any(value.shape[0] > 300 for value in mirm.backbone.user_decoder(1).parameters())


@torch.no_grad()
def test_dropout_in_the_layers_of_the_user_decoder(mirm):
    decoder, vectors = mirm.backbone.user_decoder(2).eval(), torch.randn(2, 5, mirm.embedding_dim)
    plain = decoder(vectors)
    decoder.drop_in_layers(1.0)
    assert close(decoder(vectors), plain)
    assert close(decoder.train()(vectors), decoder.decoder.norm(vectors))  # layers add nothing


@torch.no_grad()
def test_masks_of_the_user_decoder(mirm):
    decoder, vectors = mirm.backbone.user_decoder(2), torch.randn(2, 5, mirm.embedding_dim)
    plain, causal = decoder(vectors), torch.ones(5, 5).tril().bool().expand(2, 1, -1, -1)
    assert close(decoder(vectors, attention_mask=causal), plain)
    additive = torch.zeros(2, 1, 5, 5).masked_fill(~causal, float("-inf"))
    assert close(decoder(vectors, attention_mask=additive), plain)
    padded = torch.cat([vectors, torch.randn(2, 3, mirm.embedding_dim)], 1)
    mask = torch.tensor([[1] * 5 + [0] * 3] * 2)
    assert close(decoder(padded, attention_mask=mask)[:, :5], plain) and close(decoder(padded)[:, :5], plain)
    left = torch.cat([torch.randn(2, 3, mirm.embedding_dim), vectors], 1)
    positions = torch.cat([torch.zeros(3), torch.arange(5)]).long().expand(2, -1)
    assert close(decoder(left, attention_mask=mask.flip(1), position_ids=positions)[:, 3:], plain)


def test_the_user_decoder_holds_the_adapter(content, source):
    mirm = build(content, source, tuning="lora")
    with torch.no_grad():
        for value in mirm.backbone.weights().values():
            value.add_(0.1 * torch.randn_like(value))
        vectors = torch.randn(2, 5, mirm.embedding_dim)
        expected = mirm.backbone.decode(vectors, torch.ones(2, 5, dtype=torch.long))
        assert torch.allclose(mirm.backbone.user_decoder()(vectors), expected, atol=1e-4)
    with pytest.raises(ValueError, match="num_layers=9"):
        mirm.backbone.user_decoder(9)
    assert all(value.requires_grad for value in mirm.backbone.user_decoder(1).parameters())


def test_the_yaml_holds_the_defaults():
    shipped = yaml.safe_load((Path(__file__).parents[3] / "properties" / "backbone" / "compact.yaml").read_text())
    parameters = inspect.signature(Compact.build).parameters.values()
    assert shipped == {it.name: it.default for it in parameters if it.name.startswith("compact_")}


def test_unknown_backbones_and_options(items):
    assert set(available("model.backbone")) == {"Compact", "Pretrained"}
    with pytest.raises(ValueError, match="mirm_backbone=/no/such/folder: cannot load it.*mirm_backbone=compact"):
        MIRM.build(items, backbone="/no/such/folder")
    with pytest.raises(ValueError, match="compact_hidden_size=30: must be a positive multiple of 8, because of compact_num_heads"):
        MIRM.build(items, backbone_options={**TINY, "compact_hidden_size": 30})
    with pytest.raises(ValueError, match="mirm_tuning=half"):
        toy_mirm(items, tuning="half")
    with pytest.raises(ValueError, match="mirm_readout=first"):
        toy_mirm(items, readout="first")


@pytest.mark.parametrize("said, told", [
    ("You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/x.\n401", ["huggingface.co/x", "Accept the licence"]),
    ("The repository x contains custom code which must be executed\nto load it", ["must be executed to load it", "README's list"]),
    ("the model type `multi_modality` but Transformers does not recognize this architecture.", ["multi_modality", "README's list"]),
    ("", ["OSError"]),
])  # fmt: skip
def test_why_a_checkpoint_cannot_be_loaded(said, told):
    reason = why_not_loaded(OSError(said))
    assert "\n" not in reason and all(words in reason for words in told)


def test_pictures_for_a_language_model(items, tmp_path):
    tiny_backbones.save_text_llama(tmp_path, items)
    with pytest.raises(ValueError, match="reads no pictures, and items have some. Set item_modalities=.text."):
        build(items, str(tmp_path))
    one, other = (build(items.only("text"), str(tmp_path), image_size=size) for size in (SIZE, (SIZE[0], 2 * SIZE[1])))
    assert torch.equal(one.encode_items([1, 2]), other.encode_items([1, 2]))


@pytest.mark.parametrize("kind, options, reason", [
    ("GPT2", {"n_embd": 8, "n_layer": 1, "n_head": 1}, "no list of layers"),
    ("GPTNeoX", {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}, "AttributeError"),
    ("Gemma3Text", {**tiny_backbones.TEXT, "head_dim": 16, "use_bidirectional_attention": True}, "depends on the words after it"),
])  # fmt: skip
def test_a_decoder_of_another_build(items, tmp_path, kind, options, reason):
    tokenizer = tiny_backbones.qwen_tokenizer(items)
    config = getattr(hf, f"{kind}Config")(vocab_size=len(tokenizer), **options)
    tiny_backbones.publish(tmp_path, hf.AutoModelForCausalLM.from_config(config), tokenizer)
    with pytest.raises(ValueError, match=f"is built otherwise than the decoders read here \\(.*{reason}"):
        build(items.only("text"), str(tmp_path))


@pytest.mark.parametrize("kind, options", [
    ("Granite", {"logits_scaling": 8.0}), ("Cohere", {"logit_scale": 0.0625}), ("Gemma2", {"final_logit_softcapping": 5.0}),
])  # fmt: skip
@torch.no_grad()
def test_what_comes_behind_the_head(items, tmp_path, kind, options):
    tokenizer = tiny_backbones.qwen_tokenizer(items)
    model = hf.AutoModelForCausalLM.from_config(getattr(hf, f"{kind}Config")(**{**tiny_backbones.TEXT, "vocab_size": len(tokenizer), **options}))
    tiny_backbones.publish(tmp_path, model, tokenizer)
    backbone = build(items.only("text"), str(tmp_path)).backbone
    batch = {"input_ids": torch.tensor([[9, 20, 30]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert close(backbone.logits(backbone.encode(dict(batch))), backbone.plain(**batch).logits)


@torch.no_grad()
def test_what_does_not_come_behind_the_head_of_an_image_text_model(items, tmp_path):
    """LLaVA over Granite scores with the bare head."""
    tiny_backbones.save_llava(tmp_path, items, functools.partial(hf.GraniteConfig, logits_scaling=8.0))
    backbone = build(items, str(tmp_path)).backbone
    batch = {"input_ids": torch.tensor([[9, 20, 30]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert backbone.plain.config.get_text_config().logits_scaling == 8.0
    assert close(backbone.logits(backbone.encode(dict(batch))), backbone.plain(**batch).logits)


def test_a_checkpoint_that_lacks_a_layer(items, tmp_path, caplog):
    tiny_backbones.save_text_qwen2(tmp_path, items)
    weights = safetensors.load_file(tmp_path / "model.safetensors")
    for part, message in (("lm_head.", None), ("model.layers.1.", "of its weights are missing, for example model.layers.1")):
        weights = {name: value for name, value in weights.items() if not name.startswith(part)}
        safetensors.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
            build(items.only("text"), str(tmp_path))
    assert "has no head that scores words" in caplog.text


def test_a_pickle_is_refused_and_not_run(items, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "model").mkdir()
    tiny_backbones.save_qwen2_vl(tmp_path / "model", items)
    for file in (tmp_path / "model").glob("*.safetensors"):
        file.unlink()
    torch.save({"trap": Trap()}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="must be .safetensors"):
        build(items, str(tmp_path / "model"))
    assert not (tmp_path / "executed").exists()
