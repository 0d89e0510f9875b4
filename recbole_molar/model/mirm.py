"""MIRM, Multimodal Item Representation Model (f_I of the paper): an MLLM batch of items in, one embedding for each item out."""

import hashlib
import json

import numpy as np
import torch

from recbole_molar.checkpoint import load_tensors, save_tensors
from recbole_molar.data.collator import ItemCollator
from recbole_molar.data.prompt import PROMPT_VERSION, ItemPrompt
from recbole_molar.lookup import built_here, find_class
from recbole_molar.model.backbone.pretrained import Pretrained
from recbole_molar.model.backbone.quantization import check_quantization
from recbole_molar.model.item_encoder import ItemEncoder, hash_weights
from recbole_molar.processes import process_index
from recbole_molar.property_error import bad_value
from recbole_molar.sharding import shard_as, whole_on_main

READOUTS = ("cur_item", "mean")
IMAGE_SIZE = (112, 168)  # (width, height) of all pictures, where nothing else is said


class MIRM(ItemEncoder):
    """Reads item embeddings off a backbone.

    Args:
        backbone (Backbone): the MLLM.
        collator (ItemCollator): makes its batches.
        readout (str): `cur_item`, the last hidden state at [Cur_Item] (the paper's); `mean`, of the states of all tokens.
        encode_batch_size (int): items in one pass through the MLLM; longer lists are split, sorted by length.
        name (str), own_tokenizer (bool): what the backbone is called; whether its tokenizer was trained on the items' text.
        quantization (str, optional): `4bit` where its weights are.
    """

    def __init__(self, backbone, collator, readout="cur_item", encode_batch_size=16, name="", own_tokenizer=False, quantization=None):
        super().__init__()
        if readout not in READOUTS:
            raise ValueError(f"mirm_readout={readout}: unknown. Valid: {', '.join(READOUTS)}.")
        self.backbone, self.collator, self.readout, self.encode_batch_size = backbone, collator, readout, encode_batch_size
        self.name, self.own_tokenizer, self.quantization = str(name), own_tokenizer, quantization

    @classmethod
    def build(cls, content, backbone="compact", tuning="full", backbone_options=None, readout="cur_item", max_tokens=96,
              image_size=IMAGE_SIZE, encode_batch_size=16, seed=0, tokenizer=None, quantization=None, **tuning_options):
        """Make it from plain values.

        Args:
            content (ItemContent): the items.
            backbone (str): the file name or class name of a part in `model/backbone/` that is built from the data's own text
                (`compact`), else a Hugging Face name or folder.
            tuning (str): `full`, `lora` or `frozen`.
            backbone_options (dict, optional): the part's own properties (of `compact`, `compact_…`).
            readout, encode_batch_size: see the class. max_tokens (int): longest text, in tokens.
            image_size (tuple): (width, height). seed (int): of random weights.
            tokenizer (str, optional): for a part built from the data's own text, the tokenizer that :meth:`save` kept.
            quantization (str, optional): `4bit`, for published weights.
            **tuning_options: `lora_rank`, `lora_alpha`, `gradient_checkpointing`.

        Raises:
            ValueError: the backbone cannot be found or loaded, or reads no pictures where items have some.
        """
        image_size = tuple(image_size)
        built, options = built_here(backbone), {"tuning": tuning, **tuning_options}
        if built:
            check_quantization(quantization, tuning, "cuda", True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # random are: all of a part's weights, a new token's row, an adapter
            if built:
                options.update({"tokenizer": tokenizer} if tokenizer else {})
                part = find_class(built, "model.backbone", key="mirm_backbone")
                model = part.build(content.texts, image_size, **(backbone_options or {}), **options)
                backbone = part.__module__.rpartition(".")[2]  # compact, where Compact was typed, too
            else:
                model = Pretrained.build(backbone, image_size, quantization=quantization, **options)
        if content.has_images and not model.reads_pictures:
            raise bad_value("mirm_backbone", backbone, "a language model, which reads no pictures, and items have some. Set item_modalities=[text].")
        prompt = ItemPrompt(model.tokenizer, model.image_ids, max_tokens)
        collator = ItemCollator(content, prompt, model.image_inputs, image_size, model.pad_id, model.image_token_id)
        return cls(model, collator, readout, encode_batch_size, name=backbone, own_tokenizer=bool(built), quantization=quantization)

    @property
    def embedding_dim(self):
        """D."""
        return self.backbone.dim

    def forward(self, batch):
        """Embeddings of one batch of `ItemCollator`, [N, D]."""
        if self.readout == "mean":
            states = self.backbone.encode(batch)  # [N, T, D]
            mask = batch["attention_mask"].to(states)[..., None]
            return (states * mask).sum(1) / mask.sum(1)
        here = (batch["input_ids"] == self.collator.prompt.cur_item_id) & batch["attention_mask"].bool()
        assert (here.sum(1) == 1).all(), "each item must hold [Cur_Item] exactly once"
        here = here.to(self.backbone.device)
        return self.backbone.encode(batch, read=here)[here]

    def fingerprint(self):
        """sha256 of all that an embedding depends on but the item: weights, their use, tokenizer, what becomes of pixels, prompt, readout, sizes."""
        prompt = self.collator.prompt
        settings = [PROMPT_VERSION, self.readout, prompt.max_tokens, self.collator.images.size, prompt.image_ids, self.backbone.settings()]
        digest = hashlib.sha256(repr(settings).encode())
        digest.update(json.dumps(self._tokenizer(), sort_keys=True).encode())
        for name, value in sorted(self.backbone.sample_inputs().items()):
            digest.update(name.encode() + np.asarray(value).tobytes())
        hash_weights(digest, self.backbone.model)
        return digest.hexdigest()

    def _tokenizer(self):
        """The tokenizer as plain values, without what the last call asked for."""
        tokenizer = json.loads(self.backbone.tokenizer.backend_tokenizer.to_str())
        return {name: value for name, value in tokenizer.items() if name not in ("padding", "truncation")}

    def save(self, path, meta=None):
        """Write what training changed (the adapter alone for LoRA) to one safetensors file, with what :meth:`load_finished` needs.

        Of several processes all call it, and the main one writes.
        """
        weights = whole_on_main(self.backbone.weights())
        if process_index():
            return
        tokenizer = json.dumps({**self._tokenizer(), "padding": None, "truncation": None}) if self.own_tokenizer else None
        own = {"backbone": self.name, "tuning": self.backbone.tuning, "quantization": self.quantization, "tokenizer": tokenizer, "uses": self._uses()}
        save_tensors(path, weights, {**own, **(meta or {})})

    def _uses(self):
        """Properties that make weights of equal shapes other functions."""
        uses = {"mirm_lora_alpha": float(self.backbone.lora_alpha)} if self.backbone.tuning == "lora" else {}
        if self.name == "compact":
            config = self.backbone.plain.config
            text, vision = config.get_text_config(), config.vision_config
            heads = {"num_heads": text.num_attention_heads, "num_kv_heads": text.num_key_value_heads, "vision_heads": vision.num_heads}
            uses.update({f"compact_{name}": value for name, value in heads.items()})
        return uses

    def load(self, path):
        """Read what :meth:`save` wrote; returns its metadata.

        Raises:
            ValueError: unreadable, or of another model.
        """
        tensors, meta = load_tensors(path)
        self.load_weights(tensors, path)
        return meta

    def load_finished(self, path):
        """Read weights that the user named (`mirm_weights`); returns their metadata.

        Raises:
            ValueError: they belong to another backbone, tuning, size or number of heads.
        """
        tensors, meta = load_tensors(path)
        here = {"mirm_backbone": self.name, "mirm_tuning": self.backbone.tuning, "mirm_quantization": self.quantization or "~"}
        there = {"mirm_backbone": meta.get("backbone"), "mirm_tuning": meta.get("tuning"), "mirm_quantization": meta.get("quantization") or "~"}
        if "uses" in meta:  # files from before it was written count on
            here, there = here | self._uses(), there | meta["uses"]
        for key, value in here.items():
            if str(there.get(key)).rstrip("/").rpartition("/")[2] != str(value).rstrip("/").rpartition("/")[2]:
                raise bad_value("mirm_weights", path, f"made with {key}={there.get(key)}, but this run has {key}={value}. Set it as it was.")
        try:
            self.load_weights(tensors, path)
        except ValueError as error:
            raise bad_value("mirm_weights", path, "another model's weights. Set the sizes (compact_…, mirm_lora_rank) of the run that made them.") from error
        return meta

    def load_weights(self, tensors, source="weights"):
        """Copy tensors named as in `backbone.weights()` into the model."""
        own = self.backbone.weights()
        shapes = [{name: value.shape for name, value in weights.items()} for weights in (own, tensors)]
        wrong = [name for name in own.keys() | tensors.keys() if shapes[0].get(name) != shapes[1].get(name)]
        if wrong:
            raise ValueError(f"{source}: holds another model's weights (for example {sorted(wrong)[0]}). Delete it, and it is made anew.")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(shard_as(tensors[name], value))
