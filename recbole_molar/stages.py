"""Molar's stages before the recommender: item content, MIRM and its fine-tuning (stage 1), the table, the ID model."""

import re
from logging import getLogger
from pathlib import Path

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.checkpoint import load_tensors, read_json
from recbole_molar.data.item_content import ItemContent, encoding_of, read_header
from recbole_molar.device import computes_bf16
from recbole_molar.lookup import built_here, find_class
from recbole_molar.model.fused_layers import fuse_layers
from recbole_molar.model.id_model.id_model import IDModel, IDModels
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.model.backbone.quantization import check_quantization
from recbole_molar.model.mirm import MIRM
from recbole_molar.model.sequential_recommender.ease import check_size
from recbole_molar.model.user_encoder.base import UserEncoder
from recbole_molar.processes import n_processes
from recbole_molar.property_error import bad_value
from recbole_molar.property_values import as_list
from recbole_molar.sharding import shard, shards_wanted
from recbole_molar.trainer.mirm_finetune_trainer import MIRMFinetuneTrainer, make_tasks
from recbole_molar.utils import get_model
from recbole.utils import init_seed

LINK = re.compile(r"(?:^|_)(?:urls?|links?)(?:_\d+)?$|^image_(?:file|path)$", re.I)
DESCRIPTION_COLUMNS = ("plot", "description", "overview", "summary", "abstract")
# Properties without `mirm_`; a model that reads no pictures leaves some out
MIRM_OPTIONS = ("backbone", "tuning", "readout", "max_tokens", "image_size", "encode_batch_size", "lora_rank", "lora_alpha", "quantization")
USER_DEPTHS = ("dueg_layers", "user_llm_layers")  # Molar's and HLLM's


def read_item_content(config, dataset, modalities=None):
    """Texts and pictures of the data set's items, by internal id.

    Args:
        config (Config), dataset (HistoryDataset): the run's. modalities (list, optional): what is read; by default `item_modalities`.

    Raises:
        ValueError: the `.item` file, its columns, ids or the pictures do not fit; says what to do.
    """
    folder = Path(config["data_path"])
    item_file = folder / f"{config['dataset']}.item"
    modalities, image_dir = as_list(modalities or config["item_modalities"]), folder / str(config["item_image_dir"])
    if "image" in modalities and "text" in modalities and not image_dir.is_dir():
        getLogger().warning("%s: no such folder; the items are read without pictures (item_modalities=[text])", image_dir)
        modalities.remove("image")
    text_fields, description = as_list(config["item_text_fields"]), config["item_description_field"]
    if "text" in modalities and (not text_fields or description is None):
        columns = text_columns(item_file, config)
        text_fields = text_fields or columns
        description = description or next((name for name in DESCRIPTION_COLUMNS if name in columns), None)
    return ItemContent.read(
        item_file, [str(token) for token in dataset.field2id_token[dataset.iid_field]], text_fields or [], description_field=description,
        image_dir=image_dir, modalities=modalities, field_separator=config["field_separator"], id_field=dataset.iid_field,
        escaped=config["item_text_escaped"], encoding=config["encoding"],
    )


def text_columns(item_file, config):
    """Names of the text columns of an `.item` file: neither numbers nor, by their names, links and files."""
    if not item_file.is_file():
        raise ValueError(f"{item_file}: missing. The items' text is read there; put it there, or set item_modalities=[image].")
    header = read_header(item_file, config["field_separator"], encoding_of(item_file, config["encoding"]))
    columns = [name.split(":")[0] for name in header if not name.endswith((":float", ":float_seq"))]
    return [name for name in columns if name != config["ITEM_ID_FIELD"] and not LINK.search(name)]


def build(config, prepared, content, accelerator, folder, train_id_model, train_once=None):
    """Run the stages before the recommender, each or its cached result, and put the recommender together.

    Args:
        config (Config); prepared (Prepared): its data; content (ItemContent); accelerator (Accelerator); folder (RunFolder);
        train_id_model (callable): trains or loads the ID model; train_once (callable): another part.

    Returns:
        Molar: ready to train.
    """
    mirm = build_mirm(config, content)  # first: what is wrong with the backbone shows before anything is trained
    id_model, id_dim = build_id_model(config, prepared, accelerator, folder, train_id_model)
    init_seed(config["seed"], config["reproducibility"])
    shard_mirm(config, mirm, accelerator)
    finetune_mirm(config, mirm, prepared.dataset, accelerator, folder)
    with folder.stage("item_embedding", "one pass of MIRM over the items that are not in the cache"):
        table = ItemEmbedding(Path(config["output_dir"]) / "cache").fill(mirm, accelerator)
    return assemble(config, prepared, mirm, table, id_model, id_dim)


def assemble(config, prepared, mirm, table, id_model, id_dim):
    """The recommender out of its parts, ready to train; table (Tensor): [n_items, D_mirm]."""
    return join(config, prepared, mirm, table, "dueg_layers", id_model=id_model, id_dim=id_dim)


