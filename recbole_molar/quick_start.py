"""The story, top to bottom: data -> item content -> MIRM (stage 1) -> table -> ID model -> recommender (stage 2) -> evaluation."""

import contextlib
import gc
import hashlib
import importlib.util
import time
import warnings
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path

from accelerate.utils import broadcast_object_list

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.checkpoint import read_json, write_json
from recbole_molar.command_line import config_file_list, parse_command_line, read_yaml
from recbole_molar.config import CODE_KEYS, Config, id_model_files, refuse_foreign_code
from recbole_molar.data.dataset import MASKED
from recbole_molar.device import computes_in, make_accelerator
from recbole_molar.lock import await_lock, cache_lock
from recbole_molar.model.all_positions import allows_all_positions, is_plain_cross_entropy, reads_counted_alone, with_all_positions
from recbole_molar.model.id_model.id_model import check_teacher, check_user_embedding
from recbole_molar.processes import main_says, n_processes
from recbole_molar.property_error import PropertyError, bad_value
from recbole_molar.property_values import as_list
from recbole_molar.run_folder import CONFIG, RANKS, RESULT, RunFolder, part_cache, runs_like
from recbole_molar.trainer.sequential_trainer import BEST, LAST, check_same_data
from recbole_molar.utils import create_dataset, data_preparation, get_model, get_trainer, make_model, needs_prefixes
from recbole.utils import InputType, init_seed

# What an ID model inside a Molar run shares with it, besides the description of the data set.
SHARED_WITH_ID_MODEL = (
    "seed", "reproducibility", "gpu_id", "use_cpu", "precision", "encoding", "eval_args", "metrics", "topk", "valid_metric", "eval_batch_size",
    "metric_decimal_place", "mask_history", "train_windows", "train_all_positions", "show_progress", "worker", "data_path", "debug",
)

# What it may not have of its own.
OF_THE_RUNS_DATA = {
    "data_path", "rm_dup_inter", "val_interval", "filter_inter_by_user_or_item", "user_inter_num_interval", "item_inter_num_interval", "eval_args",
    "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD",
}  # fmt: skip

READ_ALL_FEATURES = ("DIN", "DIEN")  # models of RecBole that name no columns of .item and .user
DONE = "done.json"  # of an ID model in the cache: its best validation result


@dataclass
class Prepared:
    """Data of one model, ready to train on."""

    dataset: object
    loaders: tuple  # train, validation, test
    model_class: type
    note: str  # how it is trained, for the log


def run(arguments):
    """Train and evaluate one model.

    Args:
        arguments (list of str): command line, `--key=value`.

    Returns:
        dict: what stands in `result.json`, with `result_file`.

    Raises:
        ValueError: bad input; nothing has been written then, unless the failure came while training.
    """
    warnings.filterwarnings("ignore", module="recbole|pandas")
    config, resumed = configure(parse_command_line(arguments))
    if resumed and (resumed / RESULT).is_file():
        return {**read_json(resumed / RESULT, "test_result"), "result_file": str(resumed / RESULT)}
    with config.locating():
        return carry_out(config, resumed)


def carry_out(config, resumed=None, after_validation=None):
    """The run that a config describes.

    Args:
        config (Config); resumed (Path, optional): folder of a run to go on with.
        after_validation (callable, optional): makes the run a trial of `tune`, which prints nothing and ends before the test. Called with
            the run folder, the epoch (from 0) and its `valid_metric`; what it raises ends the training.

    Returns:
        dict: what stands in `result.json`, with `result_file`; of a trial, what is known without the test, with `run_folder`.
    """
    if config["log_wandb"] and importlib.util.find_spec("wandb") is None:  # RecBole imports it when a training begins, perhaps after hours
        raise bad_value("log_wandb", True, "the package wandb is not installed. Install it (pip install wandb), or leave this out.")
    init_seed(config["seed"], config["reproducibility"])
    accelerator = make_accelerator(config["precision"], use_cpu=config["device"].type == "cpu", gpu_id=config["gpu_id"])
    config["device"] = accelerator.device
    if not accelerator.is_main_process:
        getLogger().setLevel("ERROR")  # what the main process warns of is enough
    prepared = prepare(config)
    content = read_content(config, prepared.dataset)
    folder = None if resumed else new_folder(config, accelerator)
    with at_work(resumed or folder.path, accelerator):
        if resumed and main_says((resumed / RESULT).is_file(), accelerator.device):  # ended meanwhile by who was at work there
            result = read_json(resumed / RESULT) if accelerator.is_main_process else {}
            return {**result, "result_file": str(resumed / RESULT), "run_folder": resumed}
        folder = folder or RunFolder(resumed, writes=accelerator.is_main_process)
        return _carry_out(config, prepared, content, accelerator, folder, after_validation)


