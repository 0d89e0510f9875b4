"""Where the CPU seconds of training go: the operations of some batches, the most expensive first, and the process's peak.

    OMP_NUM_THREADS=1 python tests/benchmarks/profile_training.py --model=SASRec --config_files=[properties/recipe/sasrec-ml-1m.yaml] --data_path=../shared/data
    OMP_NUM_THREADS=1 python tests/benchmarks/profile_training.py --model=Molar --align_weight=0 --mirm_weights=<run folder> --output_dir=<its saved/> …

Any `--key=value` of a run can be given. With `--package=<checkout>` that checkout's code runs instead, to compare before and after.
"""

import contextlib
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

PACKAGE = next((word.partition("=")[2] for word in sys.argv if word.startswith("--package=")), Path(__file__).parents[2])
sys.path.insert(0, str(PACKAGE))
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from recbole_molar import quick_start  # noqa: E402
from recbole_molar.command_line import parse_command_line  # noqa: E402
from recbole_molar.device import make_accelerator  # noqa: E402
from recbole_molar.utils import get_trainer  # noqa: E402
from all_positions import FirstBatches  # noqa: E402
from side_by_side import machine  # noqa: E402

BATCHES, OPERATIONS = 12, 12


def main():
    """Print seconds a batch, seconds an epoch that they come to, and the shares of the operations."""
    config, _ = quick_start.configure(parse_command_line([word for word in sys.argv[1:] if not word.startswith("--package=")]))
    accelerator = make_accelerator(config["precision"], use_cpu=True)
    config["device"] = accelerator.device
    prepared = quick_start.prepare(config)
    with tempfile.TemporaryDirectory() as temporary:
        folder = SimpleNamespace(path=Path(temporary), notes={}, save_seconds=lambda: None, stage=lambda *_: contextlib.nullcontext())
        model = quick_start.build_model(config, prepared, quick_start.read_content(config, prepared.dataset), accelerator, folder)
        trainer = get_trainer(config)(config, model, accelerator, folder.path)
    train = prepared.loaders[0]
    trainer._train_epoch(FirstBatches(train, 2), 0)  # warm-up
    start = time.process_time()
    trainer._train_epoch(FirstBatches(train, BATCHES), 0)
    seconds = (time.process_time() - start) / BATCHES
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        trainer._train_epoch(FirstBatches(train, BATCHES), 0)
    found = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in found)
    print(f"{machine()}, {accelerator.mixed_precision}\n{seconds:.3f} CPU s a batch, {seconds * len(train):.0f} an epoch; peak {peak:.1f} GiB")
    for event in sorted(found, key=lambda event: -event.self_cpu_time_total)[:OPERATIONS]:
        print(f"{event.self_cpu_time_total / total:6.1%}  {event.key[:60]}  ({event.count // BATCHES} a batch)")


if __name__ == "__main__":
    main()
