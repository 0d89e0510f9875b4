"""`tune`: trials of one model over a search space, chosen by validation; at the end one test of the best.

Trials run in this process, one after the other: a start costs seconds, where a small model's epoch costs less, and the pruner hears of
each epoch at once. What a trial took is given back after it. To use more cores or GPUs, type the command several times.
"""

import gc
import hashlib
import time
import traceback
import warnings
from pathlib import Path

import torch
from optuna import TrialPruned
from optuna.trial import TrialState

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.checkpoint import read_json, write_text
from recbole_molar.command_line import config_file_list, parse_command_line
from recbole_molar.compare.runs import PROTOCOL, Run, check_content, find, typed_code
from recbole_molar.compare.tables import aligned
from recbole_molar.config import Config
from recbole_molar.device import return_freed_memory
from recbole_molar.lock import take_lock
from recbole_molar.quick_start import carry_out, run
from recbole_molar.run_folder import NOT_IDENTITY, RESULT, identity
from recbole_molar.tune.report import line, summary, trial_rows, write_best, write_csv, write_page
from recbole_molar.tune.space import Space
from recbole_molar.tune.study import SAMPLERS, TuningStudy

OWN_KEYS = ("space", "trials", "sampler", "pruning")
DEFAULT_TRIALS = 20
HOPELESS = 5  # first trials that all fail end the study
REFUSED = {
    **{key: "it changes what is measured" for key in (*PROTOCOL, "dataset", "load_col")}, "model": "tune each model by itself",
    "seed": "the best of several seeds is luck; give --seed", "config_files": "it is no property", "resume": "it is no property",
    **{key: "it changes no weight" for key in NOT_IDENTITY},
}


def tune(arguments):
    """Search for better properties of one model.

    Args:
        arguments (list of str): `--space=FILE`, `--trials=N`, `--sampler=tpe|grid|random`, `--pruning=True|False`, and the options of a run.

    Returns:
        str: the report, for the terminal.

    Raises:
        ValueError: bad input, or every trial failed.
    """
    warnings.filterwarnings("ignore", module="recbole|pandas")
    given = parse_command_line(arguments)
    own = {key: given.pop(key) for key in OWN_KEYS if key in given}
    study, make_config = open_study(given, own)
    most = own.get("trials", DEFAULT_TRIALS)
    print(f"{study.config['model']} on {study.config['dataset']}: {most} trials over {', '.join(study.space.keys)}; {study.folder}", flush=True)
    if study.outside:
        print(f"not tried first: the configuration as it stands; outside the space lies its {', '.join(study.outside)}", flush=True)
    while begun := study.next_trial(most):
        trial, chosen, lock = begun
        with lock:
            _carry_out_trial(study, trial, chosen, make_config)
        print(line(study, trial.number), flush=True)
        failed, others = study.trials(TrialState.FAIL), study.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        if len(failed) >= HOPELESS and not others:
            break
    return finish(study, make_config)


def open_study(given, own):
    """The study of these options and a function from a trial's values to its Config.

    Raises:
        ValueError: bad input.
    """
    sampler, pruning, trials = own.get("sampler", "tpe"), own.get("pruning", True), own.get("trials", DEFAULT_TRIALS)
    if "space" not in own:
        raise ValueError("--space is missing. Example: --space=properties/hyper/SASRec.yaml")
    if sampler not in SAMPLERS:
        raise ValueError(f"--sampler={sampler}: unknown. Valid: {', '.join(SAMPLERS)}.")
    if not isinstance(pruning, bool):
        raise ValueError(f"--pruning={pruning}: must be True or False.")
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise ValueError(f"--trials={trials}: give how many, a whole number of at least 1.")
    if "resume" in given:
        raise ValueError("--resume: is for run. A study goes on by its same command.")

    def make_config(chosen):
        origins = {key: space.place(key) for key in chosen}
        return Config(config_file_list=config_file_list(given.get("config_files")), config_dict={**given, **chosen}, origins=origins)

    space = Space(own["space"])
    config = make_config({})
    both = [key for key in space.keys if key in given]
    if both:
        raise ValueError(f"--{both[0]}: {space.file} searches over it. Leave it out of one of them.")
    if not config["epochs"] or not config["eval_step"]:
        raise ValueError("tune chooses by validation: give epochs and eval_step of at least 1.")
    if sampler == "grid":
        space.grid(config.final_config_dict)
    space.check(make_config, REFUSED)
    mark = identity({**config.as_yaml(), "space": [str(dimension) for dimension in space.dimensions], "search": [sampler, pruning]})
    name = f"tune-{config.model_class.__name__}-{hashlib.sha256(mark.encode()).hexdigest()[:8]}"
    folder = Path(config["output_dir"]) / str(config["dataset"]) / name
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"space{Path(space.file).suffix}", Path(space.file).read_text(encoding="utf-8"))
    return TuningStudy(folder, space, config, sampler, pruning), make_config


