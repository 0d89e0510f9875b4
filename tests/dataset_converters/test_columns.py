"""Columns by meaning: which is which, numbers, and times with their zones, clock changes and units."""

import numpy as np
import pandas as pd
import pytest

from dataset_converters.columns import Times, find_column, to_numbers


@pytest.mark.parametrize("columns, kind, expected", [
    (["userId", "movieId"], "user", "userId"), (["USER ID", "x"], "user", "USER ID"), (["user_id:token", "x"], "user", "user_id:token"),
    (["asin", "parent_asin"], "item", "parent_asin"), (["item", "item_id"], "item", "item_id"), (["date", "timestamp"], "timestamp", "timestamp"),
    (["imUrl", "title"], "image", "imUrl"), (["t_dat", "x"], "timestamp", "t_dat"), ([1, "Überall", "overall"], "rating", "overall"),
])  # fmt: skip
def test_columns_are_found_by_their_usual_names(columns, kind, expected):
    assert find_column(columns, kind) == expected


def test_a_column_given_or_missing():
    assert find_column(["a", "user"], "user", "a") == "a" and find_column(["a"], "rating", required=False) is None
    with pytest.raises(ValueError, match="f.csv: has no column b. Columns: a, user"):
        find_column(["a", "user"], "user", "b", "f.csv")
    with pytest.raises(ValueError, match="f.csv: no column looks like the user; name it with --user-column"):
        find_column(["member"], "user", None, "f.csv")


def test_numbers():
    assert to_numbers([" 1 ", "2.5", "-1e3", 4, True], "f", 1, "c").tolist() == [1, 2.5, -1000, 4, 1]
    assert np.isnan(to_numbers(["", None, "nan", " ", float("nan"), pd.NA], "f", 1, "c")).all()
    assert to_numbers(["1700000000123"], "f", 1, "c")[0] == 1700000000123
    for value in ("1,5", "five", "1 2", "0x10"):
        with pytest.raises(ValueError, match="f, row 11: c is '.*', not a number"):
            to_numbers(["1", value], "f", 10, "c")


def seconds(values, unit="auto", form=None, zone="UTC"):
    """All parts at once, scaled."""
    times = Times(unit, form, zone)
    numbers = times(values, "f", 1, "time")
    times.scale(numbers)
    return numbers.tolist()


@pytest.mark.parametrize("text, zone, expected", [
    ("2023-11-14T22:13:20Z", "UTC", 1700000000), ("2023-11-14 22:13:20", "UTC", 1700000000),
    ("2023-11-14T23:13:20+01:00", "Asia/Tokyo", 1700000000), ("2023-11-14 23:13:20+0100", "Asia/Tokyo", 1700000000),
    ("2023-11-14T17:13:20-05", "Asia/Tokyo", 1700000000), ("20231114T231320+0100", "Asia/Tokyo", 1700000000), ("20231114T221320Z", "Asia/Tokyo", 1700000000),
    ("2023-11-15T07:13:20", "Asia/Tokyo", 1700000000), ("2023-11-15 07:13:20.5", "Asia/Tokyo", 1700000000.5), ("2023-11-15", "Asia/Tokyo", 1699974000),
    ("2023-11-14T22:13:20.123456Z", "UTC", 1700000000.123456), ("2023-11-14T22:13", "UTC", 1699999980), ("1969-12-31T23:59:59Z", "UTC", -1),
    ("1900-01-01", "UTC", -2208988800), ("2023-07-01 12:00", "Europe/Berlin", 1688205600), ("2023-12-01 12:00", "Europe/Berlin", 1701428400),
    ("2023-03-26 02:30", "Europe/Berlin", 1679792400),  # skipped by the clock: 03:00 of summer time
    ("2023-10-29 02:30", "Europe/Berlin", 1698539400),  # twice on the clock: taken as summer time, the first
    ("2023-10-29 02:30+01:00", "Europe/Berlin", 1698543000), ("2023-11-05 01:30", "America/New_York", 1699162200),
])  # fmt: skip
def test_dates(text, zone, expected):
    assert seconds([text], zone=zone) == [expected]


