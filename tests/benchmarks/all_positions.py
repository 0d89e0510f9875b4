"""Seconds an epoch of SASRec: all positions of a history at once against RecBole's one row for each prefix, in one process.

    OMP_NUM_THREADS=1 python tests/benchmarks/all_positions.py --dataset=ml-100k
    OMP_NUM_THREADS=1 python tests/benchmarks/all_positions.py --dataset=ml-1m --data_path=../shared/data --prefix_batches=20

Both train the same targets of the same data with RecBole's own sizes; any `--key=value` of a run can be given. Prefixes are trained in float32, as
RecBole does, all positions as a run does here (`precision`: bfloat16 in the products of the cross-entropy where the CPU has it). Prefix training may
take many minutes an epoch: `--prefix_batches=n` times its first n batches and scales to the epoch, and the output says so. The two take turns.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).parents[2]))
from recbole_molar.command_line import parse_command_line  # noqa: E402
from recbole_molar.config import Config  # noqa: E402
from recbole_molar.device import make_accelerator  # noqa: E402
from recbole_molar.quick_start import prepare  # noqa: E402
from recbole_molar.utils import get_trainer, make_model  # noqa: E402
from recbole.utils import init_seed  # noqa: E402


class FirstBatches:
    """The first n batches of a loader."""

    def __init__(self, loader, n):
        self.loader, self.n = loader, min(n or len(loader), len(loader))

    def __len__(self):
        return self.n

    def __iter__(self):
        for _, batch in zip(range(self.n), self.loader, strict=False):
            yield batch


def epoch_seconds(given, folder, n_batches=None):
    """CPU and wall seconds of one epoch (scaled, if only n batches are run), its targets, and how it was trained."""
    config = Config(config_dict={"model": "SASRec", "dataset": "ml-100k", "show_progress": False, **given})
    init_seed(config["seed"], True)
    prepared = prepare(config)
    build = make_model if config["train_all_positions"] else lambda kind, *options: kind(*options).to(config["device"])  # RecBole's layers as they are
    model = build(prepared.model_class, config, prepared.loaders[0]._dataset)
    AcceleratorState._reset_state()  # it knows one precision
    precision = config["precision"] if config["train_all_positions"] else "fp32"
    trainer = get_trainer(config)(config, model, make_accelerator(precision, use_cpu=config["device"].type == "cpu"), folder)
    loader = prepared.loaders[0]
    trainer._train_epoch(FirstBatches(loader, 2), 0)  # warm-up
    batches = FirstBatches(loader, n_batches)
    cpu, wall = time.process_time(), time.time()
    trainer._train_epoch(batches, 0)
    scale = len(loader) / len(batches)
    return (time.process_time() - cpu) * scale, (time.time() - wall) * scale, len(loader), prepared.note


def measure(given):
    """Rows of `python -m tests.benchmarks`: an epoch on ml-100k, and on the given data set, as a run computes and in float32 throughout; prefixes are timed
    by 5 batches and scaled."""
    from side_by_side import Row

    for one in [{"dataset": "ml-100k"}] + [{"dataset": "ml-1m", **given}] * ("data_path" in given):
        with tempfile.TemporaryDirectory() as folder:
            everywhere, ways = {**one, "train_all_positions": True}, {"as a run computes here": "auto", "float32 throughout": "fp32"}
            ours = {way: min(epoch_seconds({**everywhere, "precision": precision}, folder)[0] for _ in range(2)) for way, precision in ways.items()}
            theirs, _, steps, _ = epoch_seconds({**one, "train_all_positions": False}, folder, 5)
        for way, seconds in ours.items():
            note = f"{way}; scaled from 5 of {steps} batches"
            yield Row(f"an epoch of SASRec, {one['dataset']}, RecBole's sizes", "one row for each prefix", seconds, theirs, 50, note)


def main():
    """Print both sides and their ratio."""
    given = parse_command_line(sys.argv[1:])
    n_batches, rounds = given.pop("prefix_batches", None), given.pop("rounds", 3)
    ratios = []
    print(f"{torch.get_num_threads()} thread(s)")
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            figures = {}
            for name, everywhere in (("all positions", True), ("prefixes", False)):
                cpu, wall, steps, note = epoch_seconds({**given, "train_all_positions": everywhere}, folder, None if everywhere else n_batches)
                scaled = f" (scaled from {n_batches} batches)" if n_batches and not everywhere else ""
                print(f"{name:14} {cpu:9.1f} CPU s  {wall:9.1f} wall s an epoch of {steps} steps{scaled}  [{note}]", flush=True)
                figures[name] = cpu
            ratios.append(figures["prefixes"] / figures["all positions"])
    print(f"ratio of CPU seconds: median {sorted(ratios)[len(ratios) // 2]:.1f} (of {', '.join(f'{ratio:.1f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