def _carry_out_trial(study, trial, chosen, make_config):
    """One trial, from its values to its place in the study; what goes wrong in it is written down there."""
    start, reported, notes = time.time(), study.reported(trial.number), {}

    def validated(folder, epoch, score):
        trial.set_user_attr("run_folder", str(folder))
        if epoch not in reported:
            trial.report(score, epoch)
        if trial.should_prune():
            raise TrialPruned

    try:
        found = _run_trial(study, make_config(chosen), validated)
        state, value = TrialState.COMPLETE, found["best_valid_result"][study.metric]
        notes = {key: found.get(key) for key in ("best_epoch", "epochs_run", "best_valid_result")}
        notes["reused"] = [stage for stage in ("stage_1", "id_model", "tuning") if found.get(stage, {}).get("reused")]
        notes["run_folder"] = str(found["run_folder"])
    except TrialPruned:
        state, value = TrialState.PRUNED, None
    except Exception as error:  # the study goes on; the reason stands in its tables
        if study.config["debug"]:
            traceback.print_exc()
        plain = isinstance(error, (ValueError, NotImplementedError))
        state, value, notes = TrialState.FAIL, None, {"reason": f"{'' if plain else type(error).__name__ + ': '}{error}"}
    study.finish(trial, state, value, seconds=round(time.time() - start, 1), **notes)
    gc.collect()
    return_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _run_trial(study, config, validated):
    """Train to the best epoch, go on with a run that was cut, or read what an equal run came to."""
    properties = config.as_yaml()
    with take_lock(study.folder / "locks" / hashlib.sha256(identity(properties).encode()).hexdigest()[:16]):  # another process may have the same values
        folder = find(properties)
        if folder and (folder / RESULT).is_file():
            check_content([Run("", config["seed"], properties, folder)])
            found = {**read_json(folder / RESULT), "run_folder": folder}
        else:
            found = carry_out(config, folder, validated)
    if study.metric not in (found["best_valid_result"] or {}):
        raise ValueError(f"no validation by {study.metric} took place")
    study.check_split(found["split_hash"])
    return found


def finish(study, make_config):
    """Write the tables, and test the best trial once all trials have ended.

    Returns:
        str: the report.

    Raises:
        ValueError: every trial failed.
    """
    with study.locked():
        done, failed, running = (study.trials(state) for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING))
        write_csv(study)
        if not done and not running:
            raise ValueError(f"all {len(failed)} trials failed, the first one: {failed[0].user_attrs['reason']}\nThe trials: {study.folder / 'trials.csv'}")
        if running:
            return f"{len(running)} trials are under way in other processes; the last one to end tests the best and writes the report.\n{study.folder}"
        best = done[0]
        config = make_config(study.values_of(best))
        write_best(study, config)
        remark = write_page(study)
        result = run([f"--resume={best.user_attrs['run_folder']}", *typed_code(config.as_yaml())])
    return "\n\n".join([summary(study), aligned(trial_rows(study)), tested(study, best, result), *([remark] if remark else []), str(study.folder)])


def tested(study, best, result):
    """The test figures of the best trial, and what they are."""
    figures = "  ".join(f"{name} {value:.4f}" for name, value in result["test_result"].items())
    return (
        f"trial {best.number}, the best by validation, was evaluated on the test items once, after the search: {figures}\n"
        f"its result: {result['result_file']}\nagain: python -m recbole_molar run --config_files={study.folder / 'best.yaml'}"
    )
