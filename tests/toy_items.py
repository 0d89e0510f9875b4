"""Toy items and a MIRM of a few thousand parameters, for the tests of floors 1 to 6."""

import numpy as np
import torch
from PIL import Image

from recbole_molar.data.item_content import ItemContent
from recbole_molar.model.mirm import MIRM

SIZE = (28, 56)
TINY = {
    "compact_hidden_size": 32, "compact_num_layers": 2, "compact_num_heads": 2, "compact_num_kv_heads": 1, "compact_intermediate_size": 48,
    "compact_vision_size": 32, "compact_vision_layers": 1, "compact_vision_heads": 2, "compact_vocab_size": 400,
}  # fmt: skip
WORDS = "red green blue old new small tall quick slow warm cold bright".split()


def write_content(folder, n_items=12, without_image=(3, 7), broken=()):
    """An `.item` file with title, genre and plot, and random pictures; returns (item file, external ids)."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines, ids = ["item_id:token\ttitle:token_seq\tgenre:token_seq\tplot:token_seq"], ["[PAD]"]
    for item in range(1, n_items + 1):
        ids.append(f"i{item}")
        plot = " ".join(rng.choice(WORDS, size=3 + item))
        lines.append(f"i{item}\tTitle {item}\t{WORDS[item % 3]}\t{plot}")
        if item in broken:
            (folder / "images" / f"i{item}.jpg").write_bytes(b"\xff\xd8\xff no picture")
        elif item not in without_image:
            Image.fromarray(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(folder / "images" / f"i{item}.png")
    (folder / "toy.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "toy.item", ids


def toy_content(folder, **options):
    """ItemContent of :func:`write_content`."""
    modalities = options.pop("modalities", ("text", "image"))
    item_file, ids = write_content(folder, **options)
    return ItemContent.read(item_file, ids, ["plot", "title", "genre"], "plot", image_dir=folder / "images", modalities=modalities)


def toy_mirm(content, **options):
    """A tiny compact MIRM, with weights far enough from zero for differences to show."""
    mirm = MIRM.build(content, **{"backbone_options": TINY, "image_size": SIZE, "max_tokens": 48, **options})
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for value in mirm.parameters():
            if value.dim() > 1 and value.requires_grad:
                value.add_(torch.randn_like(value) * 0.05)
    return mirm


def toy_histories(n_users=20, n_items=12, length=6, seed=0):
    """Training histories of random items, as internal ids."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, n_items + 1, length) for _ in range(n_users)]
