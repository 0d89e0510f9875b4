"""Tiny backbones with random weights, each written to a folder as its architecture is published.

Every function `save_<architecture>(folder, content)` is found by the contract suite; `save_text_<architecture>` are language models, which read no
pictures. Published folders differ from what `save_pretrained`
writes today: weights in bfloat16, `torch_dtype`, an own `preprocessor_config.json`, image processors by the names of the torchvision classes, text
sizes flat in `config.json` (Qwen2-VL, Qwen2.5-VL), embeddings with and without spare rows. Known from the transformers sources, not from the hub.
"""

import json

import torch
import transformers as hf
from safetensors import torch as safetensors
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

from recbole_molar.data.prompt import COMPRESS, TASKS
from recbole_molar.model.backbone.pretrained import without_video

WIDE = 0.2  # initializer_range: 0.02 would leave the states of a tiny model alike
TEXT = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
    initializer_range=WIDE,
)  # fmt: skip
SIGLIP = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7, initializer_range=WIDE)
QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
SIDE = {"height": 28, "width": 28}


def byte_level_tokenizer(content, special, adds_bos=False, **roles):
    """BPE over bytes, as Qwen, Llama 3, DeepSeek and SmolLM2 have; `roles` are those of `PreTrainedTokenizerFast`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, content, special, [], pre_tokenizers.ByteLevel.alphabet(), adds_bos, roles)


def sentencepiece_tokenizer(content, special, adds_bos=True, **roles):
    """BPE over characters with bytes to fall back on, as Gemma and InternLM2 have."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _trained(tokenizer, content, special, [f"<0x{byte:02X}>" for byte in range(256)], [], adds_bos, roles)


def _trained(tokenizer, content, special, plain, alphabet, adds_bos, roles):
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(plain) + len(alphabet) + 150, special_tokens=[*special, *plain], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*content.texts, *COMPRESS.values(), *TASKS.values()], trainer)
    if plain:  # bytes are words, not special tokens
        data = json.loads(tokenizer.to_str())
        data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in special]
        tokenizer = Tokenizer.from_str(json.dumps(data))
    if adds_bos:
        bos = roles["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", [(bos, tokenizer.token_to_id(bos))])
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def rows(tokenizer, multiple=1):
    """Rows of the word embedding; with multiple=1 there is none to spare for [Cur_Item]."""
    return -(-len(tokenizer) // multiple) * multiple


def publish(folder, model, processor, tokenizer_class=None, flat_text=(), tower=None, unsaid=()):
    """Write a checkpoint in the published layout; `tower` is where CLIP and SigLIP once had one level more in the names of weights, `unsaid` what
    its config leaves out."""
    model.to(torch.bfloat16).save_pretrained(folder)
    if tower:
        weights = safetensors.load_file(folder / "model.safetensors")
        weights = {name.replace(f"{tower}.", f"{tower}.vision_model.", 1): value for name, value in weights.items()}
        safetensors.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    processor.save_pretrained(folder)
    words = _read(folder / "tokenizer_config.json")
    words.update({"tokenizer_class": tokenizer_class} if tokenizer_class else {})
    if isinstance(processor, hf.ProcessorMixin):
        own = _read(folder / "processor_config.json")
        images = own.pop("image_processor")
        images["image_processor_type"] = images["image_processor_type"].removesuffix("Pil") + "Fast"
        images["processor_class"] = own["processor_class"] = words["processor_class"] = type(processor).__name__
        _write(folder / "preprocessor_config.json", images)
        _write(folder / "processor_config.json", own)
    _write(folder / "tokenizer_config.json", words)
    config = _read(folder / "config.json")
    config["torch_dtype"] = config.pop("dtype")
    config = {name: value for name, value in config.items() if name not in unsaid}
    if flat_text:
        text = config.pop("text_config")
        config.update({name: text[name] for name in flat_text})
        config["rope_theta"] = text["rope_parameters"]["rope_theta"]
        config["rope_scaling"] = {"type": "mrope", "mrope_section": text["rope_parameters"]["mrope_section"]}
    _write(folder / "config.json", config)


def _read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def _write(file, data):
    file.write_text(json.dumps(data, indent=2), encoding="utf-8")


def qwen_ids(tokenizer):
    """The ids in a Qwen config."""
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    return {name: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}


def qwen_tokenizer(content):
    return byte_level_tokenizer(content, QWEN, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=list(QWEN[1:]))


def mrope(**more):
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], **more}


