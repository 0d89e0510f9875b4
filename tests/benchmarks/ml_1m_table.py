"""The README's ml-1m table: runs what is missing, goes on with what was cut, prints means and standard deviations over the seeds.

    OMP_NUM_THREADS=2 python tests/benchmarks/ml_1m_table.py --data_path=../shared/data --output_dir=saved/table --seeds=[2020,2021,2022]

Each row is one command of `run_recbole_molar.py`; `--rows=[SASRec,Molar]` runs some of them. Give two processes different rows or seeds to use
two cores. The epoch is chosen on validation by every run itself; the table shows test figures. A finished SASRec of the same seed, whose
training is that of Molar's ID stage, is handed to Molar (`id_weights`) instead of being trained twice.
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
    "Molar with ID residual": ["--model=Molar", "--item_id_residual=True"],
    "Molar without alignment": ["--model=Molar", "--align_weight=0"],
    "Molar text only": ["--model=Molar", "--item_modalities=[text]"],
}
METRICS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20")


def finished(name, seed, given):
    """Log of a row and seed, and its run folder: None before it starts; whether it is done."""
    log = Path(given["output_dir"]) / "logs" / f"{name.replace(' ', '-')}-{seed}.log"
    found = re.search(r"run folder (.+?), device", log.read_text()) if log.is_file() else None
    folder = Path(found[1]) if found and Path(found[1]).is_dir() else None
    return log, folder, bool(folder and (folder / "result.json").is_file())


def run(name, seed, given):
    """Result of one row and seed: from its run folder if it is done, else by running it, or going on with it."""
    log, folder, done = finished(name, seed, given)
    if not done:
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [f"--resume={folder}"] if folder else [*ROWS[name], "--dataset=ml-1m", f"--seed={seed}", *(f"--{key}={value}" for key, value in given.items())]
        _, id_model, id_done = finished("SASRec", seed, given)
        if id_done and not folder and name.startswith("Molar"):
            words.append(f"--id_weights={id_model}")
        print(f"{name}, seed {seed}: {' '.join(words)}", flush=True)
        with open(log, "a", encoding="utf-8") as file:
            subprocess.run([sys.executable, str(ROOT / "run_recbole_molar.py"), *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=True)
        _, folder, _ = finished(name, seed, given)
    return json.loads((folder / "result.json").read_text())


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
