"""Weights in 4 bits (QLoRA): what it needs, how it is asked for, and linear layers back in float32. The one file that knows bitsandbytes."""

import importlib.util

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import nn
from transformers import BitsAndBytesConfig

from recbole_molar.property_error import bad_value

QUANTIZATIONS = ("4bit",)
DEVICES = ("cuda",)
COMPUTE = torch.bfloat16


def check_quantization(quantization, tuning, device, is_built=False):
    """Say at the start why `mirm_quantization` cannot be had; nothing for None.

    Args:
        quantization (str, optional): `4bit`. tuning (str): `mirm_tuning`. device (str): the type, `cuda` or `cpu`.
        is_built (bool): the backbone is made here, from random weights (`compact`).

    Raises:
        PropertyError: an unknown value, a way of tuning or a backbone that it does not go with, or a machine without CUDA or bitsandbytes.
    """
    if quantization is None:
        return
    if quantization not in QUANTIZATIONS:
        why = f"unknown. Valid: {', '.join(QUANTIZATIONS)}, or ~ for none."
    elif tuning == "full":
        why = "weights in 4 bits cannot be trained, and mirm_tuning=full would. Set mirm_tuning=lora (or frozen), or mirm_quantization=~."
    elif is_built:
        why = "is for published weights; mirm_backbone=compact is small and trained from scratch. Set mirm_quantization=~."
    elif device not in DEVICES:
        why = f"needs a GPU with CUDA, and this run is on {device}. Set gpu_id and leave use_cpu out, or mirm_quantization=~."
    elif importlib.util.find_spec("bitsandbytes") is None:
        install = 'pip install "recbole_molar[quantization]", in a checkout pip install -e ".[quantization]"'
        why = f"needs bitsandbytes, which is not installed. {install}, or mirm_quantization=~."
    else:
        return
    raise bad_value("mirm_quantization", quantization, why)


def loading_options(quantization):
    """Arguments of `from_pretrained`: NF4 with double quantisation for every linear layer but the word-scoring head; the rest stays as it is."""
    if quantization is None:
        return {}
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=COMPUTE)
    return {"quantization_config": config}


def settle(model):
    """Make the biases of layers in 4 bits bfloat16 now: bitsandbytes does so in the first pass, which would change a model's fingerprint."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.dtype == torch.uint8 and module.bias is not None:
            module.bias.data = module.bias.data.to(COMPUTE)
    return model


def full_weight(linear):
    """A linear layer's weight as numbers, [out, in]; in 4 bits it is packed bytes."""
    return dequantize_module_weight(linear)
