"""Items a second through MIRM: encoding for the table, and stage-1 training, with text and pictures.

    OMP_NUM_THREADS=2 python tests/benchmarks/encoding.py --dataset=ml-1m --data_path=../shared/data

Any `--key=value` of a Molar run can be given (`mirm_backbone`, `mirm_max_tokens`, `precision` …).
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from recbole_molar.command_line import parse_command_line  # noqa: E402
from recbole_molar.config import Config  # noqa: E402
from recbole_molar.device import make_accelerator  # noqa: E402
from recbole_molar.model.finetune.base import Unbuildable  # noqa: E402
from recbole_molar.model.finetune.objective import StageOneObjective  # noqa: E402
from recbole_molar.model.item_embedding import ItemEmbedding  # noqa: E402
from recbole_molar.quick_start import prepare, read_content  # noqa: E402
from recbole_molar.stages import build_mirm  # noqa: E402
from recbole_molar.trainer.mirm_finetune_trainer import make_tasks  # noqa: E402
import numpy as np  # noqa: E402


def main():
    """Print items a second of each pass."""
    config = Config(config_dict={"model": "Molar", "dataset": "ml-1m", **parse_command_line(sys.argv[1:])})
    prepared = prepare(config)
    content = read_content(config, prepared.dataset)
    accelerator = make_accelerator(config["precision"], use_cpu=config["device"].type == "cpu")
    mirm = build_mirm(config, content).to(accelerator.device)
    content.images(tuple(config["mirm_image_size"]))
    size = mirm.backbone.plain.num_parameters()
    print(f"{torch.get_num_threads()} thread(s), {accelerator.device}, mixed precision {accelerator.mixed_precision}, {size:,} parameters")
    ItemEmbedding().fill(mirm, accelerator, config["mirm_encode_batch_size"])  # decodes and keeps the pictures
    start = time.time()
    ItemEmbedding().fill(mirm, accelerator, config["mirm_encode_batch_size"])
    print(f"encoding: {(len(content) - 1) / (time.time() - start):.0f} items/s")
    objective = StageOneObjective(mirm, config["mirm_finetune_objective"], config["mirm_bow_weight"], config["mirm_contrast_weight"])
    optimizer = torch.optim.AdamW(mirm.parameters(), lr=1e-4, fused=True)
    for task in make_tasks(config["mirm_finetune_tasks"], history_length=config["mirm_finetune_history_length"]):
        try:
            samples = task.samples(content, mirm.collator.images, prepared.dataset.train_histories(), 320, np.random.default_rng(0))
        except Unbuildable as reason:
            print(f"{task.name}: left out ({reason})")
            continue
        start, size = time.time(), config["mirm_finetune_batch_size"]
        for first in range(0, len(samples), size):
            with accelerator.autocast():
                loss, _ = objective(samples[first : first + size], task.instruction)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        print(f"stage 1, {task.name}: {len(samples) / (time.time() - start):.0f} samples/s")


if __name__ == "__main__":
    main()
