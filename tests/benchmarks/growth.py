"""How seconds and memory grow with the number of items and of users, on generated data; each size in a process of its own.

    OMP_NUM_THREADS=1 python -m tests.benchmarks --rows=[growth]           # the last step of each axis
    OMP_NUM_THREADS=1 python tests/benchmarks/growth.py                    # 1 k to 300 k items, 10 k to 1 M users
    OMP_NUM_THREADS=1 python tests/benchmarks/growth.py --quick            # up to 10 k items and 100 k users

Loading and evaluation are run whole, training and encoding by a few batches and scaled. An epoch costs users x items with a softmax over the
whole catalogue, so each axis alone must be linear. The peak is the process's, with Python and PyTorch (0.5 GiB).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
from side_by_side import HEADER, Row, machine  # noqa: E402

AXES = {  # (items, users) of each size; interactions of a user: all items must occur
    "items": ([(n, 10_000) for n in (1_000, 10_000, 100_000, 300_000)], 33),
    "users": ([(10_000, n) for n in (10_000, 100_000, 1_000_000)], 12),
}
STEPS, ENCODED = 4, 512
LINEAR = 0.8  # least ratio that counts as linear: two measurements differ by as much
STAGES = ("load", "epoch", "evaluation", "encoding")


def generate(folder, n_items, n_users, length):
    """Write `growth.inter`, every item at least once, and `growth.item` with texts of 5 to 40 words."""
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(0)
    items = (draw.random((n_users, length)) ** 3 * n_items).astype(np.int64)  # a few popular ones
    items.ravel()[draw.permutation(items.size)[:n_items]] = np.arange(n_items)
    columns = {"user_id:token": np.repeat(np.arange(n_users), length), "item_id:token": items.ravel(), "timestamp:float": np.tile(np.arange(length), n_users)}
    pd.DataFrame(columns).to_csv(folder / "growth.inter", sep="\t", index=False)
    words = np.array("soft blue cotton dress classic fit running shoes waterproof jacket elegant summer leather slim long warm".split())
    with open(folder / "growth.item", "w", encoding="utf-8") as file:
        file.write("item_id:token\ttitle:token_seq\n")
        file.writelines(f"{item}\tNo {item} {' '.join(draw.choice(words, draw.integers(5, 41)))}\n" for item in range(n_items))


def one_size(n_items, n_users, history):
    """CPU seconds of each stage and the peak, GiB; in this process."""
    import torch

    from all_positions import FirstBatches
    from recbole_molar.config import Config
    from recbole_molar.device import make_accelerator
    from recbole_molar.quick_start import prepare, read_content
    from recbole_molar.run_folder import peak_resident
    from recbole_molar.stages import build_mirm
    from recbole_molar.utils import get_trainer, make_model

    seconds, peaks = {}, {}

    def timed(stage, work, scale=1.0):
        start = time.process_time()
        result = work()
        seconds[stage] = round((time.process_time() - start) * scale, 2)
        peaks[stage] = round(peak_resident() / 2**30, 2)
        return result

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "growth"
        folder.mkdir()
        generate(folder, n_items, n_users, history)
        given = {"dataset": "growth", "data_path": temporary, "use_cpu": True, "show_progress": False, "precision": "fp32"}
        config = Config(config_dict={**given, "model": "SASRec"})
        accelerator = make_accelerator("fp32", use_cpu=True)
        prepared = timed("load", lambda: prepare(config))
        train, valid, _ = prepared.loaders
        model = make_model(prepared.model_class, config, train._dataset)
        trainer = get_trainer(config)(config, model, accelerator, temporary)
        trainer._train_epoch(FirstBatches(train, 1), 0)  # warm-up
        timed("epoch", lambda: trainer._train_epoch(FirstBatches(train, STEPS), 0), len(train) / min(STEPS, len(train)))
        trainer.eval_collector.data_collect(train)
        timed("evaluation", lambda: trainer.evaluate(valid, load_best_model=False))
        if history == AXES["items"][1]:
            config = Config(config_dict={**given, "model": "Molar", "item_modalities": ["text"], "align_weight": 0})
            mirm = build_mirm(config, read_content(config, prepared.dataset)).eval()
            with torch.no_grad():
                timed("encoding", lambda: mirm.encode_items(range(1, ENCODED + 1)), n_items / ENCODED)
    return {"items": n_items, "users": n_users, "seconds": seconds, "peaks": peaks}


def measured(n_items, n_users, history):
    """:func:`one_size` in a new process."""
    words = [sys.executable, __file__, "--items", str(n_items), "--users", str(n_users), "--history", str(history)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {n_items} items, {n_users} users: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(given):
    """Rows of `python -m tests.benchmarks`: each stage, and the peak, at the largest size of an axis beside the size before it times the growth."""
    for axis, (sizes, history) in AXES.items():
        yield from growth(axis, *(measured(*size, history) for size in sizes[-2:]))


def growth(axis, before, after):
    """Rows from two sizes of an axis, as :func:`one_size` gives them."""
    times = after[axis] / before[axis]
    for stage in after["seconds"]:
        against = f"{times:.0f} times the seconds of {before[axis]:,}"
        yield Row(f"{stage}, {after[axis]:,} {axis}", against, after["seconds"][stage], times * before["seconds"][stage], LINEAR, "linear is 1")
    peaks = [max(size["peaks"].values()) for size in (before, after)]
    against = f"{times:.0f} times the GiB of {before[axis]:,}"
    yield Row(f"peak memory, {after[axis]:,} {axis}", against, peaks[1], times * peaks[0], LINEAR, "GiB, not seconds")


def main():
    """Print a table for each axis, and the rows of its last step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int)
    parser.add_argument("--users", type=int)
    parser.add_argument("--history", type=int)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    if chosen.items:
        print(json.dumps(one_size(chosen.items, chosen.users, chosen.history)))
        return
    print(machine())
    for axis, (sizes, history) in AXES.items():
        heads = " | ".join(f"{stage}, CPU s | peak, GiB" for stage in STAGES)
        print(f"\n{history} interactions a user\n\n| items | users | {heads} |\n|{'---|' * (2 + 2 * len(STAGES))}")
        found = []
        for n_items, n_users in sizes[:2] if chosen.quick else sizes:
            found.append(measured(n_items, n_users, history))
            cells = (f"{found[-1]['seconds'].get(stage, '')} | {found[-1]['peaks'].get(stage, '')}" for stage in STAGES)
            print(f"| {n_items:,} | {n_users:,} | {' | '.join(cells)} |", flush=True)
        print("", HEADER, *growth(axis, *found[-2:]), sep="\n")


if __name__ == "__main__":
    main()
