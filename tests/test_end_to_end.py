"""Molar on generated data whose next item is told by the picture alone, or by the text alone."""

import json

import numpy as np
import pytest
from PIL import Image

from recbole_molar.__main__ import main

N_CLASSES, PER_CLASS, N_USERS, LENGTH = 8, 16, 200, 9
WORDS = ["amber", "bronze", "cobalt", "denim", "ebony", "fuchsia", "garnet", "hazel"]


def write_cycle(folder, telling):
    """Users go through the classes in a circle, with a random item of each; only `telling` (image or text) shows an item's class."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    items = ["item_id:token\ttitle:token_seq"]
    for item in range(N_CLASSES * PER_CLASS):
        kind = item // PER_CLASS
        items.append(f"i{item}\t{f'a {WORDS[kind]} thing' if telling == 'text' else 'a thing'}")
        colour = np.array([(kind & 1) * 255, (kind >> 1 & 1) * 255, (kind >> 2 & 1) * 255]) if telling == "image" else np.full(3, 128)
        noise = random.integers(-20, 20, (24, 16, 3))
        Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(folder / "images" / f"i{item}.png")
    inter = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(N_USERS):
        start = int(random.integers(N_CLASSES))
        for step in range(LENGTH):
            item = (start + step) % N_CLASSES * PER_CLASS + int(random.integers(PER_CLASS))
            inter.append(f"u{user}\ti{item}\t{step}")
    (folder / "cycle.item").write_text("\n".join(items) + "\n")
    (folder / "cycle.inter").write_text("\n".join(inter) + "\n")
    (folder / "dataset.yaml").write_text("load_col: {inter: [user_id, item_id, timestamp]}\n")


def recall(tmp_path, capsys, modality, **options):
    """Recall@16 of a short run that reads one modality; 16 of 128 items are right, so chance is 1/8."""
    given = {
        "model": "Molar", "dataset": "cycle", "data_path": tmp_path, "output_dir": tmp_path / "saved", "item_modalities": f"[{modality}]",
        "align_weight": 0, "mirm_finetune_samples": 150, "mirm_image_size": "[56, 84]", "compact_hidden_size": 64, "compact_num_layers": 2,
        "compact_intermediate_size": 128, "compact_vision_size": 32, "compact_vision_layers": 1, "compact_vocab_size": 300, "epochs": 12,
        "train_batch_size": 16, "MAX_ITEM_LIST_LENGTH": 8, "learning_rate": 0.003, "topk": "[16]", "valid_metric": "Recall@16",
        "show_progress": False, "precision": "fp32", "use_cpu": True, **options,
    }
    assert main(["run", *(f"--{key}={value}" for key, value in given.items())]) == 0
    result = json.loads(open(capsys.readouterr().out.strip().splitlines()[-1]).read())
    return result["test_result"]["recall@16"]


@pytest.mark.parametrize("telling", ["image", "text"])
def test_finds_what_the_telling_modality_shows_and_nothing_without_it(tmp_path, capsys, telling):
    write_cycle(tmp_path / "cycle", telling)
    silent = {"image": "text", "text": "image"}[telling]
    assert recall(tmp_path, capsys, telling) > 0.8
    assert recall(tmp_path, capsys, silent) < 0.3
