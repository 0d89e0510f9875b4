"""Filters against plain Python on random data; ids as written."""

from collections import Counter
from urllib.parse import unquote

import numpy as np
import pytest

from dataset_converters.interactions import InteractionReader, id_text, safe_id


def read(rows):
    reader = InteractionReader()
    for start in range(0, len(rows), 50):  # several parts
        users, items, times, ratings = zip(*rows[start : start + 50])
        reader.add(users, items, times, ratings)
    return reader.finish()


def rows_of(data):
    return list(zip(data.user_names[data.user], data.item_names[data.item], data.time.tolist(), data.rating.tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_filters_equal_plain_python(seed):
    draw = np.random.default_rng(seed)
    columns = (draw.integers(0, 40, 400), draw.integers(0, 30, 400), draw.integers(0, 100, 400), draw.integers(1, 6, 400))
    rows = [(f"u{u}", f"i{i}", float(t), float(r)) for u, i, t, r in zip(*columns)]
    assert rows_of(read(rows)) == rows
    expected = [row for row in rows if row[3] >= 2]
    earliest = {}
    for place, row in enumerate(expected):
        if row[:2] not in earliest or row[2] < expected[earliest[row[:2]]][2]:
            earliest[row[:2]] = place
    duplicates = len(expected) - len(earliest)
    expected = [row for place, row in enumerate(expected) if earliest[row[:2]] == place]
    while True:
        users, items = Counter(row[0] for row in expected), Counter(row[1] for row in expected)
        kept = [row for row in expected if users[row[0]] >= 5 and items[row[1]] >= 5]
        if kept == expected:
            break
        expected = kept
    data = read(rows).filter(min_rating=2, drop_duplicates=True, k_core=5)
    assert rows_of(data) == expected and 50 < len(expected) < len(earliest) and data.duplicates == duplicates
    assert sum(data.dropped.values()) == len(rows) - len(data) and data.n_users == len({row[0] for row in expected})
    assert data.item_set() == {row[1] for row in expected}


@pytest.mark.parametrize("text", ["u1", "a/b", "..", "50%", "%41", "%4", "NA", "nan", "[PAD]", "a\tb\nc\rd", '"x"', "日本", "a\\nb", "a b", "\u2028"])
def test_ids_come_back_by_unquote(text):
    name = safe_id(text)
    assert unquote(name) == text and not set('\t\n\r"/\\') & set(name) and name not in ("NA", "nan", "[PAD]")


@pytest.mark.parametrize("value, text", [(12.0, "12"), (12.5, "12.5"), (None, ""), (float("nan"), ""), (" x ", "x"), (np.int64(7), "7"), (np.float64(3), "3")])
def test_ids_of_any_kind(value, text):
    assert id_text(value) == text
