"""Charts of the comparison's figures: learning curves, metric@K, differences, segments, cost."""

import numpy as np

from recbole_molar.compare.per_user import read_ranks, user_metric
from recbole_molar.compare.report.chart import Series, dots, intervals, lines, scatter
from recbole_molar.compare.runs import read_curve
from recbole_molar.compare.tables import SIGNIFICANT
from recbole_molar.run_folder import RANKS

LARGEST_K = 50
NOT_A_LOSS = {"epoch", "train_seconds", "valid", "valid_seconds", "best"}


def read_curves(found):
    """Learning curves by model: list of (label, list of (seed, entries)). A run without one has no entries."""
    curves = []
    for model in found["models"]:
        curves.append((model["label"], [(seed, read_curve(folder)) for seed, folder in zip(model["seeds"], model["folders"])]))
    return curves


def validation_charts(found, curves):
    """The validation metric by epoch and by seconds: {button: svg}; models that do not learn over epochs are left out."""
    metric, charts = found["valid_metric"], {}
    for axis in ("epoch", "seconds"):
        series = []
        for colour, (label, runs) in enumerate(curves):
            for seed, entries in runs:
                points, tips, best, elapsed = [], [], [], 0.0
                for entry in entries:
                    elapsed += entry["train_seconds"] + entry.get("valid_seconds", 0.0)
                    if metric in entry.get("valid", {}):
                        value = entry["valid"][metric]
                        points.append((entry["epoch"] if axis == "epoch" else elapsed, value))
                        tips.append(f"{label}, seed {seed}, epoch {entry['epoch']}, {elapsed:,.0f} s: {value:.4f}")
                        best = [len(points) - 1] if entry.get("best") else best
                if len(points) > 1:
                    series.append(Series(label, colour, points, tips, best))
        charts[axis] = lines(series, "epoch" if axis == "epoch" else "seconds of training and validation", f"validation {metric}")
    return charts if charts["epoch"] else {}


def loss_charts(curves):
    """Each part of the loss by epoch: {name: svg}. Models that share a part's name share a chart."""
    parts = {}
    for colour, (label, runs) in enumerate(curves):
        for seed, entries in runs:
            for name in dict.fromkeys(key for entry in entries for key in entry if key not in NOT_A_LOSS):
                rows = [(entry["epoch"], entry[name]) for entry in entries if isinstance(entry.get(name), int | float)]
                if len(rows) > 1:
                    tips = [f"{label}, seed {seed}, epoch {epoch}: {value:.4g}" for epoch, value in rows]
                    parts.setdefault(name, []).append(Series(label, colour, rows, tips, []))
    return {name: lines(series, "epoch", f"{name}, training loss") for name, series in parts.items()}


def metric_at_k(found):
    """Metrics by K with the range over seeds, {metric: svg}: any K can be had from the ranks."""
    names = list(dict.fromkeys(metric.partition("@")[0] for metric in found["metrics"]))
    series = {name: [] for name in names}
    for colour, model in enumerate(found["models"]):
        ranks = [read_ranks(f"{folder}/{RANKS}") for folder in model["folders"]]
        for name in names:
            ks = range(1, LARGEST_K + 1)
            values = np.array([[user_metric(one, f"{name}@{k}").mean() for k in ks] for one in ranks])  # [S, K]
            mean = values.mean(0)
            tips = [f"{model['label']}: {name}@{k} {value:.4f}" for k, value in zip(ks, mean)]
            band = list(zip(ks, values.min(0), values.max(0))) if len(values) > 1 else []
            series[name].append(Series(model["label"], colour, list(zip(ks, mean)), tips, [], band))
    return {name: lines(some, "K", f"{name}@K") for name, some in series.items()}


def difference_charts(found):
    """Differences from the reference with their intervals, {metric: svg}, the validation metric first."""
    colours = {model["label"]: index for index, model in enumerate(found["models"])}
    charts = {}
    for metric in sorted(found["metrics"], key=lambda metric: metric != found["valid_metric"]):
        rows = []
        for one in (one for one in found["differences"] if one["metric"] == metric):
            note, interval = f"{one['mean']:+.4f} ({one['relative']:+.1%})", f"[{one['low']:+.4f}, {one['high']:+.4f}]"
            tip = f"{one['model']} − {found['reference']}: {one['mean']:+.4f} {interval}, p {one['p_holm']:.2g} after Holm"
            rows.append((one["model"], note, colours[one["model"]], one["mean"], one["low"], one["high"], one["p_holm"] < SIGNIFICANT, tip))
        charts[metric] = intervals(rows, f"{metric}, difference from {found['reference']}")
    return charts if found["differences"] else {}


def segment_charts(found):
    """The validation metric in each segment, {axis: svg}."""
    metric, charts = found["valid_metric"], {}
    for axis, parts in found["segment_users"].items():
        rows = [
            (name, f"{users:,} users", [
                (colour, model["segments"][axis][name][metric], f"{model['label']}, {name}: {model['segments'][axis][name][metric]:.4f}")
                for colour, model in enumerate(found["models"])
            ])
            for name, users in parts.items()
        ]  # fmt: skip
        if rows:
            charts[axis] = dots(rows, metric)
    return charts


def cost_charts(found):
    """Accuracy against what it costs, costs on a log scale: {title: svg}; without models whose cost is not known."""
    metric, charts = found["valid_metric"], {}
    for key, title, unit, least in (("train_seconds", "Training", "seconds", 1.0), ("latency_ms", "One user's recommendations", "ms", 0.01)):
        points = [
            (
                model["label"], colour, max(least, model["cost"][key]), model["test"][metric]["mean"], model["test"][metric]["std"],
                f"{model['label']}: {model['test'][metric]['mean']:.4f} for {model['cost'][key]:,.4g} {unit}",
            )
            for colour, model in enumerate(found["models"]) if model["cost"][key] is not None
        ]  # fmt: skip
        if points:
            charts[title] = scatter(points, unit, f"test {metric}", log_x=True)
    return charts
