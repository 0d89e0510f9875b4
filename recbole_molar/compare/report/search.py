"""Charts of a search, from the `search.json` that `tune` leaves: trial by trial, epoch by epoch, and property by property."""

from pathlib import Path

from recbole_molar.checkpoint import read_json
from recbole_molar.compare.report.chart import Series, dots, lines
from recbole_molar.compare.runs import SEARCH

SEARCH_KEYS = ("model", "dataset", "metric", "dimensions", "trials", "best", "default", "importances", "bigger")
COMPLETE, PRUNED = "complete", "pruned"


def search_panels(found):
    """What the comparison's page shows of each search: list of dict; models that were not tuned have none."""
    panels = []
    for model in found["models"]:
        if not (model.get("tuned") or {}).get("folder"):
            continue
        search = read_json(Path(model["tuned"]["folder"]) / SEARCH, *SEARCH_KEYS)
        values = {trial["number"]: trial["value"] for trial in search["trials"]}
        panels.append({
            "label": model["label"], "trials": len(search["trials"]), "history": history(search), "importance": importance(search),
            "best": values[search["best"]], "default": values.get(search["default"]),
        })
    return panels


def history(search):
    """Each trial's validation figure in turn, and the best so far."""
    better, best, so_far = max if search["bigger"] else min, None, []
    for trial in _with_value(search):
        if trial["state"] == COMPLETE:
            so_far += [(trial["number"], best)] if best is not None else []  # a step, not a slope
            best = trial["value"] if best is None else better(best, trial["value"])
            so_far.append((trial["number"], best))
    return lines([Series("best so far", 0, so_far, marks=[]), *_points(search, lambda trial: trial["number"])], "trial", f"valid {search['metric']}")


def curves(search):
    """Validation by epoch of every trial, the best in colour."""
    order = sorted((trial for trial in search["trials"] if len(trial["curve"]) > 1), key=lambda trial: trial["number"] == search["best"])
    series = [
        Series(f"trial {trial['number']}", 0 if trial["number"] == search["best"] else 7, [(epoch + 1, value) for epoch, value in trial["curve"]], marks=[])
        for trial in order
    ]
    return lines(series, "epoch", f"valid {search['metric']}")


def importance(search):
    """How much each property explains, the greatest first; empty with too few trials."""
    return dots([(key, "", [(0, value, f"{key}: {value:.2f}")]) for key, value in search["importances"].items()], "importance")


def slices(search):
    """Figure against value, for each property: {key: svg}."""
    charts = {}
    for dimension in search["dimensions"]:
        key, found = dimension["key"], [trial for trial in _with_value(search) if dimension["key"] in trial["values"]]
        if dimension["kind"] == "choice":
            names = [name for name in dimension["choices"] if any(str(trial["values"][key]) == name for trial in found)]
            rows = [(name, "", [(_colour(trial), trial["value"], _tip(trial)) for trial in found if str(trial["values"][key]) == name]) for name in names]
            charts[key] = dots(rows, f"valid {search['metric']}", from_zero=False)
        else:
            points = _points(search, lambda trial, key=key: trial["values"].get(key))
            charts[key] = lines(points, key, f"valid {search['metric']}", log_x=dimension["kind"] == "log_uniform")
    return {key: svg for key, svg in charts.items() if svg}


def _points(search, place):
    """Trials as points without a line: ended ones, then those that were cut."""
    series = []
    for state, is_open in ((PRUNED, True), (COMPLETE, False)):
        some = [trial for trial in _with_value(search) if trial["state"] == state and place(trial) is not None]
        points, tips = [(place(trial), trial["value"]) for trial in some], [_tip(trial) for trial in some]
        series.append(Series(state, _colour(some[0]) if some else 0, points, tips, joined=False, open=is_open))
    return series


def _with_value(search):
    return [trial for trial in search["trials"] if trial["value"] is not None and trial["state"] in (COMPLETE, PRUNED)]


def _colour(trial):
    return 0 if trial["state"] == COMPLETE else 7


def _tip(trial):
    values = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in trial["values"].items())
    return f"trial {trial['number']}: {trial['value']:.4f} ({values})"
