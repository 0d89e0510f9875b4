"""A generic wrapper over transformers' image-text-to-text models and language models: batches in, hidden states out.

What differs between architectures is read off the processor, the config and the model's own signature; no class is named here.
"""

import contextlib
import inspect

import numpy as np
import torch
from PIL import Image
from peft import LoraConfig, get_peft_model
from torch import nn

from recbole_molar.data.prompt import CUR_ITEM
from recbole_molar.model.backbone.attention import additive_mask, attend_our_way
from recbole_molar.model.backbone.patches import project_patches_by_product
from recbole_molar.model.backbone.pixels import PictureInputs
from recbole_molar.model.backbone.last_layer import ReadRows
from recbole_molar.model.backbone.user_decoder import DecoderStack, checkpoint_activations, self_attention_layers

TUNINGS = ("full", "lora", "frozen")
TILING = ("crop_to_patches", "do_image_splitting", "do_pan_and_scan")  # names under which image processors cut a picture into tiles
TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")  # names under which models take which tokens are an image's
NO_FUNCTION = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")  # of a config: where and how weights lie, not what they compute
OF_TEXT = ("input_ids", "attention_mask", *TOKEN_TYPES)


class Backbone(nn.Module):
    """An MLLM with a [Cur_Item] token, or an LLM, which reads no pictures.

    Args:
        model (PreTrainedModel): from `AutoModelForImageTextToText` or `AutoModelForCausalLM`.
        processor (ProcessorMixin or PreTrainedTokenizerBase): its tokenizer and image processor, or a language model's tokenizer.
        image_size (tuple): (width, height) of all images.
        tuning (str): `full`, `lora` or `frozen`.
        lora_rank (int), lora_alpha (int): of the adapter on the decoder's linear layers.
        gradient_checkpointing (bool): recompute activations in the backward pass.
    """

    def __init__(self, model, processor, image_size, tuning="full", lora_rank=16, lora_alpha=32, gradient_checkpointing=False):
        super().__init__()
        if tuning not in TUNINGS:
            raise ValueError(f"mirm_tuning={tuning}: unknown. Valid: {', '.join(TUNINGS)}.")
        self.reads_pictures = hasattr(processor, "image_processor")
        self.processor, self.tuning, self.lora_alpha = processor, tuning, lora_alpha
        self.tokenizer = processor.tokenizer if self.reads_pictures else processor
        if self.tokenizer.pad_token_id is None and self.tokenizer.eos_token is not None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.pad_id = self.tokenizer.pad_token_id or 0  # any token will do, it is masked
        self.image_inputs = PictureInputs(self._processed, image_size)  # uint8 images [height, width, 3] -> the model's image tensors
        self._add_cur_item(model)
        project_patches_by_product(model)
        self.image_ids, self.image_token_id = self._image_placeholder(model.config, image_size) if self.reads_pictures else ([], None)
        if gradient_checkpointing:
            checkpoint_activations(model)
        if tuning == "lora":
            model = self._with_adapter(model, lora_rank, lora_alpha)
        elif tuning == "frozen":
            model.requires_grad_(False)
        attend_our_way(model)
        self.model = model
        self._last_layer, self._recomputes = ReadRows(self.decoder.layers[-1]), gradient_checkpointing

    def hold_frozen_in_bf16(self):
        """Keep frozen weights of linear layers in bfloat16, as autocast would cast them in each pass anew, and hold each time for the backward pass."""
        linear = [module for module in self.model.modules() if isinstance(module, nn.Linear)]
        shared = {id(weight) for module in self.model.modules() if not isinstance(module, nn.Linear) for weight in module.parameters(recurse=False)}
        for weight in (module.weight for module in linear):
            if weight.dtype == torch.float32 and not weight.requires_grad and id(weight) not in shared:
                weight.data = weight.data.to(torch.bfloat16)

    def settings(self):
        """What makes equal weights other functions, such as heads and the scale of LoRA: plain values."""
        return [_without(self.plain.config.to_dict(), NO_FUNCTION), self.lora_alpha if self.tuning == "lora" else None]

    @property
    def plain(self):
        """The transformers model, with or without an adapter inside."""
        return self.model.get_base_model() if self.tuning == "lora" else self.model

    @property
    def decoder(self):
        """The text decoder."""
        return self.plain.get_decoder()

    @property
    def dim(self):
        """D, the width of the hidden states."""
        return self.plain.config.get_text_config().hidden_size

    @property
    def device(self):
        return next(self.model.parameters()).device

    def encode(self, batch, read=None):
        """Last hidden states of a batch from `ItemCollator`.

        Args:
            read (Tensor, optional): boolean [N, T], the tokens whose states are read: what the others alone need is left out, and theirs are wrong.

        Returns:
            Tensor: [N, T, D].
        """
        batch = {name: value.to(self.device) for name, value in batch.items()}
        if "mm_token_type_ids" not in batch:  # text alone: positions are the same on either padding side
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        else:
            of_an_image = batch.pop("mm_token_type_ids")
            batch.update({name: of_an_image for name in TOKEN_TYPES if name in self._forward_arguments})
        if "cross_attention_mask" in batch:  # Mllama: made for the placeholder alone; from the placeholder on, a row sees its image
            seen = (batch["input_ids"] == self.image_token_id).cumsum(1).clamp(max=1)  # [N, T]
            batch["cross_attention_mask"] = batch["cross_attention_mask"][:, -1:] * seen[..., None, None]
        if self._recomputes and self.training:
            read = None  # layers are computed again one by one, in the backward pass, when nobody knows any more what is read
        with contextlib.nullcontext() if read is None else self._last_layer.only(read):
            return self.plain.model(**batch, use_cache=False).last_hidden_state

    def decode(self, inputs_embeds, attention_mask, positions=None):
        """Run the decoder over vectors.

        Args:
            inputs_embeds (Tensor): [B, T, D]. attention_mask (Tensor): [B, T], 1 where there is a vector; or, with `positions` (Tensor, [B, T]),
                boolean [B, 1, T, T], True where a vector (row) sees another (column).

        Returns:
            Tensor: [B, T, D].
        """
        if positions is None:
            positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        else:
            attention_mask = additive_mask(attention_mask, inputs_embeds.dtype)
        output = self.decoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=positions, use_cache=False)
        return output.last_hidden_state

    def embed(self, input_ids):
        """Word embeddings, [..., D]."""
        return self.plain.get_input_embeddings()(input_ids)

    def logits(self, states):
        """Word scores [..., V] of hidden states [..., D], with what Granite, Cohere and Gemma 2 do to them behind the head.

        The first two only where they are language models: image-text models over the same decoders leave it out.
        """
        scores, config = self.plain.get_output_embeddings()(states), self.plain.config.get_text_config()
        if not self.reads_pictures:
            scores = scores / (getattr(config, "logits_scaling", None) or 1) * (getattr(config, "logit_scale", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return cap * torch.tanh(scores / cap) if cap else scores

    @property
    def user_decoder_depth(self):
        """Most layers that :meth:`user_decoder` can have."""
        return len(self_attention_layers(self.decoder.config))

    def user_decoder(self, num_layers=None):
        """A copy of the decoder's first layers for DUEG, see :class:`DecoderStack`."""
        return DecoderStack(self.decoder, num_layers)

    def freeze_all_but_decoder(self):
        """What only pictures or written words need (vision tower, projector, a head of its own) is not trained."""
        read = {id(value) for value in self.decoder.parameters()}
        for value in self.model.parameters():
            value.requires_grad_(value.requires_grad and id(value) in read)

    def weights(self):
        """What training changes, by name: all parameters, or the adapter alone; tied ones once."""
        return {name: value for name, value in self.model.named_parameters() if self.tuning == "full" or value.requires_grad}

    @property
    def _forward_arguments(self):
        return inspect.signature(self.plain.model.forward).parameters

    def _add_cur_item(self, model):
        self.tokenizer.add_special_tokens({"additional_special_tokens": [CUR_ITEM]}, replace_extra_special_tokens=False)
        if len(self.tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)

    def _with_adapter(self, model, rank, alpha):
        decoder = model.get_decoder()
        prefix = next(name for name, module in model.named_modules() if module is decoder)
        targets = [f"{prefix}.{name}" for name, module in decoder.named_modules() if isinstance(module, nn.Linear)]
        words = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
        new_token = {words: [self.tokenizer.convert_tokens_to_ids(CUR_ITEM)]}
        return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, trainable_token_indices=new_token))

    def _process(self, images):
        """The processor's output for images with nothing but their placeholder as text; one view of each: tiles would be far more tokens."""
        token = getattr(self.processor, "image_token", None) or "<image>"
        whole = {name: False for name in TILING if hasattr(self.processor.image_processor, name)}
        if crop := self._crop():
            images = [np.asarray(Image.fromarray(image).resize(crop, Image.Resampling.BICUBIC)) for image in images]
            whole.update(do_center_crop=False, do_resize=False)
        return self.processor(text=[token] * len(images), images=[[image] for image in images], return_tensors="pt", padding=True, **whole)

    def _crop(self):
        """(width, height) of the middle of a picture that a processor (CLIP's) would cut out, losing the rest; None for others."""
        processor = self.processor.image_processor
        size = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
        return size and (size["width"], size["height"])

    def sample_inputs(self):
        """The model's image tensors of one fixed random picture: they change with all that a processor does to pixels; none without an image part."""
        if not self.reads_pictures:
            return {}
        height, width, channels = self.image_inputs.shape
        return self._processed([np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)])

    def _processed(self, images):
        """What the processor makes of images, as the model's image tensors."""
        return {name: value for name, value in self._process(images).items() if name not in OF_TEXT}

    def _image_placeholder(self, config, image_size):
        """Tokens that stand for one image of this size, and which of them its features replace."""
        sample = np.zeros((image_size[1], image_size[0], 3), dtype=np.uint8)
        ids = self._process([sample])["input_ids"][0].tolist()
        ids = [token for token in ids if token not in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)]
        image_token_id = getattr(config, "image_token_id", None)
        image_token_id = config.image_token_index if image_token_id is None else image_token_id
        assert image_token_id in ids, f"the processor gave no image token {image_token_id}: {ids[:10]}"
        around = [getattr(config, name, None) for name in ("vision_start_token_id", "vision_end_token_id")]
        if None not in around and around[0] not in ids:  # the Qwen family marks both ends of an image
            ids = [around[0], *ids, around[1]]
        return ids, image_token_id


def _without(values, names):
    """A nested dictionary without some keys, its other values as text."""
    return {str(key): _without(value, names) if isinstance(value, dict) else str(value) for key, value in sorted(values.items(), key=str) if key not in names}
