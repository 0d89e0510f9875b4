"""What a study leaves: the line of a trial, the tables, `trials.csv`, `best.yaml`, `search.json` and `report.html`."""

import contextlib
import csv

import optuna
from optuna.trial import TrialState

from recbole_molar.checkpoint import write_atomic, write_json, write_text
from recbole_molar.command_line import dump_yaml
from recbole_molar.compare.runs import SEARCH
from recbole_molar.config import Config
from recbole_molar.run_folder import NOT_IDENTITY

SHOWN = 10  # best trials in the table
LEFT_OUT = NOT_IDENTITY - {"data_path"}  # of best.yaml
ENOUGH = 10  # completed trials, for importances that say something


def line(study, number):
    """One trial that has ended, for the terminal."""
    trial = study.trials()[number]
    values = "  ".join(f"{key}={short(value)}" for key, value in trial.params.items())
    seconds = f"{trial.user_attrs.get('seconds', 0):.0f} s"
    if trial.state == TrialState.FAIL:
        return f"trial {number}  failed: {trial.user_attrs['reason']}  ({values})"
    if trial.state == TrialState.PRUNED:
        return f"trial {number}  pruned at {study.metric} {trial.value:.4f} after epoch {trial.last_step + 1}, {seconds}  ({values})"
    star = " *" if study.trials(TrialState.COMPLETE)[0].number == number else ""
    return f"trial {number}  valid {study.metric} {trial.value:.4f}{star} in epoch {trial.user_attrs['best_epoch']}, {seconds}  ({values})"


def summary(study):
    """How many trials ended how, the best beside the configuration as it stands, and the importances."""
    count = {state: len(study.trials(state)) for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)}
    best = study.trials(TrialState.COMPLETE)[0]
    lines = [f"{sum(count.values())} trials: {', '.join(f'{number} {state.name.lower()}' for state, number in count.items())}"]
    default = next((trial for trial in study.trials(TrialState.COMPLETE) if is_default(study, trial)), None)
    beside = f"; the configuration as it stands has {default.value:.4f} (trial {default.number})" if default else ""
    lines.append(f"best: trial {best.number} with valid {study.metric} {best.value:.4f}{beside}")
    found = importances(study)
    if found:
        lines.append("importance (fANOVA): " + "  ".join(f"{key} {value:.2f}" for key, value in found.items()))
        left_out = [key for key in study.space.keys if key not in found]
        lines += [f"without importance, because not every trial has it: {', '.join(left_out)}"] if left_out else []
    return "\n".join(lines)


def is_default(study, trial):
    """True for the trial that has the values which stand without the space."""
    stored, outside = study.space.defaults(study.values)
    return not outside and trial.params == stored


def importances(study):
    """Property -> share of the variation that it explains, the greatest first; {} with too few trials."""
    if len(study.trials(TrialState.COMPLETE)) < ENOUGH:
        return {}
    with contextlib.suppress(ImportError, RuntimeError, ValueError):  # RuntimeError: all trials have the same value
        return optuna.importance.get_param_importances(study.study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=study.seed))
    return {}


def trial_rows(study):
    """The best trials, with a header."""
    rows = [["trial", f"valid {study.metric}", "epoch", *study.space.keys]]
    for trial in study.trials(TrialState.COMPLETE)[:SHOWN]:
        name, values = f"{trial.number}{' (as it stands)' if is_default(study, trial) else ''}", [short(trial.params.get(key)) for key in study.space.keys]
        rows.append([name, f"{trial.value:.4f}", str(trial.user_attrs["best_epoch"]), *values])
    return rows


def short(value):
    """A value in a few characters."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def write_csv(study):
    """`trials.csv`: every trial with its values, how it ended and where its run folder is."""
    notes = ("best_epoch", "epochs_run", "seconds", "run_folder", "reason")

    def write(temporary):
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["trial", "state", f"valid_{study.metric}", *study.space.keys, *notes, "reused"])
            for trial in study.trials():
                values = [trial.params.get(key, "") for key in study.space.keys]
                own = [trial.user_attrs.get(note, "") for note in notes]
                value = "" if trial.value is None else trial.value
                writer.writerow([trial.number, trial.state.name.lower(), value, *values, *own, " ".join(trial.user_attrs.get("reused", []))])

    write_atomic(study.folder / "trials.csv", write)


def write_best(study, config):
    """`best.yaml`: what the best trial's configuration changes in the defaults."""
    wanted, chosen = config.as_yaml(), {"model": config.model_name, "dataset": str(config["dataset"])}
    for _ in range(2):  # the second time for what a part's own YAML, now chosen, sets otherwise
        stands = {} if "." in config.model_name else Config(config_dict=chosen).as_yaml()  # a user's own class may have no defaults
        chosen.update({key: value for key, value in wanted.items() if key not in LEFT_OUT and (key not in stands or stands[key] != value)})
    trial = study.trials(TrialState.COMPLETE)[0]
    about = f"# Trial {trial.number} of {study.folder.name}: valid {study.metric} {trial.value:.4f}, the best of {len(study.trials())} trials.\n"
    text = about + dump_yaml(chosen, sort_keys=False)
    write_text(study.folder / "best.yaml", text)


def search_of(study):
    """The whole search as plain values: what `search.json` holds and the charts are drawn from."""
    default = next((trial.number for trial in study.trials(TrialState.COMPLETE) if is_default(study, trial)), None)
    return {
        "model": study.config["model"], "dataset": str(study.config["dataset"]), "metric": study.metric, "bigger": bool(study.config["valid_metric_bigger"]),
        "sampler": study.sampler, "seed": study.seed, "default": default, "best": study.trials(TrialState.COMPLETE)[0].number,
        "dimensions": [{"key": one.key, "kind": one.kind, "choices": list(one.choices)} for one in study.space.dimensions],
        "importances": importances(study),
        "trials": [
            {
                "number": trial.number, "state": trial.state.name.lower(), "value": trial.value, "values": trial.params,
                "curve": sorted(trial.intermediate_values.items()), "seconds": trial.user_attrs.get("seconds"),
            }
            for trial in study.trials()
        ],
    }  # fmt: skip


def write_page(study):
    """`search.json`, and `report.html` drawn from it; returns why there is no page, or None."""
    search = search_of(study)
    write_json(study.folder / SEARCH, search)
    try:
        from recbole_molar.compare.report import search as charts
        from recbole_molar.compare.report.template import render
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("recbole_molar"):
            raise
        return f'No report.html: it needs {error.name}; pip install -e ".[report]"'
    page = render("search.html", {
        "search": search, "headline": summary(study).splitlines()[1].capitalize() + ".", "rows": trial_rows(study), "posters": {},
        "history": charts.history(search), "curves": charts.curves(search), "importance": charts.importance(search), "slices": charts.slices(search),
        "best_yaml": (study.folder / "best.yaml").read_text(encoding="utf-8"),
    })  # fmt: skip
    write_text(study.folder / "report.html", page)
    return None
