"""Backbones from a Hugging Face name or a local folder, with or without an image part, with or without torchvision."""

import functools
import importlib.util
import inspect
import json
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import cached_file

from recbole_molar.model.backbone.base import Backbone
from recbole_molar.model.backbone.quantization import check_quantization, loading_options, settle

SAFE = {"use_safetensors": True, "trust_remote_code": False}
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
            model = kind.from_pretrained(name, dtype=torch.float32, **SAFE, **loading_options(quantization))
        except Exception as error:  # broken files raise anything: safetensors' own error, RuntimeError for shapes, AttributeError for odd JSON
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"mirm_backbone={name}: cannot load it ({first}). Give a folder that holds the model, or the name of an "
                f"image-text-to-text model (or, for text alone, of a language model) on Hugging Face (needs a network), or mirm_backbone=compact, "
                f"which needs no download. Weights must be .safetensors: convert a pickled .bin that you trust with transformers' save_pretrained."
            ) from error
        if not hasattr(model.get_decoder(), "layers"):
            raise ValueError(f"mirm_backbone={name}: {type(model).__name__} is built otherwise than the decoders read here. Take one of README's list.")
        return cls(settle(model), processor, image_size, **options)


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