@pytest.mark.parametrize("text, form, zone, expected", [
    ("14/11/2023 22:13:20", "%d/%m/%Y %H:%M:%S", "UTC", 1700000000), ("11/14/2023", "%m/%d/%Y", "Europe/Berlin", 1699916400),
    ("2023-11-14 23:13:20 +0100", "%Y-%m-%d %H:%M:%S %z", "Asia/Tokyo", 1700000000), ("20231114", "%Y%m%d", "UTC", 1699920000),
    ("Nov 14, 2023 10:13:20 PM", "%b %d, %Y %I:%M:%S %p", "UTC", 1700000000),
])  # fmt: skip
def test_dates_of_a_form(text, form, zone, expected):
    assert seconds([text], form=form, zone=zone) == [expected]


@pytest.mark.parametrize("values, unit, expected", [
    ([1700000000], "auto", [1700000000]), ([1700000000123], "auto", [1700000000.123]), ([1700000000123456], "auto", [1700000000.123456]),
    ([1700000000000000000], "auto", [1700000000]), ([0, 1700000000000], "auto", [0, 1700000000]), ([99999999999], "auto", [99999999999]),
    ([100000000000], "auto", [100000000]), ([5000], "ms", [5]), ([20240131], "s", [20240131]), ([-1.5, 3], "auto", [-1.5, 3]),
    (["1700000000 ", ""], "auto", [1700000000, None]), ([20240131.5], "auto", [20240131.5]),
])  # fmt: skip
def test_numbers_of_any_unit(values, unit, expected):
    result = Times(unit)
    numbers = result(values, "f", 1, "time")
    kept = numbers[~np.isnan(numbers)]
    result.scale(kept)
    assert kept.tolist() == [value for value in expected if value is not None] and len(numbers) == len(values)


def test_the_unit_is_told_from_all_parts():
    """The first part may hold small numbers alone: nothing is scaled before the last is read."""
    times = Times()
    numbers = np.concatenate([times(part, "f", 1, "time") for part in (["7", "8"], ["1700000000123"])])
    assert times.scale(numbers) == "Times were read as ms (by their size)." and numbers.tolist() == [0.007, 0.008, 1700000000.123]


def test_dates_or_numbers_is_told_by_the_first_cell_that_is_not_empty():
    times = Times()
    assert np.isnan(times([None, ""], "f", 1, "time")).all()
    assert times([None, "2023-11-14T22:13:20Z"], "f", 3, "time")[1] == 1700000000
    with pytest.raises(ValueError, match="f, row 6: time is '1700000000', not a date"):
        times(["2023-01-01", "1700000000"], "f", 5, "time")
    with pytest.raises(ValueError, match="f, row 2: time is '2023-01-01', not a number"):
        Times()(["1700000000", "2023-01-01"], "f", 1, "time")


def test_columns_of_pandas():
    naive = pd.Series(pd.to_datetime(["2023-11-14 22:13:20", None]))
    assert seconds(naive)[0] == 1700000000 and np.isnan(seconds(naive)[1]) and seconds(naive, zone="Europe/Berlin")[0] == 1699996400
    assert seconds(naive.dt.tz_localize("America/New_York"), zone="Asia/Tokyo")[0] == 1700018000
    assert seconds(naive[:1].astype("datetime64[s]")) == [1700000000]


def test_numbers_that_look_like_dates_are_refused():
    for values in ([20240131], [20240131, 19991231]):
        with pytest.raises(ValueError, match="look like dates, e.g. 20240131. Give --timestamp-format %Y%m%d"):
            seconds(values)
    assert seconds([20240131, 20249999]) == [20240131, 20249999]
    with pytest.raises(ValueError, match="--timezone=Berlin: unknown"):
        Times(zone="Berlin")
