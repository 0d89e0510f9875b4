"""What a study leaves: the line of a trial, the tables, `trials.csv`, `best.yaml` and, with matplotlib, `search.png`."""

import contextlib
import csv
import math
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from recbole_molar.checkpoint import write_atomic
from recbole_molar.command_line import dump_yaml
from recbole_molar.compare.runs import NOT_IDENTITY
from recbole_molar.config import Config

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


def trial_table(study):
    """The best trials, for the terminal."""
    rows = [["trial", f"valid {study.metric}", "epoch", *study.space.keys]]
    for trial in study.trials(TrialState.COMPLETE)[:SHOWN]:
        name, values = f"{trial.number}{' (as it stands)' if is_default(study, trial) else ''}", [short(trial.params.get(key)) for key in study.space.keys]
        rows.append([name, f"{trial.value:.4f}", str(trial.user_attrs["best_epoch"]), *values])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) if not place else cell.rjust(width) for place, (cell, width) in enumerate(zip(row, widths))) for row in rows)


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
        stands = Config(config_dict=chosen).as_yaml()
        chosen.update({key: value for key, value in wanted.items() if key not in LEFT_OUT and (key not in stands or stands[key] != value)})
    trial = study.trials(TrialState.COMPLETE)[0]
    about = f"# Trial {trial.number} of {study.folder.name}: valid {study.metric} {trial.value:.4f}, the best of {len(study.trials())} trials.\n"
    text = about + dump_yaml(chosen, sort_keys=False)
    write_atomic(study.folder / "best.yaml", lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def draw(study):
    """`search.png`: each trial in turn, and its values on parallel axes; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    done = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    pruned = study.trials(TrialState.PRUNED)
    figure = Figure(figsize=(max(8, 1.2 * len(study.space.keys)), 8), layout="constrained")
    history, parallel = figure.subplots(2)
    best = (np.maximum if study.config["valid_metric_bigger"] else np.minimum).accumulate([trial.value for trial in done])
    history.step([trial.number for trial in done], best, where="post", color="tab:red", label="best so far")
    for some, marker, label in ((done, "o", "complete"), (pruned, "x", "pruned")):
        history.plot([trial.number for trial in some], [trial.value for trial in some], marker, color="tab:blue", label=label)
    history.set(title=f"{study.config['model']} on {study.config['dataset']}", xlabel="trial", ylabel=f"valid {study.metric}")
    history.legend()
    _draw_parallel(figure, parallel, study, done)
    write_atomic(study.folder / "search.png", lambda temporary: figure.savefig(temporary, format="png", dpi=120))


def _draw_parallel(figure, axes, study, done):
    """Each trial as a line through its values, coloured by how good it is; a property that it does not have breaks the line."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(min(trial.value for trial in done), max(trial.value for trial in done)), colormaps["viridis"])
    for trial in sorted(done, key=lambda trial: trial.value):
        heights = [_height(dimension, trial.params[dimension.key]) if dimension.key in trial.params else math.nan for dimension in study.space.dimensions]
        axes.plot(heights, "o-", color=colours.to_rgba(trial.value), markersize=3)
    axes.set_xticks(range(len(study.space.keys)), study.space.keys, rotation=20, ha="right")
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    for place, dimension in enumerate(study.space.dimensions):
        names = list(dimension.choices) if dimension.choices else [short(dimension.low), short(dimension.high)]
        for name, stored in zip(names, dimension.choices or (dimension.low, dimension.high)):
            axes.annotate(name, (place, _height(dimension, stored)), xytext=(4, 3), textcoords="offset points", fontsize=7, color="gray")
        axes.axvline(place, color="lightgray", linewidth=0.8, zorder=0)
    figure.colorbar(colours, ax=axes, label=f"valid {study.metric}")


def _height(dimension, stored):
    """Where a value stands on its axis, from 0 to 1."""
    if dimension.kind == "choice":
        return list(dimension.choices).index(stored) / max(1, len(dimension.choices) - 1)
    low, high, value = (map(math.log, (dimension.low, dimension.high, stored)) if dimension.kind == "log_uniform" else (dimension.low, dimension.high, stored))
    return (value - low) / (high - low)