def _carry_out(config, prepared, content, accelerator, folder, after_validation):
    validated = after_validation and (lambda *scored: after_validation(folder.path, *scored))
    with folder.discarded_on_bad_input(), folder.logging(config["state"], quiet=not accelerator.is_main_process, to_terminal=not validated):
        announce(config, prepared, content, folder, accelerator)
        folder.notes["content_hash"] = content_hash(config, prepared.dataset, content)
        if (folder.path / LAST).is_file():  # before any stage is repeated
            check_same_data(folder.path / LAST, prepared.dataset.split_hash(), folder.notes["content_hash"])
        model = build_model(config, prepared, content, accelerator, folder)
        gc.collect()  # MIRM, where it is not trained on, holds itself
        trainer = train(config, prepared, model, accelerator, folder, folder.path, config["model"], validated)
        if validated:
            return {"run_folder": folder.path, "split_hash": prepared.dataset.split_hash(), **outcome(trainer), **folder.notes}
        result = test(config, prepared, trainer, folder)
        getLogger().info("test  %s", "  ".join(f"{name} {value:.4f}" for name, value in result["test_result"].items()))
        getLogger().info("seconds  %s", "  ".join(f"{name} {value:.0f}" for name, value in folder.seconds.items()))
        accelerator.wait_for_everyone()  # none leaves before the result is written
    return {**result, "result_file": str(folder.path / RESULT)}


@contextlib.contextmanager
def at_work(path, accelerator):
    """While inside, this run alone is at work in a run folder; another that would go on with it waits here until this one has ended."""
    lock = None
    if accelerator.is_main_process:
        lock = await_lock(path / CONFIG, f"{path}: another process is at work there; waiting until it ends.")
    accelerator.wait_for_everyone()
    with lock or contextlib.nullcontext():
        yield


def configure(given):
    """Config of a new run, or of the run to go on with.

    Returns:
        tuple: Config, folder of the resumed run or None.
    """
    if "resume" not in given:
        return Config(config_file_list=config_file_list(given.get("config_files")), config_dict=given), None
    extra = sorted(set(given) - {"resume", "debug", "data_path", *CODE_KEYS})
    folder = Path(str(given["resume"]))
    if extra:
        raise ValueError(f"--resume: goes on with the run's own {CONFIG}; leave out --{', --'.join(extra)}.")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"--resume={folder}: holds no {CONFIG}; give the folder of a run, <output_dir>/<dataset>/<model>-<time>-<hash>.")
    refuse_foreign_code(folder / CONFIG, given)
    written, place = read_yaml(folder / CONFIG), folder.resolve().parent
    moved = {"data_path": given["data_path"]} if "data_path" in given else {}
    if place.name == str(written.get("dataset")):  # as a run lays it out: its cache is there too, wherever it is called from
        moved["output_dir"] = str(place.parent)
    config = Config(config_file_list=[folder / CONFIG], config_dict=moved)
    other = next((key for key in CODE_KEYS if key in given and given[key] != written.get(key)), None)
    if other:
        raise ValueError(f"--resume: goes on with the run's own {CONFIG}, {other}={written.get(other)}; leave out --{other}.")
    return config, folder


def new_folder(config, accelerator):
    """The run's folder; with several processes the main one makes it and tells the others.

    Raises:
        ValueError: it cannot be made, or another machine does not see it.
    """
    path = [None]
    if accelerator.is_main_process:
        path = [str(RunFolder.create(config["output_dir"], config["dataset"], config["model"], config.as_yaml()).path)]
    path = Path(broadcast_object_list(path)[0])
    if not path.is_dir():
        raise bad_value("output_dir", config["output_dir"], f"process {accelerator.process_index} does not see {path}. All machines of a run must share it.")
    return RunFolder(path, is_new=True, writes=accelerator.is_main_process)


