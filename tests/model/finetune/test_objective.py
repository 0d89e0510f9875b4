"""Stage 1's objectives: through the state there is a gradient, past it there is none."""

import math

import numpy as np
import pytest
import torch
from toy_items import toy_content, toy_mirm

from recbole_molar.model.finetune.base import Sample
from recbole_molar.model.finetune.objective import StageOneObjective

SAMPLES = [Sample((1,), "red green"), Sample((3,), "blue"), Sample((4,), "old")]
BEHAVIOR = [Sample((1, 3), "red", target=2), Sample((4, 5), "blue", target=6)]


@pytest.fixture(scope="module")
def mirm(tmp_path_factory):
    return toy_mirm(toy_content(tmp_path_factory.mktemp("items")))


def state_gradient(mirm, kind, samples):
    """Gradient norm of the loss on the states at [Cur_Item], by watching what `encode` returns."""
    seen, encode = [], mirm.backbone.encode

    def watched(batch, **options):
        states = encode(batch, **options)
        states.retain_grad()
        seen.append((states, batch["input_ids"] == mirm.collator.prompt.cur_item_id))
        return states

    mirm.backbone.encode = watched
    try:
        StageOneObjective(mirm, kind)(samples, "Describe:")[0].backward()
    finally:
        del mirm.backbone.encode
    return sum(float(states.grad[here].norm()) for states, here in seen)


@pytest.mark.parametrize("samples", [SAMPLES, BEHAVIOR], ids=["item", "history"])
def test_gradient_reaches_the_state_only_through_the_state(mirm, samples):
    assert state_gradient(mirm, "through_state", samples) > 1e-3
    assert state_gradient(mirm, "generation", samples) == 0


def test_answers_of_other_samples_change_nothing(mirm):
    objective = StageOneObjective(mirm).eval()
    alone = [float(objective.lm_loss([sample], "Describe:", *states_of(objective, [sample]))) for sample in SAMPLES]
    tokens = [len(mirm.collator.prompt.answer(sample.answer, 32)) for sample in SAMPLES]
    together = float(objective.lm_loss(SAMPLES, "Describe:", *states_of(objective, SAMPLES)))
    assert together == pytest.approx(np.average(alone, weights=tokens), rel=1e-4)


def states_of(objective, samples):
    ids = [item for sample in samples for item in sample.items]
    return objective.item_states(ids), {item: row for row, item in enumerate(ids)}


def test_bag_of_words_starts_at_its_prior(mirm):
    objective = StageOneObjective(mirm, bow_weight=1.0)
    bags, ids = objective.bags, list(range(1, 13))
    prior = bags.log_prior.exp()
    entropy = -(prior * bags.log_prior).sum()
    assert float(bags(objective.item_states(ids), ids)) == pytest.approx(float(entropy), rel=1e-3)
    assert prior.sum() == pytest.approx(1, rel=1e-4)


def test_contrast_by_hand(mirm):
    counts = np.ones(13)
    objective = StageOneObjective(mirm, contrast_weight=1.0, item_counts=counts)
    ids, place = [1, 2, 3, 4], {1: 0, 2: 1, 3: 2, 4: 3}
    same = torch.ones(4, mirm.embedding_dim)
    # All states equal: each of the candidates that are not read is as likely as the next.
    loss = objective.contrast(same, ids, [Sample((1, 3), "", target=2)], place)
    assert float(loss) == pytest.approx(math.log(2))
    states = torch.eye(4, mirm.embedding_dim)
    states[1] = states[0]
    loss = objective.contrast(states, ids, [Sample((1,), "", target=2)], place)
    assert float(loss) == pytest.approx(math.log(1 + 2 * math.exp(-1 / 0.1)), abs=1e-6)


def test_popularity_is_corrected(mirm):
    counts = np.ones(13)
    counts[4] = 100
    plain, corrected = (StageOneObjective(mirm, contrast_weight=1.0, item_counts=it) for it in (None, counts))
    states, place, samples = torch.ones(4, mirm.embedding_dim), {1: 0, 2: 1, 3: 2, 4: 3}, [Sample((1, 3), "", target=2)]
    assert corrected.contrast(states, [1, 2, 3, 4], samples, place) < plain.contrast(states, [1, 2, 3, 4], samples, place)


def test_generation_stops_and_unknown_objectives_do_too(mirm):
    for kind in ("through_state", "generation"):
        assert isinstance(StageOneObjective(mirm, kind).eval().generate(SAMPLES[0], "Describe:", max_tokens=4), str)
    with pytest.raises(ValueError, match="mirm_finetune_objective=both"):
        StageOneObjective(mirm, "both")


@pytest.mark.parametrize("parts, others", [("image", "attributes"), ("attributes", None)])
def test_views_of_one_item_attract_and_others_repel(mirm, parts, others, monkeypatch):
    samples = [Sample((item,), "red", parts=parts) for item in (1, 3, 4, 5)]
    _, told = StageOneObjective(mirm, view_contrast_weight=1.0)(samples, "Describe:")
    assert told["view_contrast"] > 0 and "view_contrast" not in StageOneObjective(mirm)(samples, "Describe:")[1]
    objective, same = StageOneObjective(mirm, "generation", view_contrast_weight=1.0), torch.eye(4, 8)

    def of_states(one, other):
        monkeypatch.setattr(objective, "item_states", lambda ids, read: {parts: one, others: other}[read])
        return float(objective(samples, "Describe:")[1]["view_contrast"])

    assert of_states(same, same) < 1e-3
    assert of_states(same, same.roll(1, 0)) == pytest.approx(10, abs=0.01)  # cosine 0 to its own, 1 to another, temperature 0.1
    assert of_states(torch.ones(4, 8), torch.ones(4, 8)) == pytest.approx(math.log(4), abs=1e-4)


def test_views_are_of_samples_without_users(mirm):
    assert "view_contrast" not in StageOneObjective(mirm, view_contrast_weight=1.0)(BEHAVIOR, "Next:")[1]
