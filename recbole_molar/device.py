"""Where to compute and in which precision: one Accelerator for every stage of a run."""

import os

import torch
from accelerate import Accelerator


def has_cpu_bf16():
    """True where the CPU multiplies bf16 natively (elsewhere autocast is slower than fp32)."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(supported() or amx())


def make_accelerator(precision="auto", gradient_accumulation_steps=1, use_cpu=False):
    """Build the Accelerator of a run.

    Args:
        precision (str): `auto` (bf16 where the device has it), `bf16` or `fp32`.
        gradient_accumulation_steps (int): batches for each optimizer step.
        use_cpu (bool): stay on the CPU even where there is a GPU.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision={precision}: unknown. Valid: auto, bf16, fp32.")
    cpu = use_cpu or not torch.cuda.is_available()
    native = has_cpu_bf16() if cpu else torch.cuda.is_bf16_supported()
    mixed = "bf16" if precision == "bf16" or (precision == "auto" and native) else "no"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return Accelerator(mixed_precision=mixed, cpu=cpu, gradient_accumulation_steps=gradient_accumulation_steps)