def prepare(config):
    """Load and split the data: all positions, or whole histories to be masked, where wanted and the model allows it; else RecBole's prefixes."""
    model_class = config.model_class
    if getattr(model_class, "trains_all_positions", False):
        dataset = create_dataset(config, all_positions=True)
        return Prepared(dataset, data_preparation(config, dataset), model_class, "all positions of a history")
    reason = needs_prefixes(config)
    if not reason and config["transform"] == MASKED:
        dataset = create_dataset(config, all_positions=True)
        return Prepared(dataset, data_preparation(config, dataset), model_class, "whole histories, masked anew in each epoch")
    if not reason and hasattr(model_class, "gather_indexes"):
        dataset = create_dataset(config, all_positions=True)
        loaders = data_preparation(config, dataset)
        everywhere = with_all_positions(model_class)
        tried = make_model(everywhere, config, loaders[0]._dataset)
        if allows_all_positions(tried):
            everywhere.plain_cross_entropy = is_plain_cross_entropy(tried)
            everywhere.leaves_out_uncounted = everywhere.plain_cross_entropy and reads_counted_alone(tried)
            return Prepared(dataset, loaders, everywhere, "all positions of a history in one pass")
    reason = reason or "this model does not allow all positions"
    of_pairs = config["MODEL_INPUT_TYPE"] == InputType.PAIRWISE and config["loss_type"] != "CE"
    if of_pairs and config["train_neg_sample_args"]["distribution"] == "none":
        raise PropertyError("train_neg_sample_args", f"train_neg_sample_args=None: {config['model']} is trained beside negatives ({reason}). Leave it out.")
    dataset = create_dataset(config, all_positions=False)
    return Prepared(dataset, data_preparation(config, dataset), model_class, f"one row for each prefix, as RecBole ({reason})")


def stages_of(model_class):
    """The module of the stages before a model that reads item content; None for others.

    Such a model class names it by its attribute `stages`. It has `check_parts(config, n_items)`, `read_item_content(config, dataset)` and
    `build(config, prepared, content, accelerator, folder, train_id_model, train_once)`, which gives the model.
    """
    name = getattr(model_class, "stages", None)
    return name and importlib.import_module(name)  # transformers takes seconds to import: baselines do without


def read_content(config, dataset):
    """Texts and pictures of the items, for models that read them; None for others."""
    stages = stages_of(config.model_class)
    if stages is None:
        return None
    stages.check_parts(config, dataset.item_num)
    if config.reads_id_model and not config["id_weights"]:
        make_id_configs(config)  # for their errors: they are needed after stage 1 only
    return stages.read_item_content(config, dataset)


def content_hash(config, dataset, content):
    """Hex digest of all that the model reads beside the interactions' order: texts and pictures, features, times; None where it reads nothing of them."""
    if content is None:
        return feature_hash(config)
    digest = hashlib.sha256()
    content.hash_into(digest)
    if config["history_time_gaps"]:
        digest.update(dataset.time_gaps().numpy().tobytes())
    return digest.hexdigest()[:16]


def feature_hash(config):
    """Hex digest of the files that a model of RecBole takes features of items and users from (SASRecF, FDSA, DIN); None for a model without."""
    if not (config["selected_features"] or config["item_attribute"] or config["model"] in READ_ALL_FEATURES):
        return None
    digest = hashlib.sha256()
    for ending in ("item", "user"):
        file = Path(config["data_path"]) / f"{config['dataset']}.{ending}"
        digest.update(file.read_bytes() if file.is_file() else b"none")
    return digest.hexdigest()[:16]


def build_model(config, prepared, content, accelerator, folder):
    """The model of the run; the earlier stages of one that reads item content run here, or are read from the cache."""
    stages = stages_of(config.model_class)
    if stages is None:
        init_seed(config["seed"], config["reproducibility"])
        return make_model(prepared.model_class, config, prepared.loaders[0]._dataset)
    return stages.build(config, prepared, content, accelerator, folder, train_id_model, train_once)


