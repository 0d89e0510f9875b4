"""The stages before a model of item features (SASRecContent): item content, the encoders of text and picture, the tables of their features."""

import hashlib
import json
from functools import partial
from logging import getLogger
from pathlib import Path

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.model.content_encoder.compact_image import CompactImage
from recbole_molar.model.content_encoder.compact_text import CompactText
from recbole_molar.model.content_encoder.image_encoder import ImageEncoder
from recbole_molar.model.content_encoder.text_encoder import TextEncoder
from recbole_molar.model.fused_layers import fuse_layers
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.property_error import bad_value
from recbole_molar.property_values import as_list
from recbole_molar.stages import read_item_content  # noqa: F401  (quick_start reads the content by it)
from recbole_molar.trainer.masked_trainer import MaskedTrainer
from recbole.utils import init_seed

ENCODERS = {"text": TextEncoder, "image": ImageEncoder}
COMPACT_VERSION = 1  # raise it with any change of the compact encoders or of their training: finished ones are kept under it


def check_parts(config, n_items):
    """Nothing that the schema of properties has not checked."""


def build(config, prepared, content, accelerator, folder, train_id_model=None, train_once=None):
    """Run the stages, each or its cached result, and put the recommender together.

    Args:
        config (Config); prepared (Prepared): its data; content (ItemContent); accelerator (Accelerator); folder (RunFolder).

    Returns:
        SASRecContent: ready to train.

    Raises:
        ValueError: an encoder cannot be loaded, or no item has anything to encode.
    """
    chosen = modalities(config, content)
    for modality in set(as_list(config["item_modalities"])) - set(chosen):
        getLogger().warning("no item has %s that can be read; the items are read without %ss", "text" if modality == "text" else "a picture", modality)
    named = ", ".join(f"{ENCODERS[modality].key}={config[ENCODERS[modality].key]}" for modality in chosen)
    getLogger().info("items are read by %s; item_encoding=%s", named, config["item_encoding"])
    encoders = [build_encoder(config, content.only(modality), modality, accelerator, folder) for modality in chosen]
    maker = ItemEmbedding(Path(config["output_dir"]) / "cache")
    with folder.stage("item_features", "one pass of each encoder over the items that are not in the cache"):
        tables = [maker.fill(encoder, accelerator) for encoder in encoders]
    return assemble(config, prepared, tables, encoders)


def assemble(config, prepared, tables, encoders):
    """The recommender out of its parts, ready to train."""
    init_seed(config["seed"], config["reproducibility"])
    trained = encoders if config["item_encoding"] == "end_to_end" else None
    return fuse_layers(prepared.model_class(config, prepared.loaders[0]._dataset, tables, trained).to(config["device"]))


def modalities(config, content):
    """Those that the run reads: what was asked for, as far as an item has it.

    Raises:
        ValueError: nothing is left.
    """
    side = config["encoder_image_side"]
    has = {
        "text": any(item.fields for item in content.items),
        "image": content.has_readable_image((side, side)),
    }
    chosen = [modality for modality in as_list(config["item_modalities"]) if has[modality]]
    if not chosen:
        raise bad_value("item_modalities", config["item_modalities"], f"no item of {config['dataset']} has any that can be read.")
    return list(dict.fromkeys(chosen))


def build_encoder(config, content, modality, accelerator, folder):
    """The encoder of one modality; `compact` is trained first, or found in the cache."""
    part = ENCODERS[modality]
    name = str(config[part.key])
    if name == "compact":
        trainer = compact_trainer(config, content, modality, accelerator)
        with folder.stage(f"{modality}_encoder", f"compact, {config['encoder_epochs']} epochs on the items' {modality}s alone"):
            report = folder.notes[f"{modality}_encoder"] = trainer.fit()
        name = report["folder"]
    encoder = part.build(name, content, **encoder_options(config, modality))
    n_parameters = sum(value.numel() for value in encoder.parameters())
    getLogger().info("%s=%s: %d dimensions, %s parameters", part.key, config[part.key], encoder.embedding_dim, f"{n_parameters:,}")
    return encoder


def encoder_options(config, modality):
    """How an encoder reads and pools."""
    options = {"pooling": config["encoder_pooling"], "batch_size": config["encode_batch_size"]}
    return {**options, "max_tokens": config["text_max_tokens"]} if modality == "text" else options


def compact_trainer(config, content, modality, accelerator):
    """The trainer of a compact encoder, as the config describes it; it has seen nothing but `content` (ItemContent), of one modality."""
    sizes = {"hidden_size": config["encoder_hidden_size"], "layers": config["encoder_layers"], "heads": config["encoder_heads"]}
    if modality == "text":
        make, sizes = CompactText, {**sizes, "vocab_size": config["encoder_vocab_size"], "max_tokens": config["text_max_tokens"]}
    else:
        make, sizes = CompactImage, {**sizes, "side": config["encoder_image_side"], "patch": config["encoder_patch"]}
    settings = {"epochs": config["encoder_epochs"], "seed": config["seed"]}
    known = [COMPACT_VERSION, modality, sizes, settings, accelerator.mixed_precision, content.fingerprints()]
    fingerprint = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(config["output_dir"]) / "cache" / f"{modality}-{fingerprint}"
    return MaskedTrainer(partial(make, content, **sizes), folder, accelerator, **settings)
