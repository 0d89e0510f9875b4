"""Model FLOPs utilisation: of the matrix rate that the device reaches by itself, how much MIRM's encoding and stage 1's training steps get; items a second.

    python -m tests.benchmarks --rows=[utilisation] --data_path=../shared/data
    # a model of Qwen2-VL-2B's size, random weights, on a GPU
    python -m tests.benchmarks --rows=[utilisation] --data_path=../shared/data --use_cpu=False --precision=bf16 --compact_hidden_size=1536 \\
        --compact_num_layers=28 --compact_num_heads=12 --compact_num_kv_heads=2 --compact_intermediate_size=8960 --compact_vision_size=1280 \\
        --compact_vision_layers=32 --compact_vision_heads=16 --mirm_encode_batch_size=64 --mirm_finetune_batch_size=32

"Theirs" is the time that the products of the same work would take at the device's measured rate; the ratio is the utilisation. The products are
counted by PyTorch on one pass (`torch.utils.flop_counter`), attention among them where PyTorch can count its kernel.
"""

import functools
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from recbole_molar.config import Config
from recbole_molar.device import make_accelerator
from recbole_molar.model.finetune.base import Unbuildable
from recbole_molar.model.finetune.objective import StageOneObjective
from recbole_molar.quick_start import prepare, read_content
from recbole_molar.stages import build_mirm
from recbole_molar.trainer.mirm_finetune_trainer import make_tasks
from side_by_side import Row

SAMPLE = 256  # items; pictures are decoded before the clock starts


def measure(given):
    """A row for encoding, and one for a training step of each task of stage 1 that the data allow."""
    config = Config(config_dict={"dataset": "ml-1m", "use_cpu": True, **given, "model": "Molar"})
    prepared = prepare(config)
    content = read_content(config, prepared.dataset)
    accelerator = make_accelerator(config["precision"], use_cpu=config["device"].type == "cpu")
    mirm = build_mirm(config, content).to(accelerator.device)
    rate = _matrix_rate(accelerator)
    about = f"{mirm.backbone.plain.num_parameters():,} parameters, {accelerator.mixed_precision}, {rate / 1e12:.3g} TFLOP/s of matrix products measured"

    ids = list(range(1, min(SAMPLE, len(content) - 1) + 1))

    @torch.no_grad()
    def encode():
        mirm.eval().encode_items(ids, accelerator)

    on_gpu = accelerator.device.type == "cuda"  # the targets are an H200's
    yield _row(f"encoding {len(ids)} items", encode, len(ids), rate, 0.45 if on_gpu else None, about)
    for name, step, n in _training(config, mirm, prepared, content, accelerator):
        yield _row(f"a step of stage 1, {name}", step, n, rate, 0.40 if on_gpu else None, about)


def _training(config, mirm, prepared, content, accelerator):
    """Name of each task, a callable that takes an optimizer step, and the samples of that step."""
    objective = StageOneObjective(mirm, config["mirm_finetune_objective"], config["mirm_bow_weight"], config["mirm_contrast_weight"])
    optimizer = torch.optim.AdamW(mirm.parameters(), lr=1e-5, fused=True)
    random, size = np.random.default_rng(0), config["mirm_finetune_batch_size"]

    def step(samples, instruction):
        mirm.train()
        with accelerator.autocast():
            loss, _ = objective(samples, instruction)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    for task in make_tasks(config["mirm_finetune_tasks"], history_length=config["mirm_finetune_history_length"]):
        try:
            samples = task.samples(content, mirm.collator.images, prepared.dataset.train_histories(), size, random)
        except Unbuildable:
            continue
        yield task.name, functools.partial(step, samples, task.instruction), len(samples)


def _row(what, work, n, rate, target, note):
    with FlopCounterMode(display=False) as counter:  # the warm-up, too
        work()
    seconds = min(_seconds(work) for _ in range(3))
    flop = counter.get_total_flops()
    return Row(what, f"{flop / 1e12:.3g} TFLOP at the measured matrix rate", seconds, flop / rate, target, f"{n / seconds:.0f}/s; {note}")


def _matrix_rate(accelerator):
    """FLOP a second of one large product in the run's precision."""
    side = 8192 if accelerator.device.type == "cuda" else 2048
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    left, right = (torch.randn(side, side, device=accelerator.device, dtype=dtype) for _ in range(2))
    left @ right
    return 2 * side**3 / min(_seconds(lambda: left @ right) for _ in range(5))


def _seconds(work):
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
