"""A tiny generated data set, as atomic files and pictures."""

import numpy as np
from PIL import Image


def tiny_interactions(n_users=40, n_items=30, seed=0):
    """Interactions as (user, item, time) with a chain to learn, ties in time, and users of 1, 2 and 3 interactions."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        length = {0: 1, 1: 2, 2: 3, 3: 4}.get(user, int(random.integers(5, 16)))
        item, time = int(random.integers(n_items)), 1_000_000_000 + int(random.integers(10_000))
        for _ in range(length):
            rows.append((f"u{user}", f"i{item}", time))
            item = (item + 1) % n_items if random.random() < 0.8 else int(random.integers(n_items))
            time += int(random.integers(0, 3))  # about a third of the steps are ties
    return rows


def write_inter(folder, rows, header="user_id:token\titem_id:token\ttimestamp:float"):
    """Write `<folder>/<name of folder>.inter`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (folder / f"{folder.name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_items(folder, n_items, images=False):
    """Write `.item` with a title and a genre for each item, and a picture of one colour where asked."""
    lines = ["item_id:token\ttitle:token_seq\tgenre:token_seq", *(f"i{item}\tTitle number {item}\tgenre{item % 3}" for item in range(n_items))]
    (folder / f"{folder.name}.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if images:
        (folder / "images").mkdir(exist_ok=True)
        for item in range(n_items):
            Image.new("RGB", (16, 16), (8 * item % 256, 0, 255 - 8 * item % 256)).save(folder / "images" / f"i{item}.png")
