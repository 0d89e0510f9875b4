"""Contract of all backbones: the built-in part, and models saved to disk and loaded as published ones are."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from toy_items import SIZE, TINY, toy_content, toy_mirm

from recbole_molar.lookup import available
from recbole_molar.model.backbone.compact import Compact
from recbole_molar.model.mirm import MIRM

BACKBONES = ["compact", "saved_qwen2_vl", "saved_llava", "saved_mllama"]


def save_qwen2_vl(folder, content):
    """A compact model in a folder, as `save_pretrained` leaves it."""
    made = MIRM.build(content, backbone_options=TINY, image_size=SIZE).backbone
    made.plain.save_pretrained(folder)
    made.processor.save_pretrained(folder)


def save_llava(folder, content):
    """A tiny random LLaVA in a folder."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlamaConfig
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    from recbole_molar.model.backbone.compact import train_tokenizer

    tokenizer = train_tokenizer(content.texts, 400)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=448, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        pad_token_id=0,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=4,
        vision_feature_select_strategy="default", vision_feature_layer=-1,
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"height": 28, "width": 28}, crop_size={"height": 28, "width": 28})
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(images, tokenizer, **options).save_pretrained(folder)


def save_mllama(folder, content):
    """A tiny random Mllama (Llama 3.2 Vision) in a folder, its cross-attention gates open."""
    from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaProcessor
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    from recbole_molar.model.backbone.compact import train_tokenizer

    tokenizer = train_tokenizer(content.texts, 400)
    special = {"additional_special_tokens": ["<|image|>"], "bos_token": "<|im_start|>"}
    tokenizer.add_special_tokens(special, replace_extra_special_tokens=False)
    text = MllamaTextConfig(
        vocab_size=448, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        cross_attention_layers=[1], pad_token_id=0, bos_token_id=1, eos_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    vision = MllamaVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_global_layers=1, attention_heads=2, image_size=28, patch_size=14,
        vision_output_dim=64, intermediate_layers_indices=[0], max_num_tiles=1, supported_aspect_ratios=[[1, 1]],
    )  # fmt: skip
    image_token = tokenizer.convert_tokens_to_ids("<|image|>")
    model = MllamaForConditionalGeneration(MllamaConfig(vision_config=vision, text_config=text, image_token_index=image_token))
    for name, value in model.named_parameters():
        if "gate" in name and value.numel() == 1:
            value.data.fill_(1.0)
    model.save_pretrained(folder)
    images = MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=1)
    MllamaProcessor(images, tokenizer).save_pretrained(folder)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return toy_content(tmp_path_factory.mktemp("items"))


@pytest.fixture(scope="module", params=BACKBONES)
def source(request, content, tmp_path_factory):
    """What a user types as `mirm_backbone`."""
    if request.param == "compact":
        return "compact"
    folder = tmp_path_factory.mktemp(request.param)
    {"saved_qwen2_vl": save_qwen2_vl, "saved_llava": save_llava, "saved_mllama": save_mllama}[request.param](folder, content)
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


def test_one_cur_item_in_each_row_and_no_mixing(mirm):
    for _, batch in mirm.collator.batches(list(range(1, 13)), 4):
        assert ((batch["input_ids"] == mirm.collator.prompt.cur_item_id).sum(1) == 1).all()
    with pytest.raises(AssertionError, match="one batch"):
        mirm.collator.collate([1, 3])
    doubled = mirm.collator.collate([3])
    doubled = {name: torch.cat([value, value], 1) for name, value in doubled.items()}
    with pytest.raises(AssertionError, match="exactly once"):
        mirm(doubled)


@torch.no_grad()
def test_image_and_text_both_reach_the_embedding(mirm):
    for parts in ("image", "attributes"):
        assert not close(mirm.encode_items([1, 2], parts=parts), mirm.encode_items([1, 2]))
    images = mirm.encode_items([1, 2, 4], parts="image")
    assert not close(images[0], images[1])


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
        trainable = {name for name, value in mirm.named_parameters() if value.requires_grad}
        assert {f"backbone.model.{name}" for name in mirm.backbone.weights()} == trainable
    else:
        assert any("vis" in name for name in changed) and any("layers.1" in name for name in changed)


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
        mirm.encode_items([1, 3]).pow(2).sum().backward()
        gradients.append(torch.cat([value.grad.flatten() for value in mirm.parameters() if value.grad is not None]))
    assert close(*gradients)


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


def test_unknown_backbones_and_options(content):
    assert set(available("model.backbone")) == {"Compact", "Pretrained"}
    with pytest.raises(ValueError, match="mirm_backbone=/no/such/folder: cannot load it.*mirm_backbone=compact"):
        MIRM.build(content, backbone="/no/such/folder")
    with pytest.raises(ValueError, match="compact_hidden_size=30: must be a positive multiple of 8, because of compact_num_heads"):
        MIRM.build(content, backbone_options={**TINY, "compact_hidden_size": 30})
    with pytest.raises(ValueError, match="mirm_tuning=half"):
        toy_mirm(content, tuning="half")
    with pytest.raises(ValueError, match="mirm_readout=first"):
        toy_mirm(content, readout="first")


def test_a_pickle_is_refused_and_not_run(content, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    save_qwen2_vl(tmp_path / "model", content)
    for file in (tmp_path / "model").glob("*.safetensors"):
        file.unlink()
    torch.save({"trap": Trap()}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="must be .safetensors"):
        build(content, str(tmp_path / "model"))
    assert not (tmp_path / "executed").exists()