def save_qwen2_vl(folder, content):
    """Qwen2-VL: one resolution for each picture, tied head, text sizes flat in the config."""
    tokenizer = qwen_tokenizer(content)
    text = {**TEXT, "vocab_size": rows(tokenizer, 64), "rope_parameters": mrope(), "bos_token_id": None, "eos_token_id": 2, "pad_token_id": None}
    vision = dict(depth=2, embed_dim=32, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=14, initializer_range=WIDE)
    config = hf.Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **qwen_ids(tokenizer))
    images = hf.Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112})
    processor = without_video(hf.Qwen2VLProcessor)(image_processor=images, tokenizer=tokenizer)
    publish(folder, hf.Qwen2VLForConditionalGeneration(config), processor, "Qwen2Tokenizer", flat_text=(*TEXT, "vocab_size"))


def save_qwen2_5_vl(folder, content):
    """Qwen2.5-VL: attention in windows of the picture, but for one layer."""
    tokenizer = qwen_tokenizer(content)
    text = {**TEXT, "vocab_size": rows(tokenizer, 64), "rope_parameters": mrope(), "bos_token_id": None, "eos_token_id": 2, "pad_token_id": None}
    vision = dict(
        depth=2, hidden_size=32, out_hidden_size=32, intermediate_size=48, num_heads=2, patch_size=14, window_size=56, fullatt_block_indexes=[1],
        initializer_range=WIDE,
    )  # fmt: skip
    config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **qwen_ids(tokenizer))
    images = hf.Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112})
    processor = without_video(hf.Qwen2_5_VLProcessor)(image_processor=images, tokenizer=tokenizer)
    publish(folder, hf.Qwen2_5_VLForConditionalGeneration(config), processor, "Qwen2Tokenizer", flat_text=(*TEXT, "vocab_size"))


