"""What encoders of one modality share: a model of transformers, loaded or at hand, whose states are pooled to one embedding for each item."""

import contextlib
import hashlib
import json
from logging import getLogger

import torch
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding
from transformers.utils import logging as transformers_logging

from recbole_molar.data.content_collator import ABSENT
from recbole_molar.model.backbone.pretrained import SAFE, why_not_loaded
from recbole_molar.model.item_encoder import ItemEncoder, hash_weights
from recbole_molar.property_error import bad_value

POOLINGS = ("mean", "first")
T5S = ("t5", "mt5", "umt5")  # of which an encoder may have been published alone


class ContentEncoder(ItemEncoder):
    """A pooled encoder.

    Subclasses name their `modality`, the property `key` that chooses them and the `part` of a two-tower model (CLIP) that is theirs, and
    give `build(name, content, ...)`.

    Args:
        model (PreTrainedModel): gives `last_hidden_state`. collator (ContentCollator): makes its batches.
        pooling (str): `mean`, of the states of all tokens; `first`, the state of the first ([CLS]).
        batch_size (int): items in one pass.
    """

    modality = key = part = None

    def __init__(self, model, collator, pooling="mean", batch_size=32):
        super().__init__()
        if pooling not in POOLINGS:
            raise bad_value("encoder_pooling", pooling, f"unknown. Valid: {', '.join(POOLINGS)}.")
        self.model, self.collator, self.pooling, self.encode_batch_size = model, collator, pooling, batch_size
        probe = next(batch for _, batch in collator.batches(range(1, len(collator.content)), 1) if ABSENT not in batch)
        with torch.no_grad():
            self.embedding_dim = self._states(probe).size(-1)  # D: what it is called in a config differs between architectures

    def forward(self, batch):
        """Embeddings of one batch, [N, D]; zeros for items without this modality."""
        device = next(self.parameters()).device
        if ABSENT in batch:
            return torch.zeros(len(batch[ABSENT]), self.embedding_dim, device=device)
        batch = {name: value.to(device) for name, value in batch.items()}
        states = self._states(batch)  # [N, T, D]
        if self.pooling == "first":
            return states[:, 0]
        if "attention_mask" not in batch:
            return states.mean(1)
        mask = batch["attention_mask"][..., None].to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)

    def _states(self, batch):
        states = self.model(**batch).last_hidden_state
        return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states  # of a convolutional network: [N, D, height, width]

    def log_report(self):
        """Log how many items lack this modality."""
        items = range(1, len(self.content))
        getLogger().info("%s features of %d items, %d of them without", self.modality, len(items), sum(not self.collator.has(item) for item in items))

    def fingerprint(self):
        """sha256 of all that an embedding depends on but the item: weights, how it is read, and how an item is written."""
        config = {name: value for name, value in self.model.config.to_dict().items() if name not in ("_name_or_path", "transformers_version")}
        settings = [type(self.model).__name__, config, self.pooling, self._reading()]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        hash_weights(digest, self.model)
        return digest.hexdigest()

    def _reading(self):
        """How the collator reads an item, as plain values."""
        raise NotImplementedError


@contextlib.contextmanager
def quiet():
    """Without transformers' bars and its long report of heads that are not used, while inside."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def load_model(name, encoder_class):
    """An encoder of transformers from a Hugging Face name or a folder.

    Safetensors alone, and none of the folder's own Python files: either could run code. Of a model with two towers the one is taken that
    reads this modality, of an encoder-decoder the encoder. A head that only pools is not used, and may lack its weights.

    Raises:
        ValueError: weights are missing. Whatever transformers raises for a broken folder.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the pooling head: the cache knows a model by its weights
        is_t5 = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type in T5S
        kind = AutoModelForTextEncoding if is_t5 else AutoModel
        model, info = kind.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **SAFE)
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ValueError(f"{len(missing)} of its weights are missing, for example {missing[0]}")
    model = getattr(model, encoder_class.part, model)
    model = model.get_encoder() if is_t5 or getattr(model.config, "is_encoder_decoder", False) else model
    for key, value in model.named_parameters():
        value.requires_grad_("pooler" not in key)
    return model


def refused(encoder_class, name, error):
    """The PropertyError for an encoder that cannot be loaded."""
    key, kind = encoder_class.key, encoder_class.modality
    return bad_value(
        key, name,
        f"{why_not_loaded(error)} Give a folder that holds the model, or the name of a model for {kind}s on Hugging Face (needs a network), or "
        f"{key}=compact, which needs no download. Weights must be .safetensors: convert a pickled .bin that you trust with transformers' "
        f"save_pretrained.",
    )  # fmt: skip