def join(config, prepared, mirm, table, depth, **others):
    """A model over MIRM's table and a decoder of as many layers as the property `depth` says, ready to train; MIRM goes with it where it is trained."""
    init_seed(config["seed"], config["reproducibility"])
    decoder = mirm.backbone.user_decoder(config[depth])
    if config["gradient_checkpointing"]:
        decoder.gradient_checkpointing()
    trained_mirm = mirm if config["item_encoding"] == "end_to_end" else None
    return fuse_layers(prepared.model_class(config, prepared.loaders[0]._dataset, table, decoder, mirm=trained_mirm, **others).to(config["device"]))


def build_id_model(config, prepared, accelerator, folder, train_id_model):
    """The ID model, or several, behind an adapter, and the size of the user embedding; (None, None) for a run without one."""
    if not config.reads_id_model:
        getLogger().info("no ID model: %s", "align_weight is 0" if "align_weight" in config else "collaborative is False")
        return None, None
    models = train_id_model(config, accelerator, folder, prepared.dataset.split_hash())
    parts = [IDModel(model, trains=config["id_training"] == "joint", max_length=config["MAX_ITEM_LIST_LENGTH"]) for model in models]
    id_model = parts[0] if len(parts) == 1 else IDModels(parts)
    probe = prepared.loaders[0]._dataset[[0, 0]].to(config["device"])
    if config["id_training"] == "joint":
        check_joint(config["id_model"], id_model, probe)
    return id_model, id_model(probe).size(1)


def check_joint(name, id_model, rows):
    """Raise PropertyError where the ID model's loss cannot be computed from Molar's own rows, which hold no sampled negative and no masked item."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            id_model.calculate_loss(rows)
    except KeyError as missing:
        reason = f"id_model={name} is trained on rows with {missing}, which Molar's have not. Set id_training=frozen, or take SASRec or GRU4Rec."
        raise bad_value("id_training", "joint", reason) from missing


def build_mirm(config, content):
    """MIRM before stage 1, or with the weights of an earlier one (`mirm_weights`)."""
    if not any(item.fields for item in content.items) and not content.has_readable_image(config["mirm_image_size"]):
        raise ValueError(f"{config['dataset']}: no item has text or a picture that can be read, as far as item_modalities has them read.")
    weights = weights_file(config["mirm_weights"])
    tokenizer = load_tensors(weights)[1].get("tokenizer") if weights else None
    prefix = f"{built_here(config['mirm_backbone'])}_".lower()
    backbone_options = {key: value for key, value in config.final_config_dict.items() if key.startswith(prefix)}
    options = {key: config[f"mirm_{key}"] for key in MIRM_OPTIONS if f"mirm_{key}" in config}
    mirm = MIRM.build(
        content, backbone_options=backbone_options, seed=config["seed"], gradient_checkpointing=config["gradient_checkpointing"], tokenizer=tokenizer,
        **options,
    )
    _check_user_encoder(config, mirm.backbone)
    if not mirm.own_tokenizer and not shards_wanted() and computes_bf16(config["precision"], config["device"].type == "cpu"):
        mirm.backbone.hold_frozen_in_bf16()
    if weights:
        mirm.load_finished(weights)
        if mirm.own_tokenizer and not tokenizer:
            raise bad_value("mirm_weights", weights, "holds no tokenizer, an older version wrote it. Run stage 1 again.")
    return mirm


def shard_mirm(config, mirm, accelerator):
    """Let the processes share MIRM's weights, where Accelerate's configuration says `distributed_type: FSDP` or DEEPSPEED."""
    if not shards_wanted():
        return
    if config["mirm_quantization"]:
        raise bad_value("mirm_quantization", config["mirm_quantization"], "weights of 4 bits cannot be sharded. Take distributed_type: MULTI_GPU, or ~.")
    shard(mirm.backbone, mirm.backbone.plain.get_input_embeddings(), accelerator)
    own = sum(value.to_local().numel() for value in mirm.parameters())
    getLogger().info("MIRM in %d shards: this process keeps %s of %s parameters", n_processes(), f"{own:,}", f"{mirm.backbone.plain.num_parameters():,}")


def weights_file(given):
    """The file that `mirm_weights` means: itself, or the one that a run folder's `result.json` names; None for `~`.

    Raises:
        PropertyError: no such file, or a run without stage 1.
    """
    if not given:
        return None
    path = Path(str(given))
    if (path / "result.json").is_file():
        stage_1 = read_json(path / "result.json").get("stage_1")
        named = stage_1.get("weights") if isinstance(stage_1, dict) else None
        if not isinstance(named, str):
            raise bad_value("mirm_weights", given, "that run kept no stage-1 weights. Give one that ran stage 1, or mirm_weights=~.")
        path = Path(named) if Path(named).is_file() else path.resolve().parents[1] / "cache" / Path(named).name
    if not path.is_file():
        raise bad_value("mirm_weights", given, "no such file. Stage 1 logs the path of its weights, <output_dir>/cache/mirm-<fingerprint>.safetensors.")
    return path


def _check_user_encoder(config, backbone):
    """Raise PropertyError where the backbone's decoder, or its width, does not serve as the user encoder that is asked for."""
    most = backbone.user_decoder_depth
    for key in USER_DEPTHS:
        layers = config[key]
        if layers is not None and not (isinstance(layers, int) and 1 <= layers <= most):
            raise bad_value(key, layers, f"the decoder of mirm_backbone={config['mirm_backbone']} has {most} layers. Valid: 1 to {most}, or ~ for all.")
    window = getattr(backbone.decoder.config, "sliding_window", None)
    if window and config["user_encoder"] == "DUEG" and config["dueg_user_token"] == "last" and config["MAX_ITEM_LIST_LENGTH"] >= window:
        reason = f"reads all prefixes in one pass, where the window of {window} tokens of mirm_backbone={config['mirm_backbone']} cannot be kept"
        raise bad_value("dueg_user_token", "last", f"{reason}. Set dueg_user_token=first, or MAX_ITEM_LIST_LENGTH below {window}.")
    heads = config["user_encoder_heads"] if config["user_encoder"] == "SASRec" else None
    if heads and backbone.dim % heads:
        raise bad_value("user_encoder_heads", heads, f"must divide the embedding size of mirm_backbone={config['mirm_backbone']}, {backbone.dim}.")