def save_qwen3_vl(folder, content):
    """Qwen3-VL: features of several vision layers join several decoder layers; interleaved positions; query and key norms."""
    tokenizer = qwen_tokenizer(content)
    text = {**TEXT, "head_dim": 16, "vocab_size": rows(tokenizer, 64), "rope_parameters": mrope(mrope_interleaved=True), "eos_token_id": 2}
    vision = dict(
        depth=3, hidden_size=32, out_hidden_size=32, intermediate_size=48, num_heads=2, patch_size=16, num_position_embeddings=16,
        deepstack_visual_indexes=[0, 1], initializer_range=WIDE,
    )  # fmt: skip
    config = hf.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **qwen_ids(tokenizer))
    images = hf.Qwen2VLImageProcessorPil(patch_size=16, size={"shortest_edge": 64 * 64, "longest_edge": 112 * 112}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = without_video(hf.Qwen3VLProcessor)(image_processor=images, tokenizer=tokenizer)
    publish(folder, hf.Qwen3VLForConditionalGeneration(config), processor, "Qwen2Tokenizer")


def save_internvl(folder, content):
    """InternVL2.5-2B: InternLM2 as a Llama, sentencepiece words, no spare row; its processor would cut a poster into many tiles."""
    extra = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *extra.values()]
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "</s>", "extra_special_tokens": extra}
    tokenizer = sentencepiece_tokenizer(content, special, **roles)
    text = hf.LlamaConfig(**TEXT, vocab_size=rows(tokenizer), bos_token_id=1, eos_token_id=4, pad_token_id=2, tie_word_embeddings=False)
    vision = hf.InternVLVisionConfig(**{**SIGLIP, "image_size": [28, 28], "patch_size": [7, 7]}, attention_bias=True)
    config = hf.InternVLConfig(
        text_config=text, vision_config=vision, image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    images = hf.GotOcr2ImageProcessorPil(size=SIDE, min_patches=1, max_patches=12)
    processor = without_video(hf.InternVLProcessor)(image_processor=images, tokenizer=tokenizer, image_seq_length=4)
    publish(folder, hf.InternVLForConditionalGeneration(config), processor, unsaid=["tie_word_embeddings"])


def save_deepseek_vl(folder, content):
    """deepseek-community/deepseek-vl-1.3b-chat: SigLIP and a Llama decoder, untied head, words that start with their own first token."""
    begin, end, image = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image_placeholder>"
    roles = {"bos_token": begin, "eos_token": end, "pad_token": end, "extra_special_tokens": {"image_token": image}}
    tokenizer = byte_level_tokenizer(content, [begin, end, image], adds_bos=True, **roles)
    text = hf.LlamaConfig(**TEXT, vocab_size=rows(tokenizer, 64), bos_token_id=0, eos_token_id=1, tie_word_embeddings=False)
    vision = hf.SiglipVisionConfig(**SIGLIP, vision_use_head=False)
    config = hf.DeepseekVLConfig(text_config=text, vision_config=vision, image_token_id=2, tie_word_embeddings=False)
    images = hf.DeepseekVLImageProcessorPil(size=SIDE)
    processor = hf.DeepseekVLProcessor(images, tokenizer, num_image_tokens=16)
    publish(folder, hf.DeepseekVLForConditionalGeneration(config), processor, "LlamaTokenizerFast", tower="model.vision_model", unsaid=["tie_word_embeddings"])


def save_mllama(folder, content):
    """Llama-3.2-11B-Vision: the picture comes in through cross-attention, with its gates open here; the image token has no row in the head."""
    special = ["<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>"]
    roles = {"bos_token": special[0], "eos_token": special[1], "pad_token": special[2]}
    tokenizer = byte_level_tokenizer(content, special, adds_bos=True, **roles)
    text = {
        **TEXT, "num_hidden_layers": 3, "vocab_size": rows(tokenizer), "cross_attention_layers": [1], "pad_token_id": 2, "bos_token_id": 0,
        "eos_token_id": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }  # fmt: skip
    vision = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_global_layers=1, attention_heads=2, image_size=28, patch_size=14,
        vision_output_dim=64, intermediate_layers_indices=[0], max_num_tiles=4, initializer_range=WIDE,
        supported_aspect_ratios=[[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
    )  # fmt: skip
    model = hf.MllamaForConditionalGeneration(hf.MllamaConfig(vision_config=vision, text_config=text, image_token_index=rows(tokenizer)))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    for name, value in model.named_parameters():
        if "gate" in name and value.numel() == 1:
            nn.init.ones_(value)
    processor = hf.MllamaProcessor(hf.MllamaImageProcessorPil(size=SIDE, max_image_tiles=4), tokenizer)
    publish(folder, model, processor, "PreTrainedTokenizerFast")


def _save_idefics_like(folder, content, name, processor_class, image_processor_class, **processor_options):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>"]
    roles = {"bos_token": special[1], "eos_token": special[6], "pad_token": special[2], "unk_token": special[0], "additional_special_tokens": special[3:6]}
    tokenizer = byte_level_tokenizer(content, special, **roles)
    text = hf.LlamaConfig(**TEXT, vocab_size=rows(tokenizer), bos_token_id=1, eos_token_id=6, pad_token_id=2)
    config = getattr(hf, f"{name}Config")(text_config=text, vision_config=SIGLIP, scale_factor=2, image_token_id=5, pad_token_id=2)
    images = image_processor_class(size={"longest_edge": 112}, max_image_size={"longest_edge": 28}, do_image_splitting=True)
    processor = processor_class(images, tokenizer, image_seq_len=4, **processor_options)
    publish(folder, getattr(hf, f"{name}ForConditionalGeneration")(config), processor, "GPT2TokenizerFast")


def save_smolvlm(folder, content):
    """SmolVLM2: a poster is one tile out of many, no spare row; transformers wants num2words for its processor."""
    _save_idefics_like(folder, content, "SmolVLM", without_video(hf.SmolVLMProcessor), hf.SmolVLMImageProcessorPil)


def save_idefics3(folder, content):
    """SmolVLM (the first one) and Idefics3: the same under another name."""
    _save_idefics_like(folder, content, "Idefics3", hf.Idefics3Processor, hf.Idefics3ImageProcessorPil)


def save_gemma3(folder, content):
    """Gemma 3: tokens of a picture see each other both ways; attention in a sliding window; scaled words; pictures that start as zeros."""
    extra = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "\n\n", *extra.values()]
    roles = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>", "extra_special_tokens": extra}
    tokenizer = sentencepiece_tokenizer(content, special, **roles)
    layers = ["sliding_attention", "sliding_attention", "full_attention"]
    text = {**TEXT, "num_hidden_layers": 3, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16, "layer_types": layers}
    config = hf.Gemma3Config(
        text_config={**text, "vocab_size": rows(tokenizer, 64)}, vision_config={**SIGLIP, "vision_use_head": False}, mm_tokens_per_image=4,
        boi_token_index=5, eoi_token_index=6, image_token_index=7,
    )  # fmt: skip
    model = hf.Gemma3ForConditionalGeneration(config)
    nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=WIDE)
    images = hf.Gemma3ImageProcessorPil(size=SIDE, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    publish(folder, model, hf.Gemma3Processor(images, tokenizer, image_seq_length=4), "GemmaTokenizerFast", tower="vision_tower")


def save_llava(folder, content, decoder=hf.LlamaConfig):
    """LLaVA-1.5: CLIP, of which the last layer but one is read, and Llama, or another decoder."""
    special = ["<unk>", "<s>", "</s>", "<image>", "<pad>"]
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "extra_special_tokens": {"image_token": "<image>"}}
    tokenizer = sentencepiece_tokenizer(content, special, **roles)
    vision = hf.CLIPVisionConfig(**{**SIGLIP, "num_hidden_layers": 3, "patch_size": 14})
    text = decoder(**TEXT, vocab_size=rows(tokenizer, 64), tie_word_embeddings=False)
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, image_seq_length=4, vision_feature_layer=-2, tie_word_embeddings=False)
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SIDE)
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    publish(folder, hf.LlavaForConditionalGeneration(config), hf.LlavaProcessor(images, tokenizer, **options), tower="vision_tower")


