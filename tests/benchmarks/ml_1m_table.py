"""The README's ml-1m table: runs what is missing, goes on with what was cut, prints means and standard deviations over the seeds.

    OMP_NUM_THREADS=2 python tests/benchmarks/ml_1m_table.py --data_path=../shared/data --output_dir=saved/table --seeds=[2020,2021,2022]

Each row is one command of `run_recbole_molar.py`; `--rows=[SASRec,Molar]` runs some of them. Give two processes different rows or seeds to use
two cores. The epoch is chosen on validation by every run itself; the table shows test figures.
"""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from recbole_molar.command_line import parse_command_line  # noqa: E402

ROWS = {
    "Popularity": ["--model=Popularity"],
    "SASRec": ["--config_files=properties/recipe/sasrec-ml-1m.yaml"],
    "Molar": ["--model=Molar"],
    "Molar without alignment": ["--model=Molar", "--align_weight=0"],
    "Molar text only": ["--model=Molar", "--item_modalities=[text]"],
}
METRICS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20")


def run(name, seed, given):
    """Result of one row and seed: from its log if it is done, else by running it, or going on with it."""
    log = Path(given["output_dir"]) / "logs" / f"{name.replace(' ', '-')}-{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "run_recbole_molar.py")]
    folder = re.search(r"run folder (.+?), device", log.read_text()) if log.is_file() else None
    if folder and Path(folder[1]).is_dir():
        result = Path(folder[1]) / "result.json"
        if result.is_file():
            return json.loads(result.read_text())
        words = [f"--resume={folder[1]}"]
    else:
        words = [*ROWS[name], "--dataset=ml-1m", f"--seed={seed}", *(f"--{key}={value}" for key, value in given.items())]
    print(f"{name}, seed {seed}: {' '.join(words)}", flush=True)
    with open(log, "a", encoding="utf-8") as file:
        subprocess.run([*command, *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=True)
    return json.loads(Path(log.read_text().strip().splitlines()[-1]).read_text())


def main():
    """Run, then print the table as Markdown."""
    given = parse_command_line(sys.argv[1:])
    seeds, rows = given.pop("seeds", [2020]), given.pop("rows", list(ROWS))
    given["output_dir"] = str(Path(given.get("output_dir", "saved")).resolve())
    given["data_path"] = str(Path(given["data_path"]).resolve())
    print(f"| | {' | '.join(METRICS)} | valid ndcg@10 | epochs | minutes | GiB |")
    for name in rows:
        results = [run(name, seed, given) for seed in seeds]
        cells = []
        for of, metric in [("test_result", metric) for metric in METRICS] + [("best_valid_result", "ndcg@10")]:
            values = [result[of][metric] for result in results]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        epochs = ", ".join(str(result["epochs_run"]) for result in results)
        minutes = ", ".join(f"{result['total_seconds'] / 60:.0f}" for result in results)
        memory = max(result["peak_memory"]["cpu"] for result in results)
        print(f"| {name} | {' | '.join(cells)} | {epochs} | {minutes} | {memory:.1f} |", flush=True)


if __name__ == "__main__":
    main()
