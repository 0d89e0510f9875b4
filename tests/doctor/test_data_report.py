"""Ties, duplicates, cold items and lengths of a data set small enough to count by hand."""

import pytest

from recbole_molar.config import Config
from recbole_molar.doctor.data_report import cold_report, data_report, read_inter
from recbole_molar.quick_start import prepare

BASE = 1_000_000_000  # float32 steps by 64 here: +300 and +301 become one
HISTORIES = {
    "u1": ("abcde", (1, 2, 3, 4, 4)),  # validation and test item at one time
    "u2": ("abcde", (1, 2, 3, 4, 5)),
    "u3": ("abead", (BASE, BASE + 100, BASE + 200, BASE + 300, BASE + 301)),  # a tie at float32 alone; item a twice
    "u4": ("abcdz", (1, 2, 3, 4, 5)),  # z is nowhere else
    "u5": ("deabc", (5, 6, 7, 8, 9)),
    "u6": ("a", (1,)),  # filtered
}
ROWS = [(user, item, time) for user, (items, times) in HISTORIES.items() for item, time in zip(items, times, strict=True)]


@pytest.fixture
def reports(make_data, flags):
    make_data(ROWS)
    config = Config(config_dict=flags(topk=[3], valid_metric="NDCG@3", MAX_ITEM_LIST_LENGTH=3, user_inter_num_interval="[2,inf)"))
    prepared = prepare(config)
    return data_report(read_inter(config), prepared, 3), cold_report(prepared)


def test_counts_before_and_after_the_filter(reports):
    data, _ = reports
    assert data["in_files"] == {"users": 6, "items": 6, "interactions": 26}
    assert data["after_filter"] == {"users": 5, "items": 6, "interactions": 25}
    assert data["duplicates"] == {"in_files": 1, "after_filter": 1}
    assert data["rows"]["validation"] == data["rows"]["test"] == 5
    assert data["history"] == {"shortest": 5, "median": 5.0, "p90": 5.0, "longest": 5, "max_length": 3, "share_longer": 1.0}


def test_ties_here_and_for_plain_recbole(reports):
    ties = reports[0]["ties"]
    assert ties["float64"] == {
        "share_of_steps": 0.05, "validation_users": 1, "share_of_validation_users": 0.2, "test_users": 1, "share_of_test_users": 0.2,
    }
    assert ties["float32"] == {
        "share_of_steps": 0.1, "validation_users": 2, "share_of_validation_users": 0.4, "test_users": 2, "share_of_test_users": 0.4,
    }


def test_cold_items(reports):
    assert reports[1] == {
        "items_without_training": 1, "validation": {"cold_items": 0, "users": 0, "share_of_users": 0.0},
        "test": {"cold_items": 1, "users": 1, "share_of_users": 0.2},
    }
