"""Backbones from a Hugging Face name or a local folder, with or without an image part, with or without torchvision."""

import functools
import importlib.util
import inspect
import json
from logging import getLogger
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import cached_file

from recbole_molar.data.prompt import COMPRESS
from recbole_molar.model.backbone.base import Backbone
from recbole_molar.model.backbone.quantization import check_quantization, loading_options, settle

SAFE = {"use_safetensors": True, "trust_remote_code": False}
SAME = 0.05  # relative difference of what should be equal, rounding in bfloat16 and 4 bits included
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


class Pretrained(Backbone):
    """Any image-text-to-text model of transformers with published or saved weights, or a language model, which reads no pictures."""

    @classmethod
    def build(cls, name, image_size, quantization=None, **options):
        """Load it.

        Args:
            name (str): Hugging Face name, or a folder made by `save_pretrained`.
            image_size (tuple): (width, height).
            quantization (str, optional): `4bit`, see `quantization.py`; the model then is on the GPU.
            **options: `tuning` and the rest of :class:`Backbone`.

        Raises:
            ValueError: it cannot be loaded; says what to do.
        """
        check_quantization(quantization, options.get("tuning", "full"), "cuda" if torch.cuda.is_available() else "cpu")
        try:
            if of_text_alone(AutoConfig.from_pretrained(name, trust_remote_code=False)):
                processor, kind = AutoTokenizer.from_pretrained(name, trust_remote_code=False), AutoModelForCausalLM
            else:
                processor, kind = load_processor(name), AutoModelForImageTextToText
            # fp32: published weights are bf16, whose steps are too coarse for AdamW's updates; autocast gives the speed back.
            # Safetensors alone: a pickle runs code when it is read; so would a folder's own modelling files.
            model, info = kind.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **SAFE, **loading_options(quantization))
            if not getattr(processor, "tokenizer", processor).is_fast:
                raise ValueError("its tokenizer is one in Python alone")
        except Exception as error:  # broken files raise anything: safetensors' own error, RuntimeError for shapes, AttributeError for odd JSON
            raise ValueError(
                f"mirm_backbone={name}: {why_not_loaded(error)} Give a folder that holds the model, or the name of an "
                f"image-text-to-text model (or, for text alone, of a language model) on Hugging Face (needs a network), or mirm_backbone=compact, "
                f"which needs no download. Weights must be .safetensors: convert a pickled .bin that you trust with transformers' save_pretrained."
            ) from error
        missing = [key for key in sorted(info["missing_keys"]) if not key.startswith("lm_head.")]
        if missing:
            raise ValueError(f"mirm_backbone={name}: {len(missing)} of its weights are missing, for example {missing[0]}. Get its files again.")
        if info["missing_keys"]:
            getLogger().warning("mirm_backbone=%s has no head that scores words; stage 1 and its texts begin with a random one.", name)
        if not hasattr(model.get_decoder(), "layers"):
            raise _built_otherwise(name, model, "no list of layers")
        keep_apart(model)
        backbone = cls(settle(model), processor, image_size, **options)
        try_out(backbone, name)
        return backbone


