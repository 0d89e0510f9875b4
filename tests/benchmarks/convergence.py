"""Seconds until training on all positions reaches the best validation NDCG@10 of training on prefixes, and where each ends.

    OMP_NUM_THREADS=1 python -m tests.benchmarks --rows=[convergence]               # SASRec, ml-100k, RecBole's defaults: more than an hour
    python tests/benchmarks/convergence.py saved/ml-100k/SASRec-<on prefixes> saved/ml-100k/SASRec-<on all positions>      # of finished runs

Seconds are training and validation together. The runs must share a split.
"""

import json
import sys
import tempfile
from pathlib import Path

METRIC = "ndcg@10"


def measure(given):
    """Two rows of `python -m tests.benchmarks`: to the best validation figure of the prefixes, and of each run to its own best."""
    from recbole_molar.quick_start import run
    from side_by_side import Row

    own = {name: value for name, value in given.items() if name not in ("dataset", "data_path")}
    with tempfile.TemporaryDirectory() as folder:
        options = {**own, "model": "SASRec", "dataset": "ml-100k", "use_cpu": True, "output_dir": folder, "show_progress": False, "state": "ERROR"}
        files = [
            run([f"--{name}={value}" for name, value in {**options, "train_all_positions": everywhere}.items()])["result_file"] for everywhere in (False, True)
        ]
        (theirs, their_curve), (ours, our_curve) = (read(Path(file).parent) for file in files)
    ends = f"valid {theirs['best_valid_result'][METRIC]:.4f} there and {ours['best_valid_result'][METRIC]:.4f} here, " \
        f"test {theirs['test_result'][METRIC]:.4f} and {ours['test_result'][METRIC]:.4f}"
    goal = theirs["best_valid_result"][METRIC]
    there, reached, best = seconds_to(their_curve, goal), seconds_to(our_curve, goal), seconds_to(our_curve, ours["best_valid_result"][METRIC])
    note = f"seconds, not CPU seconds; seed {ours['seed']}; {ends}"
    seconds = reached[0] if reached else float("inf")
    yield Row("to the best validation NDCG@10 of SASRec, ml-100k", "one row for each prefix", seconds, there[0], 30, note)
    yield Row("the same, each to its own best", "one row for each prefix", best[0], there[0], None, note)


def read(folder):
    """Result and curve of a run folder."""
    folder = Path(folder)
    return json.loads((folder / "result.json").read_text()), json.loads((folder / "curve.json").read_text())


def seconds_to(curve, goal):
    """Seconds and epochs until the metric reaches the goal, or None."""
    total = 0.0
    for entry in curve:
        total += entry["train_seconds"] + entry.get("valid_seconds", 0.0)
        if entry.get("valid", {}).get(METRIC, -1.0) >= goal:
            return total, entry["epoch"]
    return None


def main(first, second):
    """Print both runs."""
    (result_1, curve_1), (result_2, curve_2) = read(first), read(second)
    if result_1["split_hash"] != result_2["split_hash"]:
        raise SystemExit("error: the two runs have different splits (split_hash in result.json)")
    goal = result_1["best_valid_result"][METRIC]
    print(f"goal: validation {METRIC} {goal:.4f}")
    reached = []
    for result, curve in ((result_1, curve_1), (result_2, curve_2)):
        reached.append(seconds_to(curve, goal))
        when = f"after {reached[-1][0]:.0f} s, epoch {reached[-1][1]}" if reached[-1] else "never"
        valid, test = result["best_valid_result"][METRIC], result["test_result"][METRIC]
        print(f"{result['model']} [{result['training']}]: goal {when}; ends at valid {valid:.4f}, test {test:.4f}, {len(curve)} epochs")
    if all(reached):
        print(f"ratio of seconds to the goal: {reached[0][0] / reached[1][0]:.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
