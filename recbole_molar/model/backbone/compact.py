"""The offline default: Qwen2-VL's architecture at a small size, from a config, with a tokenizer trained on the data set's own text."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from recbole_molar.data.prompt import COMPRESS, CUR_ITEM, TASKS
from recbole_molar.model.backbone.base import Backbone
from recbole_molar.model.backbone.pretrained import without_video

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PATCH = 14


class Compact(Backbone):
    """A few million random parameters in the format of Qwen2-VL: what runs on it runs on the published 2B and 7B."""

    @classmethod
    def build(cls, texts, image_size, *, compact_hidden_size=192, compact_num_layers=3, compact_num_heads=4,
              compact_num_kv_heads=2, compact_intermediate_size=512, compact_vision_size=128, compact_vision_layers=2,
              compact_vision_heads=4, compact_vocab_size=4096, tokenizer=None, **options):
        """Make it from the data set's text; weights are drawn from torch's generator.

        Args:
            texts (list): all text of the items.
            image_size (tuple): (width, height), multiples of 28.
            compact_…: sizes, see `properties/backbone/compact.yaml`.
            tokenizer (str, optional): a tokenizer as JSON, in place of one trained on the texts.
            **options: `tuning` and the rest of :class:`Backbone`.
        """
        _check_sizes(
            ("compact_hidden_size", compact_hidden_size, "compact_num_heads", 4 * compact_num_heads),
            ("compact_num_heads", compact_num_heads, "compact_num_kv_heads", compact_num_kv_heads),
            ("compact_vision_size", compact_vision_size, "compact_vision_heads", 4 * compact_vision_heads),
        )
        tokenizer = read_tokenizer(tokenizer) if tokenizer else train_tokenizer(texts, compact_vocab_size)
        token = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
        rows = -(-len({*tokenizer.get_vocab(), CUR_ITEM}) // 64) * 64
        section = compact_hidden_size // compact_num_heads // 2
        side = 3 * section // 8
        text = dict(
            vocab_size=rows, hidden_size=compact_hidden_size, intermediate_size=compact_intermediate_size,
            num_hidden_layers=compact_num_layers, num_attention_heads=compact_num_heads, num_key_value_heads=compact_num_kv_heads,
            initializer_range=compact_hidden_size**-0.5,  # 0.02, made for widths near 2500, would leave states almost alike
            max_position_embeddings=4096, bos_token_id=None, eos_token_id=token[SPECIAL[0]], pad_token_id=token[SPECIAL[0]],
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[section - 2 * side, side, side]),
        )  # fmt: skip
        vision = dict(
            depth=compact_vision_layers, embed_dim=compact_vision_size, hidden_size=compact_hidden_size,
            num_heads=compact_vision_heads, patch_size=PATCH,
        )  # fmt: skip
        config = Qwen2VLConfig(
            text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_id=token["<|image_pad|>"],
            video_token_id=token["<|video_pad|>"], vision_start_token_id=token["<|vision_start|>"],
            vision_end_token_id=token["<|vision_end|>"],
        )  # fmt: skip
        model = Qwen2VLForConditionalGeneration._from_config(config, dtype=torch.float32)
        return cls(model, make_processor(tokenizer, image_size), image_size, **options)


def _check_sizes(*rules):
    for key, value, by, divisor in rules:
        if value < 1 or divisor < 1 or value % divisor:
            raise ValueError(f"{key}={value}: must be a positive multiple of {divisor}, because of {by}.")


def train_tokenizer(texts, vocab_size):
    """Byte-level BPE with Qwen2-VL's special tokens, trained on the texts and on our prompts."""
    prompts = [*COMPRESS.values(), *TASKS.values()]
    return wrap_tokenizer(byte_level_bpe([*texts, *prompts * 3], vocab_size, SPECIAL))


def byte_level_bpe(texts, vocab_size, special):
    """A `tokenizers.Tokenizer` trained on the texts: any byte has a token; the `special` ones come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(text):
    """The tokenizer that came with weights; raises ValueError where it is none."""
    try:
        return wrap_tokenizer(Tokenizer.from_str(text))
    except Exception as error:  # the package raises bare Exception
        raise ValueError(f"mirm_weights: their tokenizer cannot be read ({str(error)[:200]}). Run stage 1 again.") from error


def wrap_tokenizer(tokenizer):
    """A `tokenizers.Tokenizer` as transformers' class, with Qwen2-VL's special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[0], additional_special_tokens=list(SPECIAL[1:])
    )


def make_processor(tokenizer, image_size):
    """Qwen2-VL's processor for images of one size: no side is scaled."""
    pixels = image_size[0] * image_size[1]
    images = Qwen2VLImageProcessorPil(patch_size=PATCH, size={"shortest_edge": pixels, "longest_edge": pixels})
    return without_video(Qwen2VLProcessor)(image_processor=images, tokenizer=tokenizer)
