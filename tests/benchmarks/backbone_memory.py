"""Memory of published backbones by way of tuning, computed: python tests/benchmarks/backbone_memory.py prints README's table.

Models are built without weights, from the sizes of the published configs as written down here (no hub was asked), and their parameters counted.
Bytes as the code spends them with `precision: bf16`: what is trained takes 4 for a weight, 4 for its gradient and 8 for AdamW's two moments; frozen weights
of linear layers take 2, unless the word embeddings share them, in 4 bits `NF4` but for the head, all others 4. Activations and, under autocast,
bfloat16 copies of trained weights come on top.
"""

import torch
import transformers as hf
from torch import nn

from recbole_molar.model.backbone.pretrained import of_text_alone

GIB = 2**30
WEIGHT, HELD, TRAINED = 4, 2, 4 + 4 + 8
NF4 = 1 / 2 + 1 / 64 + 4 / (64 * 256)  # with double quantisation: a scale in 8 bits for 64 weights, one in 32 bits for 256 scales
RANK, DUEG_LAYERS = 16, 2  # defaults of mirm_lora_rank, dueg_layers


def text(hidden, intermediate, layers, heads, kv_heads, vocab, **more):
    """Sizes of a decoder under the names of transformers."""
    return dict(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        vocab_size=vocab, **more,
    )  # fmt: skip


def tower(hidden, intermediate, layers, heads, image, patch):
    """Sizes of a CLIP or SigLIP tower."""
    return dict(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads, image_size=image, patch_size=patch
    )  # fmt: skip


def mrope(section, **more):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section, **more}}


def published():
    """Name -> config."""
    llama, so400m = hf.LlamaConfig, tower(1152, 4304, 27, 16, 384, 14)
    qwen25 = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16)
    qwen3 = dict(patch_size=16, num_position_embeddings=2304)
    untied = {"tie_word_embeddings": False}
    return {
        "Qwen/Qwen2-VL-2B-Instruct": hf.Qwen2VLConfig(
            text_config=text(1536, 8960, 28, 12, 2, 151936, **mrope([16, 24, 24])), vision_config=dict(embed_dim=1280, hidden_size=1536),
            tie_word_embeddings=True,
        ),
        "Qwen/Qwen2-VL-7B-Instruct": hf.Qwen2VLConfig(
            text_config=text(3584, 18944, 28, 28, 4, 152064, **mrope([16, 24, 24])), vision_config=dict(embed_dim=1280, hidden_size=3584), **untied
        ),
        "Qwen/Qwen2.5-VL-3B-Instruct": hf.Qwen2_5_VLConfig(
            text_config=text(2048, 11008, 36, 16, 2, 151936, **mrope([16, 24, 24])), vision_config={**qwen25, "out_hidden_size": 2048},
            tie_word_embeddings=True,
        ),
        "Qwen/Qwen2.5-VL-7B-Instruct": hf.Qwen2_5_VLConfig(
            text_config=text(3584, 18944, 28, 28, 4, 152064, **mrope([16, 24, 24])), vision_config={**qwen25, "out_hidden_size": 3584}, **untied
        ),
        "Qwen/Qwen3-VL-2B-Instruct": hf.Qwen3VLConfig(
            text_config=text(2048, 6144, 28, 16, 8, 151936, head_dim=128, **mrope([24, 20, 20], mrope_interleaved=True)),
            vision_config=dict(depth=24, hidden_size=1024, intermediate_size=4096, out_hidden_size=2048, deepstack_visual_indexes=[5, 11, 17], **qwen3),
            tie_word_embeddings=True,
        ),
        "Qwen/Qwen3-VL-8B-Instruct": hf.Qwen3VLConfig(
            text_config=text(4096, 12288, 36, 32, 8, 151936, head_dim=128, **mrope([24, 20, 20], mrope_interleaved=True)),
            vision_config=dict(depth=27, hidden_size=1152, intermediate_size=4304, out_hidden_size=4096, **qwen3), **untied,
        ),
        "OpenGVLab/InternVL2_5-2B-MPO-hf": hf.InternVLConfig(
            text_config=llama(**text(2048, 8192, 24, 16, 8, 92553), **untied), vision_config=hf.InternVLVisionConfig(attention_bias=True), **untied
        ),
        "deepseek-community/deepseek-vl-1.3b-chat": hf.DeepseekVLConfig(
            text_config=llama(**text(2048, 5632, 24, 16, 16, 102400), **untied),
            vision_config=hf.SiglipVisionConfig(**tower(1024, 4096, 24, 16, 384, 16), vision_use_head=False), **untied,
        ),
        "meta-llama/Llama-3.2-11B-Vision-Instruct": hf.MllamaConfig(
            text_config=dict(rope_parameters={"rope_type": "default", "rope_theta": 5e5}), vision_config=dict(image_size=560)
        ),
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": hf.SmolVLMConfig(
            text_config=llama(**text(960, 2560, 32, 15, 5, 49280), **untied), vision_config=tower(768, 3072, 12, 12, 512, 16), scale_factor=4, **untied
        ),
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct": hf.SmolVLMConfig(
            text_config=llama(**text(2048, 8192, 24, 32, 32, 49280), **untied), vision_config=so400m, scale_factor=3, **untied
        ),
        "llava-hf/llava-1.5-7b-hf": hf.LlavaConfig(
            text_config=llama(**text(4096, 11008, 32, 32, 32, 32064), **untied),
            vision_config=hf.CLIPVisionConfig(**tower(1024, 4096, 24, 16, 336, 14)), **untied,
        ),
        "google/gemma-3-4b-it": hf.Gemma3Config(
            text_config=text(2560, 10240, 34, 8, 4, 262208, head_dim=256, sliding_window=1024),
            vision_config={**so400m, "image_size": 896, "vision_use_head": False},
        ),
        "HuggingFaceTB/SmolLM2-135M-Instruct": llama(**text(576, 1536, 30, 9, 3, 49152), tie_word_embeddings=True),
        "Qwen/Qwen3-0.6B": hf.Qwen3Config(**text(1024, 3072, 28, 16, 8, 151936, head_dim=128), tie_word_embeddings=True),
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0": llama(**text(2048, 5632, 22, 32, 4, 32000), **untied),
        "meta-llama/Llama-3.2-1B-Instruct": llama(**text(2048, 8192, 16, 32, 8, 128256), tie_word_embeddings=True),
        "Qwen/Qwen2.5-7B-Instruct": hf.Qwen2Config(**text(3584, 18944, 28, 28, 4, 152064), **untied),
    }  # fmt: skip


