"""`compare`: run what is missing, then one table for all models, with the tests of their differences."""

import json
import warnings
from dataclasses import asdict

import numpy as np

from recbole_molar.checkpoint import write_json, write_text
from recbole_molar.command_line import config_file_list, parse_command_line, read_with_lines, refuse_run_words
from recbole_molar.compare.per_user import GAINS, read_ranks, user_metric
from recbole_molar.compare.runs import (
    DEFAULT_SEED, check_candidates, check_content, check_split, chosen_gpus, parse_models, parse_seeds, plan, read_curve, run_missing,
)
from recbole_molar.compare.segments import Audience
from recbole_molar.compare.statistics import bootstrap, difference, holm
from recbole_molar.compare.tables import as_csv, as_latex, as_markdown, as_text
from recbole_molar.compare.tuned import check_tuning, tune_entries
from recbole_molar.config import Config, places
from recbole_molar.property_error import bad_value
from recbole_molar.property_values import as_list
from recbole_molar.run_folder import RANKS, make_folder

OPTIONS = ("seeds", "jobs", "report", "tune_trials")
DEFAULT_SEEDS = 3


def compare(arguments):
    """Compare models on one data set; runs what is missing, reuses what is there.

    Args:
        arguments (list of str): `--models=A,B`, `--dataset=`, `--seeds=` (a number or a list), `--reference=` (label; default the first),
            `--jobs=`, `--report=False`, `--tune-trials=` (search for each model's properties first), and any option of a run, which goes
            to every model that knows it; what `--config_files` hold too.

    Returns:
        tuple: the table as text, exit code (1 if a run failed).

    Raises:
        ValueError: bad input, or runs that cannot stand in one table.
    """
    own, given, origins = options_of(arguments, ("models", "reference"))
    if "models" not in own:
        raise ValueError("--models is missing. Example: --models=Molar,SASRec --dataset=ml-100k --seeds=3")
    entries = parse_models(own.pop("models"), given.keys() - origins.keys())
    found, folder, remark = carry_out(entries, own.pop("reference", entries[0].label), given, origins, **own)
    return f"{as_text(found)}\n{remark}{folder}", 1 if found["failed"] else 0


def options_of(arguments, more=()):
    """A command line as three dicts: what belongs to a comparison (`OPTIONS` and `more`), options of its runs, and where those of files stand."""
    warnings.filterwarnings("ignore", module="recbole|pandas")
    given = parse_command_line(arguments)
    for word in {"model", "resume"} & given.keys():
        raise ValueError(f"--{word}={given[word]}: not read here, where several models run. Name them in --models, or rows of a table in --rows.")
    own = {key: given.pop(word) for key in (*OPTIONS, *more) for word in (key, key.replace("_", "-")) if word in given}
    of_files, origins = {}, {}
    for file in config_file_list(given.pop("config_files", None)):
        properties, lines = read_with_lines(file)
        refuse_run_words(properties, file)
        of_files.update(properties)
        origins.update(places(file, lines))
    return own, {**of_files, **given}, {key: origin for key, origin in origins.items() if key not in given}


