"""Estimated beside measured: a finished run's `result.json` against the estimate for its own properties."""

from dataclasses import dataclass
from pathlib import Path

from recbole_molar.checkpoint import read_json
from recbole_molar.run_folder import CONFIG, RESULT


@dataclass
class Finished:
    """A finished run: its configuration file and its result."""

    config_file: Path
    result: dict


def finished_run(folder):
    """The run that `--run` names.

    Raises:
        ValueError: not the folder of a finished run.
    """
    folder = Path(str(folder))
    for name in (CONFIG, RESULT):
        if not (folder / name).is_file():
            raise ValueError(f"--run={folder}: holds no {name}; give the folder of a finished run, <output_dir>/<dataset>/<model>-<time>-<hash>.")
    return Finished(folder / CONFIG, read_json(folder / RESULT, "model", "seconds", "peak_memory"))


def compare(estimate, finished):
    """Stage by stage, the estimate brought to the epochs that the run took.

    Returns:
        dict: `stages` (name -> `estimated` and `measured` seconds, `ratio`, `note`), `peak_gib` likewise, the run's parameters and threads, and
        whether the model is the same.
    """
    result, rows = finished.result, {}
    for name, stage in estimate["stages"].items():
        measured, epochs, note = _measured(name, result)
        if "skipped" in stage:
            rows[name] = _row(None, None, stage["about"])
            continue
        estimated = stage.get("seconds")
        if name == "item_embedding" and measured and result.get("stage_1", {}).get("reused") and estimated and measured < estimated / 10:
            measured, note = None, "reused"
        if epochs is not None and "epoch_seconds" in stage:
            share = stage["validations"] / max(stage["epochs"], 1)
            estimated = stage["once_seconds"] + epochs * (stage["epoch_seconds"] + share * stage["validation_seconds"])
            note = f"epochs: {epochs}"
        rows[name] = _row(estimated, measured, note)
    peak = result["peak_memory"].get("cuda", result["peak_memory"]["cpu"])
    same = result.get("parameters") in (None, estimate["parameters"])
    return {
        "stages": rows, "peak_gib": _row(estimate["peak_gib"], peak, ""), "same_model": same, "parameters": result.get("parameters"),
        "threads": result.get("machine", {}).get("threads"),
    }


def _measured(name, result):
    """Seconds, epochs where known, and a note; no seconds for a stage whose result was reused."""
    seconds = result["seconds"].get(name)
    if name == "mirm_finetune":
        stage_1 = result.get("stage_1", {})
        return (stage_1.get("seconds"), None, "of the run that made it") if stage_1.get("reused") else (seconds, None, "")
    if name == "tuning" or name.startswith("id_model"):
        notes = result.get(name, {})
        return (None, None, "reused") if notes.get("reused") else (seconds, notes.get("epochs_run"), "" if "epochs_run" in notes else "at most")
    return seconds, result.get("epochs_run") if name == result["model"] else None, ""


def _row(estimated, measured, note):
    known = estimated is not None and measured
    return {
        "estimated": None if estimated is None else round(estimated, 2), "measured": measured, "ratio": round(estimated / measured, 2) if known else None,
        "note": note,
    }