def train_id_model(config, accelerator, folder, split_hash):
    """Train each ID model to its best validation epoch, or load it where an equal one was trained before, here or as a run, or where `id_weights` gives one.

    Returns:
        list: the models, most often one; in `joint` training untrained, unless given.
    """
    if config["id_weights"]:
        folder.notes["id_model"] = {"model": config["id_model"], "reused": True, "epochs_run": None}
        return finished_id_models(config, accelerator, split_hash)
    return [_train_id_model(stage, config, id_config, accelerator, folder, split_hash) for stage, id_config in make_id_configs(config).items()]


def _train_id_model(stage, config, id_config, accelerator, folder, split_hash):
    prepared = prepare(id_config)
    assert prepared.dataset.split_hash() == split_hash
    init_seed(id_config["seed"], id_config["reproducibility"])
    model = make_model(prepared.model_class, id_config, prepared.loaders[0]._dataset)
    if config["id_training"] == "joint":
        return model
    check_user_embedding(model, prepared.loaders[0]._dataset[[0, 0]].to(config["device"]), with_items=config["collaborative"])
    if config["distill_weight"]:
        check_teacher(model, config["MAX_ITEM_LIST_LENGTH"])
    getLogger().info("ID model %s: %s", id_config["model"], prepared.note)
    cache = id_model_cache(config, id_config, split_hash)
    trained = trained_id_model(config, id_config, split_hash) if accelerator.is_main_process else None
    trained = broadcast_object_list([trained])[0]  # one looks: a run may end in between
    if trained in (None, cache):
        train_once(id_config, prepared, model, accelerator, folder, cache, stage)
    else:
        getLogger().info("%s: %s, a finished run of the same configuration", stage, trained)
        _load_trained(id_config, model, accelerator, trained, RESULT)
        folder.notes[stage] = {"model": id_config["model"], "reused": True, "epochs_run": None}
    return model


def train_once(config, prepared, model, accelerator, folder, cache, stage):
    """Train a part of a run to its best validation epoch, or load it where an equal one was trained before; notes which under `stage`.

    Args:
        config (Config), prepared (Prepared), model: of the part; the order of its batches afterwards is as if nothing had been trained.
        accelerator (Accelerator); folder (RunFolder): the run's; cache (Path): from :func:`part_cache`; stage (str): its name.
    """
    done, generator = cache / DONE, prepared.loaders[0].generator
    order = generator.get_state()
    getLogger().info("%s: %s", stage, cache)
    with cache_lock(cache.parents[1], cache.name, accelerator):  # another run may be training it
        accelerator.wait_for_everyone()
        reused = done.is_file()
        if reused:
            _load_trained(config, model, accelerator, cache, DONE)
        else:
            trainer = train(config, prepared, model, accelerator, folder, cache, stage)
            accelerator.wait_for_everyone()
            trainer.load_best()
            if accelerator.is_main_process:
                write_json(done, trainer.best_valid_result or {})  # nothing where no validation took place
                (cache / LAST).unlink(missing_ok=True)  # its optimizer is twice as large as its weights, and nothing goes on from it
    generator.set_state(order)
    folder.notes[stage] = {"model": config["model"], "reused": reused, "epochs_run": None if reused else len(trainer.curve)}


def _load_trained(config, model, accelerator, folder, told):
    """The best epoch that a folder holds; told (str): the file there that says how good it is."""
    try:
        found = read_json(folder / told)
        getLogger().info("reusing it, valid %s", found.get("best_valid_result", found))
        get_trainer(config)(config, model, accelerator, folder).load_best()
    except ValueError as error:
        text = str(error).removesuffix(" Start a new run.")
        remedy = f" Delete the folder {folder}, and it is trained anew."
        raise ValueError(text + ("" if text.endswith(remedy) else remedy)) from error


def id_model_cache(config, id_config, split_hash):
    """Folder in the cache for an ID model of these properties on this split; it is finished where it holds `done.json`."""
    return part_cache(config["output_dir"], "id_model", id_config, [split_hash, feature_hash(id_config)])


