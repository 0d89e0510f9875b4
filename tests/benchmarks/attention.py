"""Attention of DUEG on a CPU: ours against transformers' two ways, one training step of a two-layer compact decoder, side by side.

    OMP_NUM_THREADS=1 python tests/benchmarks/attention.py --length=200 --batch=32 --rounds=8
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from recbole_molar.command_line import parse_command_line  # noqa: E402
from recbole_molar.device import has_cpu_bf16, kept_freed_memory  # noqa: E402
from recbole_molar.model.backbone.attention import NAME  # noqa: E402
from recbole_molar.model.backbone.user_decoder import DecoderStack  # noqa: E402
from transformers import Qwen2VLTextConfig, Qwen2VLTextModel  # noqa: E402


def main():
    """Print the least CPU seconds of a step for each, and how many times ours they are."""
    given = parse_command_line(sys.argv[1:])
    length, batch, rounds = given.get("length", 200), given.get("batch", 32), given.get("rounds", 8)
    config = Qwen2VLTextConfig(
        vocab_size=8, hidden_size=192, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 9, 9]}, bos_token_id=None, eos_token_id=None,
    )
    stack = DecoderStack(Qwen2VLTextModel(config)).train()
    items = torch.randn(batch, length + 1, 192, requires_grad=True)
    least = {NAME: float("inf"), "eager": float("inf"), "sdpa": float("inf")}
    for _ in range(rounds):
        for kind in least:
            stack.config._attn_implementation = kind
            with kept_freed_memory(items.device):
                start = time.process_time()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_cpu_bf16()):
                    states = stack(items)
                states.float().pow(2).mean().backward()
                least[kind] = min(least[kind], time.process_time() - start)
    print(f"[{batch}, {length + 1}] tokens, bf16 {has_cpu_bf16()}")
    for kind, seconds in least.items():
        print(f"{kind}: {seconds:.3f} s, {seconds / least[NAME]:.2f} times")


if __name__ == "__main__":
    main()