def why_not_loaded(error):
    """What transformers says of a checkpoint that it cannot load, and what helps where its own words do not: one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    hints = {
        "gated repo": " Accept the licence on its page, then `hf auth login`, or set HF_TOKEN.",
        "custom code": " Python files of its own are never run: of README's list take the name in transformers' own layout.",
        "does not recognize": " Of README's list take the name in transformers' own layout.",
        "tiktoken": "" if importlib.util.find_spec("sentencepiece") else " Its words may be sentencepiece's: pip install sentencepiece protobuf.",
    }
    return f"cannot load it ({said[:300]})." + "".join(hint for words, hint in hints.items() if words in said)


def keep_apart(model):
    """Let a head that was published apart from the word embeddings stay so.

    InternVL's and DeepSeek-VL's published configs do not say that theirs is, and unsaid means tied: what adds a word would then overwrite it.
    """
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    if getattr(model.config, "tie_word_embeddings", False) and head is not None and head.weight is not words.weight:
        model.config.tie_word_embeddings = False


def _built_otherwise(name, model, reason):
    return ValueError(f"mirm_backbone={name}: {type(model).__name__} is built otherwise than the decoders read here ({reason}). Take one of README's list.")


@torch.no_grad()
def try_out(backbone, name):
    """Use a backbone in each way on a few words, before anything takes long: any architecture of transformers may be named.

    Raises:
        ValueError: it cannot be used so; its scores of words are not those of the model itself; or a state depends on what comes after it, which
            would show a history's user what is to be predicted.
    """
    modes = backbone.training, backbone.model.training
    backbone.eval()
    ids = torch.tensor([backbone.tokenizer(COMPRESS[True, False], add_special_tokens=False)["input_ids"][:8]], device=backbone.device)
    mask, reads = torch.ones_like(ids), torch.arange(ids.size(1), device=ids.device)[None] == ids.size(1) - 1
    try:
        states = backbone.encode({"input_ids": ids, "attention_mask": mask})
        only = backbone.encode({"input_ids": ids, "attention_mask": mask}, read=reads)[reads]
        scores, own = backbone.logits(states), backbone.plain(input_ids=ids, attention_mask=mask, use_cache=False).logits
        vectors = backbone.embed(ids).float()
        other = torch.cat([vectors[:, :-1], vectors[:, :1]], dim=1)  # another last one
        stack = backbone.user_decoder(1).to(ids.device).eval()
        moved = [_moved(read(vectors)[:, :-1], read(other)[:, :-1]) for read in (lambda given: backbone.decode(given, mask), stack)]
    except Exception as error:
        raise _built_otherwise(name, backbone.plain, f"{type(error).__name__}: {str(error)[:200]}") from error
    if not all(one <= SAME for one in moved):
        reason = "a word's state depends on the words after it, so a user would be told what comes next"
        raise _built_otherwise(name, backbone.plain, reason)
    told = own > torch.finfo(own.dtype).min  # Chameleon never says its pictures' words
    if not (_moved(only, states[reads]) <= SAME and _moved(scores[told].float(), own[told].float()) <= SAME):  # nor where one is NaN
        raise _built_otherwise(name, backbone.plain, "its states or word scores are not those that it has in transformers")
    backbone.model.train(modes[1])
    backbone.training = modes[0]


def _moved(one, other):
    """Relative difference of two tensors."""
    return float((one - other).norm() / one.norm().clamp(min=1e-12))


def of_text_alone(config):
    """Whether a config is that of a language model without an image part (TinyLlama, SmolLM2, Qwen3, the 1B of Gemma 3, ...)."""
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def load_processor(name):
    """The processor of a checkpoint.

    Without torchvision `AutoProcessor` fails on models with a video processor, or silently gives a bare tokenizer; then the
    checkpoint's own processor class is instantiated without its video part.
    """
    if importlib.util.find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(name, trust_remote_code=False)
    return without_video(_processor_class(name)).from_pretrained(name, trust_remote_code=False)


@functools.lru_cache
def without_video(processor_class):
    """A subclass of a processor class that does not look for a video processor."""
    if "video_processor" not in inspect.signature(processor_class.__init__).parameters:
        return processor_class
    # Its name is that of the class: the name is written into saved files, and read from them.
    return type(processor_class.__name__, (_NoVideo, processor_class), {"__init__": _initialiser(processor_class)})


class _NoVideo:
    """Parts and options by name: transformers matches parts by place, which the video part's absence shifts, and options by the names in
    the code of `__init__`, which a wrapper hides (InternVL's and SmolVLM's length of an image would silently become the default)."""

    @classmethod
    def get_attributes(cls):
        return [name for name in super().get_attributes() if name != "video_processor"]

    @classmethod
    def from_args_and_dict(cls, args, processor_dict, return_unused_kwargs=False, **kwargs):
        parts = dict(zip(cls.get_attributes(), args))
        given = {**processor_dict, **kwargs}
        known = inspect.signature(cls.__init__).parameters.keys() - {"self", "video_processor", *parts}
        processor = cls(**parts, **{name: value for name, value in given.items() if name in known})
        unused = {name: value for name, value in given.items() if name not in known}
        return (processor, unused) if return_unused_kwargs else processor


def _initialiser(processor_class):
    @functools.wraps(processor_class.__init__)
    def initialise(self, image_processor=None, tokenizer=None, **options):
        processor_class.__init__(self, image_processor=image_processor, tokenizer=tokenizer, video_processor=None, **options)

    return initialise


def _processor_class(name):
    for file in PROCESSOR_FILES:
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        declared = json.loads(Path(path).read_text(encoding="utf-8")).get("processor_class") if path else None
        if declared and issubclass(getattr(transformers, declared, object), ProcessorMixin):
            return getattr(transformers, declared)
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    return PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(name, trust_remote_code=False))]
