"""The runs of a comparison: what each model is, where a finished run of it lies, and running what is missing."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue

import numpy as np
import torch
from tqdm import tqdm

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.checkpoint import read_json, write_text
from recbole_molar.command_line import config_file_list, dump_yaml, read_with_lines, read_yaml, refuse_run_words
from recbole_molar.config import CODE_KEYS, Config, refuse_foreign_code
from recbole_molar.property_error import UnknownPropertyError
from recbole_molar.quick_start import content_hash, stages_of
from recbole_molar.run_folder import CONFIG, NOT_IDENTITY, RANKS, RESULT, runs_like
from recbole_molar.trainer.sequential_trainer import CURVE
from recbole_molar.utils import create_dataset

DEFAULT_SEED = 2020
MOST_SEEDS = 100
SEARCH = "search.json"  # of a study of `tune`
OF_CANDIDATES = ("load_col", "unload_col", "val_interval", "filter_inter_by_user_or_item", "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")
PROTOCOL = ("eval_args", "mask_history", "metrics", "topk", "valid_metric", "repeatable", "rm_dup_inter", "user_inter_num_interval", "item_inter_num_interval")
OF_CONTENT = ("data", "encod", "field_sep", "history_time", "item_", "load_col", "rm_dup", "user_inter", "val_interval")  # properties that begin so
RESULT_KEYS = ("split_hash", "test_result", "best_valid_result", "best_epoch", "training", "seconds", "peak_memory", "parameters", "machine")


@dataclass
class Entry:
    """One model of a comparison.

    Args:
        label (str): its name in the tables.
        properties (dict): what it was given, besides the options of all.
        folders (list of Path): of finished runs that are taken as they are, one for each seed; then it is not run.
        seeds (list of int): its own; default those of the comparison.
        runs (list of Run): one for each seed.
        tuned (dict): of :func:`recbole_molar.compare.tuned.tune_entries`; None where the properties are as given.
        origins (dict): key of the properties -> where its value stands.
    """

    label: str
    properties: dict
    folders: list = field(default_factory=list)
    seeds: list = None
    runs: list = field(default_factory=list)
    tuned: dict = None
    origins: dict = field(default_factory=dict)


@dataclass
class Run:
    """One model and seed: its whole configuration, and its run folder once it has one."""

    label: str
    seed: int
    properties: dict
    folder: Path = None

    @property
    def is_done(self):
        return self.folder is not None and (self.folder / RESULT).is_file()

    def result(self):
        return read_json(self.folder / RESULT, *RESULT_KEYS)


def parse_models(value, typed=()):
    """`--models`: `Molar,SASRec,recipe/x.yaml,saved/…/Molar-…`, the same as a list, or `{label: name, properties, or run folders}`.

    Args:
        value: as typed. typed (iterable of str): options of all models that were typed, which win over a recipe file, as in a run.

    Returns:
        list of Entry.

    Raises:
        ValueError: nothing given, two of one label, or neither a model, a recipe file nor a finished run folder.
    """
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    pairs = list(value.items()) if isinstance(value, dict) else [(None, one) for one in value] if isinstance(value, list) else []
    if not pairs:
        raise ValueError(f"--models={value}: give models, recipe files or run folders, for example --models=Molar,SASRec,recipe/sasrec-ml-1m.yaml.")
    entries = [_entry(label, one, typed) for label, one in pairs]
    labels = [file_name(entry.label) for entry in entries]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"--models: {', '.join(twice)} comes twice. Give labels: --models='{{first: ..., second: ...}}'.")
    return entries


def _entry(label, one, typed):
    if isinstance(one, dict):
        if "model" not in one:
            raise ValueError(f"--models: {label}: has no model. Write {{{label}: {{model: Molar, ...}}}}.")
        properties = dict(one)
        refuse_run_words(properties, f"--models: {label}")
        seeds = parse_seeds(properties.pop("seeds"), f"--models: {label}: seeds") if "seeds" in one else None
        return Entry(str(label), properties, seeds=seeds, origins=dict.fromkeys(properties, f"--models: {label}"))
    if isinstance(one, list):
        if not one or not all(isinstance(folder, str) for folder in one):
            raise ValueError(f"--models: {label}: {one}: a list must name finished run folders of one model, one for each seed.")
        return Entry(str(label or _label_of(one[0])), {}, [_finished(folder) for folder in one])
    text = str(one)
    if text.endswith((".yaml", ".yml")):
        file = config_file_list([text])[0]
        properties, lines = read_with_lines(file)
        refuse_run_words(properties, text)
        if "model" not in properties:
            raise ValueError(f"--models: {text}: a recipe needs a line `model: NAME`.")
        properties = {key: value for key, value in properties.items() if key not in typed}
        return Entry(str(label or Path(text).stem), properties, origins={key: f"{text}, line {line}" for key, line in lines.items() if key in properties})
    if os.sep in text or Path(text).is_dir():
        return Entry(str(label or _label_of(text)), {}, [_finished(text)])
    return Entry(str(label or text), {"model": text}, origins={"model": "--models"})


def _finished(text):
    folder = Path(text)
    missing = [name for name in (CONFIG, RESULT, RANKS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"--models: {text}: not the folder of a finished run (no {', '.join(missing)}). Go on with it: --resume={text}.")
    return folder


def _label_of(text):
    """`Molar` of `saved/ml-1m/Molar-20261121-120000-0a1b2c3d`."""
    name = Path(text).name
    return name.rpartition("-")[0].rpartition("-")[0].rpartition("-")[0] or name


def parse_seeds(value, name="--seeds", first=DEFAULT_SEED):
    """A number of seeds from `first` on, or a list of them, as a list.

    Raises:
        ValueError: neither; begins with `name`.
    """
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise ValueError(f"--seed={first}: must be a whole number of at least 0.")
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number and value > MOST_SEEDS:
        raise ValueError(f"{name}={value}: is how many, at most {MOST_SEEDS}. For the seed {value} by itself write {name}=[{value}].")
    seeds = [first + index for index in range(value)] if is_number else value
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"{name}={value}: give how many (5), or a list of different whole numbers ([2020, 2021]).")
    return seeds


def plan(entries, options, seeds):
    """Give each entry its runs, finished ones with their folders.

    Args:
        entries (list of Entry); options (dict): what all models are given, each as far as it knows the key; seeds (list of int).

    Raises:
        ValueError: bad properties, an option that no model knows, or models under different protocols.
    """
    known = set()
    for entry in entries:
        entry.runs = [_run_of(entry, folder, options) for folder in entry.folders]
        _check_same_model(entry)
        for run in entry.runs:
            known |= set(run.properties)
        for seed in [] if entry.folders else entry.seeds or seeds:
            config, taken = known_config({**entry.properties, "seed": seed}, options, entry.origins)
            known |= taken
            entry.runs.append(Run(entry.label, seed, config.as_yaml()))
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"--{unknown[0]}: none of the models knows this property.")
    check_protocol([run for entry in entries for run in entry.runs])
    for entry in entries:
        for run in entry.runs:
            run.folder = run.folder or find(run.properties)


def _run_of(entry, folder, options):
    refuse_foreign_code(folder / CONFIG, options)
    moved = {"data_path": options["data_path"]} if "data_path" in options else {}
    properties = Config(config_file_list=[folder / CONFIG], config_dict=moved).as_yaml()
    return Run(entry.label, properties["seed"], properties, folder)


def _check_same_model(entry):
    """Raise ValueError where the run folders of one entry differ in more than the seed and in where stages come from."""
    for run in entry.runs[1:]:
        first = entry.runs[0].properties
        for key in sorted({*first, *run.properties} - NOT_IDENTITY - {"seed", "id_weights", "mirm_weights"}):
            if first.get(key) != run.properties.get(key):
                values = f"{first.get(key)} in {entry.runs[0].folder}, {run.properties.get(key)} in {run.folder}"
                raise ValueError(f"--models: {entry.label}: its runs differ in {key}: {values}.")
    if len({run.seed for run in entry.runs}) < len(entry.runs):
        raise ValueError(f"--models: {entry.label}: two of its runs have the same seed ({', '.join(str(run.seed) for run in entry.runs)}).")


def known_config(properties, options, origins=None):
    """(Config of one run, the options that it knows). An option that only other models know is left out."""
    given, left = {**options, **properties}, dict(options)
    while True:
        try:
            return Config(config_dict=given, origins=origins), set(left)
        except UnknownPropertyError as error:
            if error.key in properties or error.key not in left:
                raise
            del given[error.key], left[error.key]


def check_protocol(runs):
    """Raise ValueError where two runs differ in split, filter, candidates, masking, metrics or data set."""
    first = runs[0]
    for run in runs[1:]:
        for key in ("dataset", *PROTOCOL):
            if run.properties.get(key) != first.properties.get(key):
                raise ValueError(
                    f"{run.label} and {first.label} cannot stand in one table: {key} is {run.properties.get(key)} and {first.properties.get(key)}. "
                    "Give both the same."
                )


def _data_of(config):
    """The data set of a run, built."""
    dataset = create_dataset(config, all_positions="LS" in config["eval_args"]["split"])
    dataset.build()
    return dataset


def check_candidates(runs):
    """Raise ValueError where models that load other parts of the data would be tested on other items or users: before any time is spent."""
    kinds = {}
    for run in runs:
        kinds.setdefault(json.dumps([run.properties.get(key) for key in OF_CANDIDATES], sort_keys=True, default=str), run)
    hashes = {}
    for run in kinds.values() if len(kinds) > 1 else ():
        hashes.setdefault(_data_of(Config(config_dict=dict(run.properties))).split_hash(), run)
    if len(hashes) > 1:
        first, other = list(hashes.values())[:2]
        differ = [key for key in OF_CANDIDATES if first.properties.get(key) != other.properties.get(key)]
        values = "; ".join(f"{key} is {other.properties.get(key)} and {first.properties.get(key)}" for key in differ)
        raise ValueError(f"{other.label} and {first.label} cannot stand in one table, they have other items or users: {values}. Give both the same.")


def check_split(runs):
    """Raise ValueError where finished runs have trained or been tested on other splits, or other data, than one another or those that are missing would."""
    hashes = {run.result()["split_hash"]: f"{run.label} {run.folder}" for run in runs if run.is_done}
    missing = next((run for run in runs if not run.is_done), None)
    if hashes and missing:
        hashes.setdefault(_data_of(Config(config_dict=dict(missing.properties))).split_hash(), f"{missing.label}, not run yet, on the data as it is now")
    if len(hashes) > 1:
        named = "; ".join(f"{run}: {digest}" for digest, run in hashes.items())
        raise ValueError(f"the runs have different splits, so they cannot stand in one table ({named}). Has the data changed in between? Delete the old run.")


def check_content(runs):
    """Raise ValueError where finished runs read other texts, pictures, features or times than lie there now."""
    now = {}
    for run in runs:
        then = run.result().get("content_hash")
        if then is None:  # of interactions alone, or from before it was noted
            continue
        config = Config(config_dict=dict(run.properties))
        kind = json.dumps([config["model"], {key: value for key, value in run.properties.items() if key.startswith(OF_CONTENT)}], sort_keys=True, default=str)
        if kind not in now:
            dataset, stages = _data_of(config), stages_of(config.model_class)
            now[kind] = content_hash(config, dataset, stages and stages.read_item_content(config, dataset))
        if now[kind] != then:
            raise ValueError(f"{run.folder}: texts, pictures or features of the items, or times, have changed since, or are read otherwise now. Delete it.")


def read_curve(folder):
    """`curve.json` of a run folder: a list with a dict for each epoch, [] where there is none.

    Raises:
        ValueError: not what a run writes.
    """
    file = Path(folder) / CURVE
    try:
        curve = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read as JSON ({error}).") from error
    if not isinstance(curve, list) or not all(isinstance(entry, dict) and {"epoch", "train_seconds"} <= set(entry) for entry in curve):
        raise ValueError(f"{file}: no learning curve; it is not what a run writes.")
    return curve


def find(properties):
    """Folder of a run with these properties below `output_dir`: a finished one if there is, else one that was cut, else None.

    Of two copies of a data set each has its own runs; where data have moved, those of the old place count.
    """
    cut = None
    for folder in runs_like(properties["output_dir"], properties):
        then = Path(str(read_yaml(folder / CONFIG).get("data_path")))
        if then.resolve() != Path(properties["data_path"]).resolve() and (then / str(properties["dataset"])).is_dir():
            continue
        if (folder / RESULT).is_file() and _keeps_rankings(folder / RANKS):
            return folder
        cut = cut or (folder if not (folder / RESULT).is_file() else None)
    return cut


def _keeps_rankings(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return "top" in file
    except (OSError, ValueError):
        return False


def run_missing(runs, folder, jobs, gpus):
    """Run what is not done, `jobs` at a time, each in a process of its own; goes on with runs that were cut.

    Args:
        runs (list of Run); folder (Path): of the comparison, for logs; jobs (int, optional): default one for each GPU, or one;
            gpus (list): of :func:`chosen_gpus`.

    Returns:
        dict: label and seed -> last lines of a run that failed.
    """

    def work(run, gpu):
        name = f"{file_name(run.label)}-{run.seed}"
        if run.folder:
            words = [f"--resume={run.folder}", f"--data_path={json.dumps(str(run.properties['data_path']))}", *typed_code(run.properties)]
        else:
            properties = run.properties if gpu is None else {**run.properties, "gpu_id": 0}  # the one that the process will see
            words = [f"--config_files={write_properties(folder / 'logs' / f'{name}.yaml', properties)}"]
        last, failure = in_a_process("run", words, folder / "logs" / f"{name}.log", gpu, f"{run.label}, seed {run.seed}")
        if not failure and Path(last).name != RESULT:
            failure = f"ended without a result: {last}"
        run.folder = run.folder if failure else Path(last).parent
        return failure

    missing = [run for run in runs if not run.is_done]
    failures = queue(missing, work, jobs, "runs", gpus)
    return {f"{run.label}, seed {run.seed}": failure for run, failure in zip(missing, failures) if failure}


def file_name(label):
    """A label as a part of a file's name, such as that of a log."""
    return label.replace(os.sep, "-")


