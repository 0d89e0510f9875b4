"""How OpenMP's threads wait for each other: python tests/benchmarks/waiting.py

A run of SASRec on ml-100k with two threads or more, alone, beside a busy process, and twice at once: wall-clock seconds of its training with the
program's `GOMP_SPINCOUNT` and with libgomp's own default (300,000). Let nothing else run.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
from recbole_molar.__main__ import wait_without_spinning  # noqa: E402
from side_by_side import machine  # noqa: E402

wait_without_spinning()
THREADS = max(2, os.cpu_count() // 2)
SPINS = {"ours": os.environ["GOMP_SPINCOUNT"], "libgomp's": "300000"}
BUSY = [sys.executable, "-c", "while True: pass"]


def start(spins, folder):
    """A run in a process of its own."""
    command = [sys.executable, "-m", "recbole_molar", "run", "--model=SASRec", "--dataset=ml-100k", "--epochs=3", f"--output_dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "GOMP_SPINCOUNT": spins}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def training_seconds(spins, runs, busy):
    """Seconds that the slowest of some runs at once needs for its training."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as others:
        for _ in range(busy):
            others.callback(subprocess.Popen(BUSY).kill)
        processes = [start(spins, Path(folder) / str(index)) for index in range(runs)]
        assert not any([process.wait() for process in processes])
        return max(json.loads(file.read_text())["SASRec"] for file in Path(folder).glob("*/ml-100k/*/seconds.json"))


def main():
    """Print the table; each cell the least of two rounds in turns."""
    print(f"{machine()}; {THREADS} threads a run\n\n| | {' | '.join(f'{name}, s' for name in SPINS)} |\n|---|---:|---:|")
    for what, runs, busy in (("alone", 1, 0), ("beside a busy process", 1, 1), ("two runs at once", 2, 0)):
        found = [[training_seconds(spins, runs, busy) for spins in SPINS.values()] for _ in range(2)]
        print(f"| {what} | {' | '.join(f'{min(cell):.1f}' for cell in zip(*found))} |", flush=True)


if __name__ == "__main__":
    main()