def carry_out(entries, reference, given, origins, seeds=DEFAULT_SEEDS, jobs=None, report=True, tune_trials=None):
    """A comparison of models: search where asked, run what is missing, write tables and report.

    Args:
        entries (list of Entry); reference (str): label of the model that the others are tested against; given (dict): options of the runs;
            origins (dict): where some of them stand.
        seeds, jobs, report, tune_trials: as typed.

    Returns:
        tuple: dict of :func:`examine`, folder, lines for the terminal.

    Raises:
        ValueError: bad input, or runs that cannot stand in one table.
    """
    given, reference = dict(given), str(reference)
    for entry in entries:
        entry.origins = {**origins, **entry.origins}
    if reference not in [entry.label for entry in entries]:
        raise ValueError(f"--reference={reference}: not among the models. Valid: {', '.join(entry.label for entry in entries)}.")
    jobs = _jobs(jobs)
    if not isinstance(report, bool):
        raise ValueError(f"--report={report}: give True or False.")
    seeds = parse_seeds(seeds, first=given.pop("seed", DEFAULT_SEED))
    plan(entries, given, seeds)  # before any time is spent
    check_candidates([run for entry in entries for run in entry.runs])
    check_split([run for entry in entries for run in entry.runs])
    first = entries[0].runs[0].properties
    check_tables(first)
    check_content([run for entry in entries for run in entry.runs if run.is_done])
    if tune_trials is not None:
        check_tuning(entries, given, tune_trials)
    folder, gpus = make_folder(given.get("output_dir", first["output_dir"]), first["dataset"], "compare-{}"), chosen_gpus(given)
    (folder / "logs").mkdir()
    if tune_trials is not None:
        tune_entries(entries, given, seeds, tune_trials, folder, jobs, gpus)
        plan(entries, given, seeds)
    runs = [run for entry in entries for run in entry.runs]
    print(f"{len(runs)} runs of {len(entries)} models, {sum(run.is_done for run in runs)} of them done before; results go to {folder}", flush=True)
    failed = run_missing(runs, folder, jobs, gpus)
    for entry in entries:
        entry.runs = [run for run in entry.runs if run.is_done]
    found = examine([entry for entry in entries if entry.runs], reference, failed)
    write_json(folder / "comparison.json", found)
    for name, render in (("table.md", as_markdown), ("table.csv", as_csv), ("table.tex", as_latex)):
        write_text(folder / name, render(found))
    return found, folder, _report(found, folder / "report.html") if report else ""


def check_tables(properties):
    """Raise PropertyError where no table could be made of the runs: each user has one test item, and its rank gives the metrics."""
    if "LS" not in properties["eval_args"]["split"]:
        reason = "the tables and their tests are over users with one test item each. Set split={LS: valid_and_test}."
        raise bad_value("eval_args", properties["eval_args"], reason)
    names = [name.lower() for name in as_list(properties["metrics"]) if name.lower() in GAINS]
    if properties["valid_metric"].lower().partition("@")[0] not in names:
        valid = f"Valid here: {', '.join(names) or ', '.join(GAINS)}, each @k."
        raise bad_value("valid_metric", properties["valid_metric"], f"the tables have metrics of one target's rank. {valid}")


def _report(found, path):
    """Write the HTML report; where it cannot be made the tables stand without it, and this says why. Returns lines for the terminal."""
    try:
        from recbole_molar.compare.report.page import write_report
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("recbole_molar"):
            raise
        return f'- No report.html: it needs {error.name}; pip install -e ".[report]"\n'
    try:
        left_out = write_report(found, path)
    except ValueError as error:
        return f"- No report.html: {error}\n"
    return "".join(f"- report.html, left out: {reason}\n" for reason in left_out)


def _jobs(value):
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"--jobs={value}: give how many runs at a time, a whole number of at least 1.")
    return value


