"""CoLLM's stages before its last step: item texts, the LLM, the ID model, and step 1, the LLM tuned on prompts of text alone."""

import hashlib
from pathlib import Path

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar import text_stages
from recbole_molar.config import Config
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.property_error import PropertyError
from recbole_molar.run_folder import part_cache
from recbole_molar.stages import build_id_model, refuse_content_model, shard_mirm
from recbole_molar.text_stages import build_mirm, read_item_content  # noqa: F401  (quick_start and the doctor read and build by them)
from recbole.utils import init_seed

OF_STEP_2 = ("collaborative", "tuning_epochs", "learning_rate", "mapping_size")  # and `id_<key>`: what step 1 does not depend on


def check_parts(config, n_items):
    """Find out about bad properties before any work.

    Raises:
        PropertyError: as :func:`recbole_molar.text_stages.check_parts`; a frozen LLM, or an ID model that reads content.
    """
    text_stages.check_parts(config, n_items)
    refuse_content_model(config)
    if config["mirm_tuning"] == "frozen":
        raise PropertyError("mirm_tuning", f"mirm_tuning=frozen: {config['model']} tunes the LLM in its first step. Valid: full, lora.")


def build(config, prepared, content, accelerator, folder, train_id_model, train_once):
    """Run the stages, each or its cached result, and put step 2 together, or with `collaborative: False` step 1.

    Args:
        config (Config); prepared (Prepared): its data; content (ItemContent); accelerator (Accelerator); folder (RunFolder);
        train_id_model, train_once (callable): train or load the ID model, and step 1.

    Returns:
        CoLLM: ready to train.
    """
    mirm = build_mirm(config, content)  # first: what is wrong with the backbone shows before anything is trained
    id_model, _ = build_id_model(config, prepared, accelerator, folder, train_id_model)
    shard_mirm(config, mirm, accelerator)
    with folder.stage("item_embedding", "one pass of the LLM over the items that are not in the cache"):
        table = ItemEmbedding(Path(config["output_dir"]) / "cache").fill(mirm, accelerator)
    if id_model is None:
        return assemble(config, prepared, mirm, table)
    tuning = tuning_config(config)
    cache = tuning_cache(tuning, prepared.dataset.split_hash(), mirm)
    text_only = assemble(tuning, prepared, mirm, table)
    train_once(tuning, prepared, text_only, accelerator, folder, cache, "tuning")
    model = assemble(config, prepared, mirm, text_only.mirm_table, id_model)
    model.log_temperature.data.copy_(text_only.log_temperature.data)
    return model


def assemble(config, prepared, mirm, table, id_model=None, id_dim=None):
    """Step 2, or without an ID model step 1, ready to train; table (Tensor): [n_items, D]."""
    init_seed(config["seed"], config["reproducibility"])
    return prepared.model_class(config, prepared.loaders[0]._dataset, table, mirm, id_model=id_model).to(config["device"])


def tuning_config(config):
    """Config of step 1: the run's, without collaborative embeddings."""
    given = {**config.as_yaml(), "collaborative": False, "more_id_models": None, "epochs": config["tuning_epochs"]}
    tuning = Config(config_dict=given, origins=config.origins)
    tuning["device"] = config["device"]  # with several processes, this one's
    return tuning


def tuning_cache(tuning, split_hash, mirm):
    """Folder of step 1; runs that differ in step 2 alone share it. mirm (MIRM): before it."""
    without = {*OF_STEP_2, *(key for key in tuning.as_yaml() if key.startswith("id_"))}
    read = hashlib.sha256(mirm.fingerprint().encode())
    mirm.content.hash_into(read)
    return part_cache(tuning["output_dir"], "collm", tuning, [split_hash, read.hexdigest()], without)
