"""Contract of all fine-tuning tasks, and what each reads and writes."""

import numpy as np
import pytest
from toy_items import SIZE, toy_content, toy_histories

from recbole_molar.data.prompt import TASKS
from recbole_molar.lookup import available
from recbole_molar.model.finetune.base import Unbuildable
from recbole_molar.trainer.mirm_finetune_trainer import make_tasks

NAMES = [path.rpartition(".")[2] for path in available("model.finetune").values()]


def drawn(name, content, histories=None, count=100, seed=0):
    histories = toy_histories() if histories is None else histories
    return make_tasks([name])[0].samples(content, content.images(SIZE), histories, count, np.random.default_rng(seed))


def test_the_three_tasks_are_found():
    assert set(NAMES) == {"image_text", "structured_attributes", "user_behavior"} == set(TASKS)
    with pytest.raises(ValueError, match="no task img_text. Valid: image_text"):
        make_tasks(["img_text"])


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, tmp_path):
    content = toy_content(tmp_path)
    samples = drawn(name, content)
    assert samples == drawn(name, content) != drawn(name, content, seed=1)
    assert len(drawn(name, content, count=5)) == 5
    assert len(set(samples)) == len(samples) or name == "user_behavior"  # two users may have done the same
    for sample in samples:
        assert sample.answer and all(0 < item < len(content) for item in sample.items)


def test_image_text_reads_images_alone(tmp_path):
    samples = drawn("image_text", toy_content(tmp_path, broken=(5,)))
    assert {sample.items[0] for sample in samples} == set(range(1, 13)) - {3, 5, 7}
    assert {sample.parts for sample in samples} == {"image"}
    with pytest.raises(Unbuildable, match="no item has a readable image"):
        drawn("image_text", toy_content(tmp_path, modalities=["text"]))
    with pytest.raises(Unbuildable, match="item_modalities"):
        drawn("image_text", toy_content(tmp_path, modalities=["image"]))


def test_structured_attributes_write_the_description_or_a_sentence(tmp_path):
    content = toy_content(tmp_path)
    sample = min(drawn("structured_attributes", content), key=lambda it: it.items)
    assert sample.answer == content.items[1].description and sample.parts == "attributes"
    object.__setattr__(content.items[1], "description", "")
    sample = min(drawn("structured_attributes", content), key=lambda it: it.items)
    assert sample.answer == "Title 1: genre green."


def test_user_behavior_is_the_next_training_item(tmp_path):
    histories = [np.array([1, 2, 3, 4, 5]), np.array([6]), np.array([], dtype=int), np.array([7, 8])]
    samples = drawn("user_behavior", toy_content(tmp_path), histories)
    assert {(sample.items, sample.target) for sample in samples} == {
        ((1,), 2), ((1, 2), 3), ((1, 2, 3), 4), ((2, 3, 4), 5), ((7,), 8),
    }  # fmt: skip
    with pytest.raises(Unbuildable, match="two training interactions"):
        drawn("user_behavior", toy_content(tmp_path), [np.array([1])])
