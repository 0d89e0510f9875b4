"""Pictures: missing, broken, tiny and duplicate ones. Decoded are all where that is fast, else a random part."""

import hashlib
import time
from collections import defaultdict

import numpy as np
from PIL import Image

from recbole_molar.data.image import FORMATS
from recbole_molar.doctor.data_report import EXAMPLES, printable, share, some

TINY = 32  # pixels of the shorter side


def image_report(content, size, seconds=10.0):
    """Section "images".

    Args:
        content (ItemContent): the run's items. size (tuple): (width, height) that MIRM reads.
        seconds (float): most time for decoding and hashing; what is decoded stays in the run's own store.

    Returns:
        dict: counts; `checked` says how many files the last three rest on.
    """
    store, start = content.images(tuple(size)), time.time()
    present = [index for index, item in enumerate(content.items) if item.image_path is not None]
    order = np.random.default_rng(0).permutation(present) if present else []
    broken, tiny, same, checked = [], [], defaultdict(list), 0
    for index in map(int, order):
        if time.time() - start > seconds:
            break
        checked += 1
        path = content.items[index].image_path
        if store.get(index) is None:
            broken.append(content.items[index].id)
            continue
        same[hashlib.sha256(path.read_bytes()).digest()].append(content.items[index].id)
        if min(_sides(path)) < TINY:
            tiny.append(content.items[index].id)
    groups = [ids for ids in same.values() if len(ids) > 1]
    n_items = len(content) - 1
    return {
        "items": n_items, "with_file": len(present), "missing": n_items - len(present), "share_missing": share(n_items - len(present), n_items),
        "checked": checked, "all_checked": checked == len(present), "read_at": list(size), "broken": some(broken), "tiny": some(tiny),
        "duplicates": {"files": sum(len(ids) - 1 for ids in groups), "examples": [list(map(printable, sorted(ids)[:EXAMPLES])) for ids in groups[:EXAMPLES]]},
        "seconds": round(time.time() - start, 1),
    }


def _sides(path):
    with Image.open(path, formats=FORMATS) as image:
        return image.size
