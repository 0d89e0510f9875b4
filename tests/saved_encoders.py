"""Tiny random encoders in folders, as published ones lie on a disk."""

import torch
from transformers import BertConfig, BertForMaskedLM, CLIPConfig, CLIPImageProcessorPil, CLIPModel, ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from recbole_molar.model.content_encoder.compact_text import CompactText

SIZES = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)


def save_bert(folder, content):
    """A BERT with its head for masked language modelling, and a tokenizer."""
    tokenizer = CompactText(content, max_tokens=32, hidden_size=8, layers=1, heads=1, vocab_size=300).tokenizer
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertForMaskedLM(BertConfig(vocab_size=320, max_position_embeddings=32, initializer_range=0.5, **SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_vit(folder, content=None):
    """A ViT with its head for classification, and an image processor."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, initializer_range=0.5, **SIZES)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


def save_clip(folder, content):
    """A CLIP, which has a tower for each modality."""
    tokenizer = CompactText(content, max_tokens=32, hidden_size=8, layers=1, heads=1, vocab_size=300).tokenizer
    text = {**SIZES, "vocab_size": 320, "max_position_embeddings": 24, "eos_token_id": tokenizer.sep_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        CLIPModel(CLIPConfig(text_config=text, vision_config={**SIZES, "image_size": 16, "patch_size": 8})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)
