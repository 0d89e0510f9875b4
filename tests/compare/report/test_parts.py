"""The figures and pictures of the report: users, map, alignment, posters."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from recbole_molar.compare.per_user import Ranks
from recbole_molar.compare.report.alignment import picture, retrieval, retrieval_after_linear_map
from recbole_molar.compare.report.item_map import agreement, chosen_items, colourings, layout
from recbole_molar.compare.report.page import headline
from recbole_molar.compare.report.posters import LARGE, SMALL, gather, thumbnail
from recbole_molar.compare.report.rankings import KINDS, sample_users


def ranks_of(rank):
    ids = np.array([f"u{index}" for index in range(len(rank))])
    return Ranks(ids, ids, np.array(rank), np.zeros(len(rank), int), None, None)


def test_users_of_each_kind_are_drawn():
    drawn = sample_users([ranks_of([1, 50, 2, 50, 3, 50]), ranks_of([1, 50, 50, 2, 2, 60])])
    assert [kind for _, kind in drawn] == [kind for kind in KINDS for _ in range(2)]
    assert {user for user, _ in drawn[:2]} == {2, 3} and {user for user, _ in drawn[2:4]} == {0, 4} and {user for user, _ in drawn[4:]} == {1, 5}


def test_the_most_popular_items_are_mapped():
    assert chosen_items(np.array([99, 1, 0, 5, 3]), most=2).tolist() == [3, 4] and chosen_items(np.array([0, 1, 0, 5, 3])).tolist() == [3, 4, 1]


def test_groups_stay_together_on_the_map_and_among_neighbours():
    random = np.random.default_rng(0)
    of = np.repeat([0, 1], 40)
    vectors = random.normal(size=(2, 8))[of] + 0.1 * random.normal(size=(80, 8))
    share, chance = agreement(vectors, of)
    assert share == 1.0 and chance == 0.5 and 0.3 < agreement(random.normal(size=(80, 8)), of)[0] < 0.7
    places = layout(vectors)
    assert places.min() == 0 and places.max() == 1 and agreement(places - places.mean(0), of)[0] > 0.9
    assert layout(vectors[:3]).shape == (3, 2) and np.isfinite(layout(np.zeros((3, 1)))).all()


def test_fields_that_group_items_are_found():
    n, genres = 100, ("Drama War", "Comedy", "Comedy Drama", "War", "Comedy War", "Drama", "Comedy Drama War")
    fields = {
        "title": [""] + [f"Title {i}" for i in range(n)], "year": [""] + [str(1950 + i % 50) for i in range(n)],
        "genre": [""] + [genres[i % 7] for i in range(n)], "one": [""] + ["same"] * n,
    }  # fmt: skip
    found = colourings(SimpleNamespace(popularity=np.arange(n + 1), fields=lambda: fields), np.arange(1, n + 1))
    by_name = {way["name"]: way for way in found}
    assert list(by_name) == ["genre", "year", "training interactions"] and by_name["year"]["ordered"] and len(by_name["year"]["groups"]) == 5
    assert set(by_name["genre"]["groups"]) == {"Comedy", "Drama", "War"} and len(by_name["genre"]["of"]) == n
    assert by_name["training interactions"]["of"][-1] == 4


def test_retrieval_by_hand():
    one = np.eye(4)
    assert retrieval(one, one) == 1.0 and retrieval(one, 3 * one) == 1.0 and retrieval(one, one[[1, 0, 2, 3]]) == 0.5


def test_a_rotation_hides_users_from_the_plain_figure_only():
    random = np.random.default_rng(0)
    users = random.normal(size=(200, 8))
    turned = users @ np.linalg.qr(random.normal(size=(8, 8)))[0]
    assert retrieval(users, turned) < 0.1 and retrieval_after_linear_map(users, turned) > 0.95
    assert retrieval_after_linear_map(users, random.normal(size=(200, 8))) < 0.1
    one, other = picture(users, users, drawn=5)
    assert one.shape == (5, 2) and np.allclose(one, other)


def test_pictures_are_small_keep_their_shape_and_stay_within_the_room(tmp_path):
    random = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(random.integers(0, 255, (600, 800, 3), dtype=np.uint8)).save(tmp_path / f"{index}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    wanted = {"none": (None, LARGE), "broken": (tmp_path / "broken.jpg", LARGE), **{str(index): (tmp_path / f"{index}.jpg", LARGE) for index in range(6)}}
    everything, left_out = gather(wanted, 10**7)
    assert list(everything) == [str(index) for index in range(6)] and left_out == 0
    assert Image.open(io.BytesIO(base64.b64decode(everything["0"]))).size == (108, 81)
    room = 2 * (len(everything["0"]) + 100)
    some, left_out = gather(wanted, room)
    assert list(some) == ["0", "1"] and left_out == 4 and sum(map(len, some.values())) <= room
    assert thumbnail(tmp_path / "missing.jpg") is None and len(thumbnail(tmp_path / "0.jpg", SMALL)) < len(thumbnail(tmp_path / "0.jpg"))


@pytest.mark.parametrize("mean, p, words", [(0.02, 0.001, "above a, more than chance explains"), (-0.02, 0.4, "below a, which chance may explain")])
def test_the_headline_says_what_was_found(mean, p, words):
    models = [{"label": label, "seeds": [1, 2], "test": {"ndcg@10": {"mean": value}}} for label, value in (("a", 0.1), ("b", 0.1 + mean))]
    one = {"model": "b", "metric": "ndcg@10", "mean": mean, "relative": mean / 0.1, "low": mean - 0.01, "high": mean + 0.01, "p_holm": p}
    text = headline({"valid_metric": "ndcg@10", "models": models, "reference": "a", "differences": [one]})
    assert words in text and text.startswith("b has the highest NDCG@10, 0.1200." if mean > 0 else "a has the highest NDCG@10, 0.1000.")
    assert headline({"valid_metric": "ndcg@10", "models": models[:1], "reference": "a", "differences": []}) == "a has the highest NDCG@10, 0.1000."
