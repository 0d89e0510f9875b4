"""Tiny random encoders in folders, as published ones lie on a disk."""

import torch
from transformers import (
    BertConfig, BertForMaskedLM, ByT5Tokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel, RobertaConfig, RobertaModel, T5Config, T5EncoderModel,
    ViTConfig, ViTForImageClassification,
)  # fmt: skip
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


def save_roberta(folder, content):
    """A RoBERTa, whose positions are counted from behind that of padding, without a word of its tokenizer on the longest text."""
    tokenizer = CompactText(content, max_tokens=32, hidden_size=8, layers=1, heads=1, vocab_size=300).tokenizer
    tokenizer.model_max_length = 10**6
    with torch.random.fork_rng():
        torch.manual_seed(3)
        RobertaModel(RobertaConfig(vocab_size=320, max_position_embeddings=20, pad_token_id=1, initializer_range=0.5, **SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_t5_encoder(folder, content=None):
    """The encoder of a T5 alone, as sentence-t5 and gtr-t5 were published, with ByT5's tokenizer, which is one in Python alone."""
    sizes = dict(d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, vocab_size=384)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        T5EncoderModel(T5Config(**sizes, is_encoder_decoder=False)).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
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
