"""Seconds until two finished runs reach the same validation NDCG@10, and where each ends.

    python run_recbole_molar.py --model=SASRec --dataset=ml-100k --train_all_positions=False
    python run_recbole_molar.py --model=SASRec --dataset=ml-100k --train_all_positions=True
    python tests/benchmarks/convergence.py saved/ml-100k/SASRec-<the first> saved/ml-100k/SASRec-<the second>

The goal is the best validation NDCG@10 of the first run. Seconds are training and validation together. The runs must share a split.
"""

import json
import sys
from pathlib import Path


def read(folder):
    """Result and curve of a run folder."""
    folder = Path(folder)
    return json.loads((folder / "result.json").read_text()), json.loads((folder / "curve.json").read_text())


def seconds_to(curve, goal, metric):
    """Seconds and epochs until the metric reaches the goal, or None."""
    total = 0.0
    for entry in curve:
        total += entry["train_seconds"] + entry.get("valid_seconds", 0.0)
        if entry.get("valid", {}).get(metric, -1.0) >= goal:
            return total, entry["epoch"]
    return None


def main(first, second, metric="ndcg@10"):
    """Print both runs."""
    (result_1, curve_1), (result_2, curve_2) = read(first), read(second)
    if result_1["split_hash"] != result_2["split_hash"]:
        raise SystemExit("error: the two runs have different splits (split_hash in result.json)")
    goal = result_1["best_valid_result"][metric]
    print(f"goal: validation {metric} {goal:.4f}")
    reached = []
    for result, curve in ((result_1, curve_1), (result_2, curve_2)):
        reached.append(seconds_to(curve, goal, metric))
        when = f"after {reached[-1][0]:.0f} s, epoch {reached[-1][1]}" if reached[-1] else "never"
        valid, test = result["best_valid_result"][metric], result["test_result"][metric]
        print(f"{result['model']} [{result['training']}]: goal {when}; ends at valid {valid:.4f}, test {test:.4f}, {len(curve)} epochs")
    if all(reached):
        print(f"ratio of seconds to the goal: {reached[0][0] / reached[1][0]:.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