def count(model, rank=RANK):
    """Parameters by what becomes of them: `all`; `adapter`, LoRA on the decoder's linear layers and [Cur_Item]'s row; `linear`, what 4 bits hold;
    `held`, what bfloat16 does; `dueg` and `decoder`, DUEG with 2 layers and with all."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    shapes = [module.weight.shape for module in decoder.modules() if isinstance(module, nn.Linear)]
    layers = [sum(value.numel() for value in layer.parameters()) for layer in decoder.layers]
    skipped = getattr(decoder.config, "cross_attention_layers", None) or []
    kept = [layer for index, layer in enumerate(layers) if index not in skipped]
    return {
        "all": sum(value.numel() for value in model.parameters()),
        "adapter": rank * sum(sum(shape) for shape in shapes) + decoder.config.hidden_size,
        "linear": sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear) and module is not head),
        "held": sum(
            module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear) and module.weight is not model.get_input_embeddings().weight
        ),
        "dueg": sum(kept[:DUEG_LAYERS]) + decoder.config.hidden_size,
        "decoder": sum(kept) + decoder.config.hidden_size,
    }


def memory(counted):
    """Bytes of weights, gradients and optimizer for each way of tuning, and of DUEG in stage 2."""
    frozen = WEIGHT * (counted["all"] - counted["held"]) + HELD * counted["held"]
    return {
        "frozen": frozen,
        "lora": frozen + TRAINED * counted["adapter"],
        "4bit": frozen + (NF4 - HELD) * counted["linear"] + TRAINED * counted["adapter"],
        "full": TRAINED * counted["all"],
        "dueg": TRAINED * counted["dueg"],
        "whole": TRAINED * counted["decoder"],
    }


def main():
    print("| checkpoint | parameters | frozen | LoRA | 4-bit LoRA | full | DUEG, 2 layers | DUEG, all |\n|" + "---|" * 8)
    for name, config in published().items():
        with torch.device("meta"):
            counted = count((hf.AutoModelForCausalLM if of_text_alone(config) else hf.AutoModelForImageTextToText).from_config(config))
        gib = {key: value / GIB for key, value in memory(counted).items()}
        cells = [gib[key] for key in ("frozen", "lora", "4bit", "full", "dueg", "whole")]
        print(f"| `{name}` | {counted['all'] / 1e9:.2f} B | " + " | ".join(f"{value:.1f}" for value in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