def trained_id_model(config, id_config, split_hash):
    """Where this ID model lies, trained: its folder in the cache, or else that of a finished run of the same configuration below `output_dir`; else None."""
    cache = id_model_cache(config, id_config, split_hash)
    if (cache / DONE).is_file():
        return cache
    features = feature_hash(id_config)
    for folder in runs_like(config["output_dir"], id_config.as_yaml()):
        with contextlib.suppress(ValueError):  # cut, or not what a run writes
            result = read_json(folder / RESULT)
            if (folder / BEST).is_file() and (result.get("split_hash"), result.get("content_hash")) == (split_hash, features):
                return folder
    return None


def finished_id_models(config, accelerator, split_hash):
    """The best epoch of each finished run of an ID model that `id_weights` names, with that run's own properties: a list.

    Raises:
        ValueError: no finished run; the first of another model than `id_model`; on another split; one that cannot do what is wanted of it.
    """
    folders, expected = as_list(config["id_weights"]), str(config["id_model"])
    models = [_finished_id_model(Path(str(folder)), None if place else expected, config, accelerator, split_hash) for place, folder in enumerate(folders)]
    for model in models:
        if config["distill_weight"]:
            check_teacher(model, config["MAX_ITEM_LIST_LENGTH"])
    return models


def _finished_id_model(folder, expected, config, accelerator, split_hash):
    if not all((folder / name).is_file() for name in (RESULT, CONFIG, BEST)):
        raise bad_value("id_weights", folder, f"not the folder of a finished run ({RESULT}, {CONFIG} and {BEST}). Run such a model first.")
    result = read_json(folder / RESULT, "model", "split_hash", "best_valid_result")
    refuse_foreign_code(folder / CONFIG, {"id_model": config["id_model"]}, {"model": "id_model"})
    if expected and result["model"] != expected.rpartition(".")[2]:
        raise bad_value("id_weights", folder, f"a run of {result['model']}, but id_model={config['id_model']}. Set --id_model={result['model']}.")
    if result["split_hash"] != split_hash:
        raise bad_value("id_weights", folder, f"was trained on another split ({result['split_hash']}, here {split_hash}). Run it again on this data.")
    id_config = Config(config_file_list=[folder / CONFIG], config_dict={"data_path": config.as_yaml()["data_path"], "log_wandb": False})
    id_config["device"] = config["device"]
    if result.get("content_hash") not in (None, feature_hash(id_config)):
        raise bad_value("id_weights", folder, "was trained on other features of items or users (content_hash differs). Run it again on this data.")
    prepared = prepare(id_config)
    model = make_model(prepared.model_class, id_config, prepared.loaders[0]._dataset)
    get_trainer(id_config)(id_config, model, accelerator, folder).load_best()
    check_user_embedding(model.to(config["device"]), prepared.loaders[0]._dataset[[0, 0]].to(config["device"]), with_items=config["collaborative"])
    getLogger().info("ID model %s of %s, valid %s", result["model"], folder, result["best_valid_result"])
    return model


def make_id_configs(config):
    """Configs of the ID models, by their stage: `id_model` with each `id_<key>` as `<key>`, and those of `more_id_models`."""
    own = {key[3:]: value for key, value in config.as_yaml().items() if config._is_id_model_key(key)}
    origins = {key[3:]: origin for key, origin in config.origins.items() if config._is_id_model_key(key)}
    configs = {"id_model": _make_id_config(config, config["id_model"], own, origins, "id_")}
    for name, given in (config["more_id_models"] or {}).items():
        files = id_model_files(get_model(name, key="more_id_models").__name__, config["dataset"])
        defaults = {key[3:]: value for file in files for key, value in read_yaml(file).items()}
        origins = dict.fromkeys(given or {}, config.origins.get("more_id_models"))
        configs[f"id_model_{name}"] = _make_id_config(config, name, {**defaults, **(given or {})}, origins, f"more_id_models.{name}.")
    return configs


def _make_id_config(config, name, own, origins, prefix):
    """Config of an ID model: the run's data and protocol, RecBole's defaults for the model, and its own properties."""
    from recbole.utils.argument_list import dataset_arguments

    plain = config.as_yaml()
    chosen = {key: plain[key] for key in (*SHARED_WITH_ID_MODEL, *dataset_arguments) if key in plain}
    for key in own.keys() & OF_THE_RUNS_DATA:
        raise PropertyError(f"{prefix}{key}", f"{prefix}{key}: an ID model reads the data and the split of its run. Leave it out, or set {key}.")
    try:
        id_config = Config(model=name, dataset=config["dataset"], config_dict={**chosen, **own}, origins={**config.origins, **origins})
    except PropertyError as error:
        if origins.keys() & {error.key, *error.others}:
            error.renamed(prefix)
        raise
    id_config["device"] = config["device"]  # with several processes, this one's
    return id_config