def save_text_llama(folder, content):
    """Llama 3.2 (1B, 3B), TinyLlama, SmolLM2, Vicuna."""
    tokenizer = byte_level_tokenizer(content, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), bos_token="<|im_start|>", eos_token="<|im_end|>")
    config = hf.LlamaConfig(**TEXT, vocab_size=rows(tokenizer), tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
    publish(folder, hf.LlamaForCausalLM(config), tokenizer, "GPT2Tokenizer")


def save_text_qwen2(folder, content):
    """Qwen2 and Qwen2.5: biases in attention, rows of the embedding to spare."""
    tokenizer = qwen_tokenizer(content)
    config = hf.Qwen2Config(**TEXT, vocab_size=rows(tokenizer, 64), tie_word_embeddings=False, eos_token_id=2)
    publish(folder, hf.Qwen2ForCausalLM(config), tokenizer, "Qwen2Tokenizer")


def save_text_qwen3(folder, content):
    """Qwen3: query and key norms."""
    tokenizer = qwen_tokenizer(content)
    config = hf.Qwen3Config(**TEXT, head_dim=16, vocab_size=rows(tokenizer, 64), tie_word_embeddings=True, eos_token_id=2)
    publish(folder, hf.Qwen3ForCausalLM(config), tokenizer, "Qwen2Tokenizer")


def save_text_gemma3(folder, content):
    """Gemma 3 of 270M and 1B: attention in a sliding window; scaled words."""
    roles = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    tokenizer = sentencepiece_tokenizer(content, list(roles.values()), **roles)
    layers = ["sliding_attention", "sliding_attention", "full_attention"]
    text = {**TEXT, "num_hidden_layers": 3, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16, "layer_types": layers}
    publish(folder, hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**text, vocab_size=rows(tokenizer, 64))), tokenizer, "GemmaTokenizerFast")
