"""Bytes that a process holds in a step of a backbone: torchrun --nproc-per-node 2 tests/benchmarks/shards.py [fp32 | bf16] [whole]

All live tensors of the main process, each block of memory once, divided by the backbone's parameters; after the second step.
"""

import contextlib
import gc
import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
import torch  # noqa: E402
from tiny_data import write_items  # noqa: E402

from recbole_molar.data.item_content import ItemContent  # noqa: E402
from recbole_molar.device import make_accelerator  # noqa: E402
from recbole_molar.model.mirm import MIRM  # noqa: E402
from recbole_molar.processes import process_index  # noqa: E402
from recbole_molar.sharding import gather, shard, share_gradients  # noqa: E402

SIZES = {
    "compact_hidden_size": 512, "compact_num_layers": 8, "compact_intermediate_size": 2048, "compact_vocab_size": 400, "compact_vision_size": 16,
    "compact_vision_layers": 1,
}  # fmt: skip


def held():
    """Bytes of the tensors that live, gradients of leaves among them."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]
    tensors += [found.grad for found in tensors if found.is_leaf and found.grad is not None]
    blocks = {}
    for tensor in tensors:
        with contextlib.suppress(RuntimeError, NotImplementedError):  # no memory of its own
            block = (tensor.to_local() if hasattr(tensor, "to_local") else tensor).untyped_storage()
            blocks[block.data_ptr()] = block.nbytes()
    return sum(blocks.values())


def step(mirm, optimizer, accelerator):
    """One step; bytes at its stations."""
    gather(mirm)
    stations = {"gathered": held()}
    with accelerator.autocast():
        loss = mirm.encode_items([1, 2]).square().mean()
    loss.backward()
    stations["after backward"] = held()
    share_gradients(mirm)
    stations["gradients shared"] = held()
    optimizer.step()
    optimizer.zero_grad()
    return {**stations, "between steps": held()}


def measure(precision, sharded):
    """A line of the table."""
    accelerator = make_accelerator(precision, use_cpu=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "tiny"
        data.mkdir()
        write_items(data, 30)
        content = ItemContent.read(data / "tiny.item", ["[PAD]", *(f"i{item}" for item in range(30))], ["title"], modalities=["text"])
    mirm = MIRM.build(content, backbone_options=SIZES, image_size=(28, 28))
    if sharded:
        shard(mirm.backbone, mirm.backbone.plain.get_input_embeddings(), accelerator)
    optimizer = torch.optim.AdamW(mirm.parameters(), fused=True)
    n = sum(value.numel() for value in mirm.parameters())
    for _ in range(2):
        stations = step(mirm, optimizer, accelerator)
    if not process_index():
        shares = "  ".join(f"{name} {value / n:.2f}" for name, value in stations.items())
        print(f"{os.environ['WORLD_SIZE']} processes, {precision}, {'shards' if sharded else 'whole'}: {n:,} parameters; bytes for each: {shares}")


if __name__ == "__main__":
    measure(sys.argv[1] if len(sys.argv) > 1 else "fp32", sharded=len(sys.argv) < 3)