def announce(config, prepared, content, folder, accelerator):
    """Say what will be done, before anything takes long."""
    dataset, train_data = prepared.dataset, prepared.loaders[0]
    n_interactions = len(dataset.sorted_items)
    log = getLogger().info
    size = f"{dataset.user_num - 1:,} users, {dataset.item_num - 1:,} items, {n_interactions:,} interactions"
    log("%s on %s: %s", config["model"], config["dataset"], size)
    several = f", {n_processes()} processes that share each batch" if n_processes() > 1 else ""
    log("run folder %s, device %s, %s%s", folder.path, config["device"], computes_in(accelerator), several)
    log("training: %s; %s rows, %d steps an epoch, at most %d epochs", prepared.note, f"{len(train_data._dataset):,}", len(train_data), config["epochs"])
    protocol, masked = config["eval_args"], "masked" if config["mask_history"] else "not masked"
    log("evaluation: split %s by time, %s, history %s", protocol["split"], protocol["mode"]["valid"], masked)
    if content is not None:
        log("item content: %s", ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in content.report().items()))
        if not content.has_images:
            could = config["mirm_image_size"] or config["encoder_image_side"]  # HLLM and CoLLM have neither
            unread = could and (Path(config["data_path"]) / str(config["item_image_dir"])).is_dir()
            log("no picture is read: text only%s", f"; {config['item_image_dir']}/ is there, item_modalities=[text, image] reads it" if unread else "")
        log("stages: what %s builds on, or its cached result; %s; the test. Long ones say how long they take; doctor says it for all", *[config["model"]] * 2)


def train(config, prepared, model, accelerator, folder, checkpoint_folder, stage, validated=None):
    """Fit one model with early stopping; goes on where the checkpoint folder was left. `validated` is called with each epoch's score."""
    train_data, valid_data, _ = prepared.loaders
    n_parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    trainer = get_trainer(config)(config, model, accelerator, checkpoint_folder)
    trainer.content_hash = folder.notes.get("content_hash") if checkpoint_folder == folder.path else None  # a part in the cache has it in its name
    trainer.resume_checkpoint(train_data=train_data)

    def scored(epoch, score):
        folder.save_seconds()
        if validated:
            validated(epoch, score)

    with folder.stage(stage, f"{n_parameters:,} trained parameters, batches of {train_data.step} rows"):
        trainer.fit(train_data, valid_data, show_progress=config["show_progress"], callback_fn=scored)
    return trainer


def outcome(trainer):
    """What training came to."""
    best = next((entry["epoch"] for entry in reversed(trainer.curve) if entry.get("best")), None)
    return {"best_valid_result": trainer.best_valid_result, "best_epoch": best, "epochs_run": len(trainer.curve)}


def test(config, prepared, trainer, folder):
    """Evaluate the best epoch on the test items and write `result.json` and the ranks."""
    accelerator = trainer.accelerator
    accelerator.wait_for_everyone()
    test_data, trainer.keep_top = prepared.loaders[2], max(config["topk"])
    with folder.stage("test"):
        start = time.time()
        result = trainer.evaluate(test_data, load_best_model=(trainer.folder / BEST).is_file(), show_progress=config["show_progress"])
        seconds = time.time() - start
        latency = trainer.latency(test_data) if accelerator.is_main_process else None
    if accelerator.is_main_process:
        trainer.save_ranks(folder.path / RANKS, prepared.dataset)
    return folder.write_result({
        "model": config["model"], "dataset": config["dataset"], "seed": config["seed"],
        "test_result": {name: float(value) for name, value in result.items()}, **outcome(trainer), "training": prepared.note,
        **folder.notes,
        "mask_history": config["mask_history"], "split_hash": prepared.dataset.split_hash(), "precision": computes_in(accelerator),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "users_per_second": round(len(test_data._dataset) / seconds, 1), "latency_ms": latency,
    })
