"""Seconds until training on all positions reaches the best validation NDCG@10 of training on prefixes, and where each ends.

    OMP_NUM_THREADS=1 python -m tests.benchmarks --rows=[convergence]               # SASRec, ml-100k, RecBole's defaults: more than an hour
    python tests/benchmarks/convergence.py saved/ml-100k/SASRec-<on prefixes> saved/ml-100k/SASRec-<on all positions>      # of finished runs

Seconds are training and validation together. The runs must share a split.
"""

import json
import sys
import tempfile
from pathlib import Path

from side_by_side import HEADER, Row

METRIC = "ndcg@10"


def measure(given):
    """Rows of `python -m tests.benchmarks`: both runs are made."""
    from recbole_molar.quick_start import run

    own = {name: value for name, value in given.items() if name not in ("dataset", "data_path")}
    with tempfile.TemporaryDirectory() as folder:
        options = {**own, "model": "SASRec", "dataset": "ml-100k", "use_cpu": True, "output_dir": folder, "show_progress": False, "state": "ERROR"}
        files = [
            run([f"--{name}={value}" for name, value in {**options, "train_all_positions": everywhere}.items()])["result_file"] for everywhere in (False, True)
        ]
        yield from compared(*(Path(file).parent for file in files))


def compared(prefixes, everywhere):
    """Two rows from the folders of two finished runs: to the best validation figure of the prefixes, and of each run to its own best."""
    (theirs, their_curve), (ours, our_curve) = read(prefixes), read(everywhere)
    if theirs["split_hash"] != ours["split_hash"]:
        raise SystemExit("error: the two runs have different splits (split_hash in result.json)")
    goal, best = (result["best_valid_result"][METRIC] for result in (theirs, ours))
    tests = [result["test_result"][METRIC] for result in (theirs, ours)]
    note = f"seconds, not CPU seconds; seed {ours['seed']}; valid {goal:.4f} there and {best:.4f} here, test {tests[0]:.4f} and {tests[1]:.4f}"
    there = seconds_to(their_curve, goal)
    what = f"to the best validation NDCG@10 of {theirs['model']}, {theirs['dataset']}"
    yield Row(what, theirs["training"], seconds_to(our_curve, goal), there, 30, note)
    yield Row("the same, each to its own best", theirs["training"], seconds_to(our_curve, best), there, None, note)


def read(folder):
    """Result and curve of a run folder."""
    folder = Path(folder)
    return json.loads((folder / "result.json").read_text()), json.loads((folder / "curve.json").read_text())


def seconds_to(curve, goal):
    """Seconds until the metric reaches the goal; infinite if it never does."""
    total = 0.0
    for entry in curve:
        total += entry["train_seconds"] + entry.get("valid_seconds", 0.0)
        if entry.get("valid", {}).get(METRIC, -1.0) >= goal:
            return total
    return float("inf")


if __name__ == "__main__":
    print(HEADER, *compared(*sys.argv[1:3]), sep="\n")