def typed_code(properties):
    """Words that say once more which code outside this package the user typed: a run folder by itself is not trusted with it."""
    return [f"--{key}={json.dumps(properties[key])}" for key in CODE_KEYS if "." in str(properties.get(key))]


def queue(tasks, work, jobs, what, gpus):
    """Carry out tasks, `jobs` at a time, over GPUs: a list of what `work(task, gpu)` returns for each."""
    places = Queue()
    jobs = jobs or max(1, len(gpus))
    for index in range(jobs):
        places.put(gpus[index % len(gpus)] if gpus else None)
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(tasks), desc=what, unit=what.removesuffix("s"), disable=not tasks) as bar:

        def one(task):
            gpu = places.get()
            try:
                return work(task, gpu)
            finally:
                places.put(gpu)
                bar.update(1)

        return list(pool.map(one, tasks))


def visible_gpus():
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them: a list of str."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return [given[index] if index < len(given) else str(index) for index in range(torch.cuda.device_count())]


def chosen_gpus(options):
    """Those of :func:`visible_gpus` that runs with these options may use: all, those that `gpu_id` names, or none for runs on the CPU."""
    gpus, wanted = visible_gpus(), str(options.get("gpu_id", "all")).strip("()")
    if options.get("use_cpu") or options.get("use_gpu") is False:
        return []
    if wanted == "all":
        return gpus
    numbers = [int(number) for number in wanted.split(",") if number.strip().isdecimal()]
    return [gpus[number] for number in numbers if number < len(gpus)]


def write_properties(path, properties):
    """A YAML file of properties; returns its path."""
    write_text(path, dump_yaml(properties))
    return path


def in_a_process(command, words, log, gpu, name):
    """One command of ours in a process, its output in a file.

    Returns:
        tuple: the last line that it printed, and what went wrong, or None.
    """
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {})}
    tqdm.write(f"{name}: starts; its log is {log}")
    with open(log, "a", encoding="utf-8") as file:
        code = subprocess.run([sys.executable, "-m", "recbole_molar", command, *words], stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    failure = f"exit code {code}: {last[:300]}" if code else None
    tqdm.write(f"{name}: {'failed, ' + failure if failure else last}")
    return last, failure