def examine(entries, reference, failed=()):
    """Everything that the tables and the report show, from finished runs.

    Args:
        entries (list of Entry): with finished runs only; reference (str): label of the model that the others are tested against.
        failed (dict): runs that failed, and why.

    Returns:
        dict: plain values.

    Raises:
        ValueError: different splits; unreadable ranks.
    """
    if not entries:
        raise ValueError(f"no run has finished: {json.dumps(dict(failed), ensure_ascii=False)}")
    runs = [run for entry in entries for run in entry.runs]
    check_split(runs)
    results = {entry.label: [run.result() for run in entry.runs] for entry in entries}
    ranks = {entry.label: [read_ranks(run.folder / RANKS) for run in entry.runs] for entry in entries}
    first, properties = ranks[entries[0].label][0], runs[0].properties
    metrics = [name for name in results[entries[0].label][0]["test_result"] if name.partition("@")[0] in GAINS]
    for label, some in ranks.items():
        if not all(np.array_equal(one.user, first.user) and np.array_equal(one.item, first.item) for one in some):
            raise ValueError(f"{label}: its ranks hold other users or test items than those of {entries[0].label}. Run it again: delete its folder.")
    audience = Audience(Config(config_dict=dict(properties)))
    if audience.split_hash != runs[0].result()["split_hash"]:
        raise ValueError(f"{properties['dataset']}: the data has changed since the runs were made. Run them again: delete their folders, or set --output_dir.")
    users = {label: {metric: np.stack([user_metric(one, metric) for one in some]) for metric in metrics} for label, some in ranks.items()}  # [S, U]
    segments, k = audience.segments(first), int(properties["valid_metric"].rpartition("@")[2])
    models = [
        {
            "label": entry.label,
            "seeds": [run.seed for run in entry.runs],
            "folders": [str(run.folder) for run in entry.runs],
            "training": results[entry.label][0]["training"], "tuned": entry.tuned,
            "test": {metric: _spread(values.mean(1)) for metric, values in users[entry.label].items()},
            "valid": {metric: _spread([(result["best_valid_result"] or {}).get(metric, np.nan) for result in results[entry.label]]) for metric in metrics},
            "segments": {
                axis: {name: {metric: float(users[entry.label][metric][:, chosen].mean()) for metric in metrics} for name, chosen in parts.items()}
                for axis, parts in segments.items()
            },
            "beyond": _means([audience.beyond_accuracy(one, k) for one in ranks[entry.label]]),
            "cost": _means([_cost(run, result) for run, result in zip(entry.runs, results[entry.label])]),
        }
        for entry in entries
    ]
    return {
        "dataset": properties["dataset"], "split_hash": audience.split_hash, "valid_metric": properties["valid_metric"].lower(), "metrics": metrics,
        "users": len(first.user), "segment_users": {axis: {name: int(chosen.sum()) for name, chosen in parts.items()} for axis, parts in segments.items()},
        "mask_history": properties["mask_history"], "mode": properties["eval_args"]["mode"]["test"],
        "metrics_left_out": [name for name in as_list(properties["metrics"]) if name.lower() not in GAINS],
        "data_path": properties["data_path"], "machine": results[entries[0].label][0]["machine"],
        "reference": reference, "models": models, "differences": _differences(users, reference, metrics), "failed": dict(failed),
    }


def _differences(users, reference, metrics):
    """Each other model against the reference, in every metric; Holm's correction over all of them."""
    others = [label for label in users if label != reference]
    if reference not in users or not others:
        return []
    keys = [(label, metric) for label in users for metric in metrics]
    drawn = bootstrap(np.concatenate([users[label][metric] for label, metric in keys]))
    ends = np.cumsum([len(users[label][metric]) for label, metric in keys])
    drawn = dict(zip(keys, np.split(drawn, ends[:-1], axis=1)))
    found = [
        (label, metric, difference(users[label][metric], users[reference][metric], drawn[label, metric], drawn[reference, metric]))
        for label in others
        for metric in metrics
    ]
    for (_, _, one), corrected in zip(found, holm([one.p for _, _, one in found])):
        one.p_holm = corrected
    return [{"model": label, "metric": metric, **asdict(one)} for label, metric, one in found]


def _spread(values):
    values = [float(value) for value in values]
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None, "values": values}


def _means(rows):
    """Mean of each key over dicts; None where a run does not know it."""
    return {key: None if any(row[key] is None for row in rows) else float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _cost(run, result):
    """What one run took; stages that it reused are not in it."""
    seconds, to_best = sum(result["seconds"].values()) - result["seconds"].get("test", 0), 0.0
    for entry in read_curve(run.folder):
        if result["best_epoch"] is not None and entry["epoch"] <= result["best_epoch"]:
            to_best += entry["train_seconds"] + entry.get("valid_seconds", 0.0)
    return {
        "train_seconds": seconds, "seconds_to_best_epoch": to_best, "best_epoch": result["best_epoch"], "peak_memory_gib": result["peak_memory"]["cpu"],
        "gpu_memory_gib": result["peak_memory"].get("cuda"), "parameters": result["parameters"], "latency_ms": result.get("latency_ms"),
        "users_per_second": result.get("users_per_second"),
    }
