"""What stage 1 and the item table hand to parts that are tested by themselves; each test was seen to fail where that is changed."""

import inspect
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from toy_items import SIZE, TINY, toy_content, toy_histories, toy_mirm

from recbole_molar.data.prompt import COMPRESS
from recbole_molar.device import make_accelerator
from recbole_molar.model.finetune.base import Sample
from recbole_molar.model.finetune.objective import StageOneObjective
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.model.mirm import MIRM
from recbole_molar.trainer.mirm_finetune_trainer import MIRMFinetuneTrainer, make_tasks, stage1_fingerprint


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return toy_content(tmp_path_factory.mktemp("items"))


@pytest.fixture
def mirm(content):
    return toy_mirm(content)


@pytest.mark.parametrize("kind", ["through_state", "generation"])
@torch.no_grad()
def test_a_token_is_predicted_from_what_stands_before_it(mirm, kind):
    """Each by the logits behind the answer up to it, given alone."""
    objective, samples = StageOneObjective(mirm, kind).eval(), [Sample((1,), "red green blue"), Sample((3,), "old")]
    states, losses = objective.item_states([1, 3]), []
    for row, sample in enumerate(samples):
        answer = objective._answer(sample)
        for step, token in enumerate(answer):
            begun = [answer[:step]]
            if kind == "through_state":
                hidden, _ = objective.read_states(states, [[row]], "Describe:", begun)
            else:
                hidden, _ = objective.read_tokens([sample], "Describe:", begun)
            losses.append(F.cross_entropy(mirm.backbone.logits(hidden[:, -1]).float(), torch.tensor([token])))
    given = (states, {1: 0, 3: 1}) if kind == "through_state" else ()
    assert float(objective.lm_loss(samples, "Describe:", *given)) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


@pytest.mark.parametrize("parts", ["image", "attributes", None])
def test_items_are_read_as_the_sample_says(mirm, monkeypatch, parts):
    """Or the answer, the description, stands in what is read."""
    read, tokens = set(), mirm.collator.tokens
    monkeypatch.setattr(mirm.collator, "tokens", lambda item, some=None: read.add(some) or tokens(item, some))
    for kind in ("through_state", "generation"):
        StageOneObjective(mirm, kind, bow_weight=1.0)([Sample((item,), "red", parts=parts) for item in (1, 2)], "Describe:")
    assert read == {parts}


def test_a_part_of_an_item_holds_nothing_of_the_others(content):
    mirm = MIRM.build(content, backbone_options=TINY, image_size=SIZE, max_tokens=500)
    collator, decode = mirm.collator, mirm.backbone.tokenizer.decode
    for number, item in enumerate(content.items[1:], start=1):
        whole, attributes, image = (decode(collator.tokens(number, parts)[0]) for parts in (None, "attributes", "image"))
        assert item.description in whole and item.title in whole
        assert item.description not in attributes and "plot" not in attributes and item.title in attributes and "genre" in attributes
        assert "title" not in image and "plot" not in image
        has_image = number not in (3, 7)
        assert [collator.tokens(number, parts)[1] for parts in (None, "attributes", "image")] == [has_image, False, has_image]


def test_long_text_loses_its_end(content):
    prompt = MIRM.build(content, backbone_options=TINY, image_size=SIZE, max_tokens=60).collator.prompt
    ids = prompt.item({"title": "Title 1", "plot": "red " * 500}, has_image=True)
    text = prompt.tokenizer.decode(ids[:60])
    assert text.startswith(COMPRESS[True, True] + "\ntitle: Title 1\nplot: red")


OTHER = {
    "samples": 7, "epochs": 3, "batch_size": 5, "learning_rate": 0.1, "warmup_ratio": 0.3, "weight_decay": 0.3, "clip_norm": 3.0, "objective": "generation",
    "bow_weight": 0.3, "contrast_weight": 0.3, "temperature": 0.3, "max_answer_tokens": 3, "seed": 3, "view_contrast_weight": 0.3,
}  # fmt: skip


def test_each_setting_of_stage_one_is_in_its_fingerprint(content, mirm, tmp_path):
    """A new one must come into OTHER, or be named here as of no concern."""
    parameters = inspect.signature(MIRMFinetuneTrainer).parameters
    assert set(OTHER) == set(parameters) - {"mirm", "tasks", "accelerator", "train_histories", "folder", "cache_dir", "save_minutes"}

    def mark(**options):
        accelerator = make_accelerator("fp32", use_cpu=True)
        return MIRMFinetuneTrainer(mirm, make_tasks(["user_behavior"]), accelerator, toy_histories(), tmp_path, **options).fingerprint

    marks = [mark(), *(mark(**{name: value}) for name, value in OTHER.items())]
    assert len(set(marks)) == len(marks) and mark() == marks[0]
    short, longer = (stage1_fingerprint(mirm, make_tasks(["user_behavior"], history_length=n), toy_histories(), {}) for n in (2, 3))
    assert short != longer


def test_all_that_an_embedding_depends_on_is_in_its_file_name(content, tmp_path):
    def file(precision="no", **options):
        return ItemEmbedding(tmp_path)._file(toy_mirm(content, **options), SimpleNamespace(mixed_precision=precision))

    files = [file(), file(readout="mean"), file(image_size=(56, 56)), file(max_tokens=40), file(seed=1), file("bf16")]
    assert len(set(files)) == len(files) and file() == files[0]