def finetune_mirm(config, mirm, dataset, accelerator, folder):
    """Stage 1, or its result from the cache where an equal one has been run; nothing where `mirm_weights` gives the result."""
    if config["mirm_weights"]:
        weights = weights_file(config["mirm_weights"])
        getLogger().info("Stage 1 is left out: mirm_weights=%s", weights)
        folder.notes["stage_1"] = {"weights": str(weights), "reused": True}
        return
    trainer = finetune_trainer(config, mirm, dataset, accelerator, folder.path)
    with folder.stage("mirm_finetune", f"{mirm.backbone.plain.num_parameters():,} parameters, {mirm.embedding_dim} dimensions, {config['mirm_tuning']}"):
        folder.notes["stage_1"] = trainer.fit()


def finetune_trainer(config, mirm, dataset, accelerator, folder):
    """Stage 1 as the config describes it; `folder` (Path) holds its checkpoint."""
    tasks = make_tasks(as_list(config["mirm_finetune_tasks"]), history_length=config["mirm_finetune_history_length"])
    view_contrast_weight = config["mirm_view_contrast_weight"]
    if view_contrast_weight is None:
        view_contrast_weight = 0.0 if any(task.name == "user_behavior" for task in tasks) else 1.0
    return MIRMFinetuneTrainer(
        mirm, tasks, accelerator, dataset.train_histories(), folder, cache_dir=Path(config["output_dir"]) / "cache",
        samples=config["mirm_finetune_samples"], epochs=config["mirm_finetune_epochs"], batch_size=config["mirm_finetune_batch_size"],
        learning_rate=config["mirm_finetune_learning_rate"], objective=config["mirm_finetune_objective"], bow_weight=config["mirm_bow_weight"],
        contrast_weight=config["mirm_contrast_weight"], temperature=config["mirm_contrast_temperature"],
        max_answer_tokens=config["mirm_max_answer_tokens"], seed=config["seed"], view_contrast_weight=view_contrast_weight,
    )


def refuse_content_model(config):
    """Raise PropertyError where an ID model reads item content: it is made from IDs alone."""
    named = [("id_model", config["id_model"]), *(("more_id_models", name) for name in config["more_id_models"] or {})]
    for key, name in named:
        if hasattr(get_model(name, key=key), "stages"):
            raise bad_value(key, name, "reads item content itself. Take a model of IDs, such as SASRec.")


def check_parts(config, n_items):
    """Find out about misspelt parts before any work.

    Raises:
        PropertyError: a fine-tuning task, user encoder or weights file that does not exist; 4 bits that cannot be had; EASE over too many items.
    """
    if config["ease_fusion_weight"]:
        check_size("ease_fusion_weight", config["ease_fusion_weight"], n_items)
    refuse_content_model(config)
    check_quantization(config["mirm_quantization"], config["mirm_tuning"], config["device"].type, bool(built_here(config["mirm_backbone"])))
    weights_file(config["mirm_weights"])
    make_tasks(as_list(config["mirm_finetune_tasks"]), history_length=config["mirm_finetune_history_length"])
    encoder = find_class(config["user_encoder"], "model.user_encoder", key="user_encoder")
    if not (isinstance(encoder, type) and issubclass(encoder, UserEncoder)):
        raise bad_value("user_encoder", config["user_encoder"], "is no subclass of recbole_molar.model.user_encoder.base.UserEncoder.")
