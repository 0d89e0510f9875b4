"""HLLM's stages before the recommender: item texts, the item LLM, the table of its embeddings."""

from logging import getLogger
from pathlib import Path

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar import stages
from recbole_molar.model.backbone.quantization import check_quantization
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.lookup import built_here
from recbole_molar.property_error import bad_value
from recbole_molar.property_values import as_list
from recbole_molar.stages import join, shard_mirm, weights_file


def check_parts(config, n_items):
    """Find out about bad properties before any work.

    Raises:
        PropertyError: no text is to be read, no such weights file, or 4 bits that cannot be had.
    """
    if "text" not in as_list(config["item_modalities"] or "text"):  # a data set's YAML may say it, for models that have a choice
        raise bad_value("item_modalities", config["item_modalities"], f"{config['model']} reads text alone. Leave it out.")
    check_quantization(config["mirm_quantization"], config["mirm_tuning"], config["device"].type, bool(built_here(config["mirm_backbone"])))
    weights_file(config["mirm_weights"])


def read_item_content(config, dataset):
    """Texts of the data set's items, by internal id; raises ValueError as :func:`recbole_molar.stages.read_item_content`."""
    return stages.read_item_content(config, dataset, ["text"])


def build_mirm(config, content):
    """The item LLM: MIRM, of which only what reads text can be trained."""
    mirm = stages.build_mirm(config, content)
    mirm.backbone.freeze_all_but_decoder()
    return mirm


def build(config, prepared, content, accelerator, folder, train_id_model=None, train_once=None):
    """Run the stages and put the recommender together.

    Args:
        config (Config); prepared (Prepared): its data; content (ItemContent); accelerator (Accelerator); folder (RunFolder).

    Returns:
        HLLM: ready to train.
    """
    mirm = build_mirm(config, content)
    shard_mirm(config, mirm, accelerator)
    if config["item_encoding"] == "cached" and not config["mirm_weights"]:
        if mirm.own_tokenizer:
            getLogger().warning("the item LLM is random and stays so: mirm_backbone=%s, item_encoding=cached. Set mirm_weights.", config["mirm_backbone"])
        elif config["mirm_readout"] == "cur_item":
            getLogger().warning("items are read at a token that was never trained: item_encoding=cached. Set mirm_readout: mean (the paper) or mirm_weights.")
    with folder.stage("item_embedding", "one pass of the item LLM over the items that are not in the cache"):
        table = ItemEmbedding(Path(config["output_dir"]) / "cache").fill(mirm, accelerator)
    return assemble(config, prepared, mirm, table)


def assemble(config, prepared, mirm, table):
    """The recommender out of its parts, ready to train; table (Tensor): [n_items, D]."""
    return join(config, prepared, mirm, table, "user_llm_layers")
