"""Columns of raw tables by meaning: found by their names, and turned into numbers and times, with the row named where it fails."""

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

NAMES = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "customer", "visitorid", "memberid", "accountid", "personid", "clientid"),
    "item": ("itemid", "item", "iid", "parentasin", "asin", "productid", "product", "movieid", "articleid", "videoid", "newsid", "bookid", "sku", "isbn"),
    "timestamp": ("timestamp", "time", "ts", "date", "datetime", "unixreviewtime", "unixtime", "createdat", "eventtime", "tdat", "orderdate"),
    "rating": ("rating", "ratings", "stars", "score", "overall"),
    "image": ("imageurl", "imgurl", "imurl", "image", "img", "posterurl", "poster", "picture", "pictureurl", "coverurl", "cover", "thumbnail", "photo",
              "imagefile", "imagepath", "imagelink"),
}  # fmt: skip
UNITS = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


def find_column(columns, kind, given=None, file="", required=True):
    """The column of a kind (user, item, timestamp, rating, image) by the name given, or by the usual names in their order.

    Raises:
        ValueError: no such column, or none that looks like it.
    """
    if given is not None:
        if given not in columns:
            raise ValueError(f"{file}: has no column {given}. Columns: {', '.join(map(str, columns))}.")
        return given
    plain = {}
    for name in columns:
        plain.setdefault(re.sub(r"[\W_]", "", str(name).split(":")[0].lower()), name)
    for name in NAMES[kind]:
        if name in plain:
            return plain[name]
    if required:
        raise ValueError(f"{file}: no column looks like the {kind}; name it with --{kind}-column. Columns: {', '.join(map(str, columns))}.")
    return None


def to_numbers(values, file, first_row, column):
    """Values as float64; empty cells are NaN.

    Raises:
        ValueError: a value is no number, or infinite; names file, row and column.
    """
    values = _series(values)
    try:
        numbers = pd.to_numeric(values, errors="coerce")
    except OverflowError:  # an integer of hundreds of digits, which JSON may hold
        numbers = pd.to_numeric(values.map(str), errors="coerce")
    numbers = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    _check(values, ~np.isfinite(numbers), file, first_row, column, "number")
    return numbers


def _series(values):
    return values.reset_index(drop=True) if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)


def check_ids(values, file, first_row, column):
    """Raise ValueError where an id is a list or an object of JSON; names file, row and column."""
    for row, value in enumerate(values, start=first_row):
        if type(value).__hash__ is None:
            raise ValueError(f"{file}, row {row}: {column} is a {type(value).__name__}, {str(value)[:40]}; an id is a text or a number.")


def _check(values, bad, file, first_row, column, kind):
    if bad.any():
        for place in np.flatnonzero(bad):
            value = values.iloc[place]
            missing = pd.api.types.is_scalar(value) and pd.isna(value)
            if not missing and str(value).strip().lower() not in ("", "nan"):
                raise ValueError(f"{file}, row {first_row + place}: {column} is {str(value)[:40]!r}, not a {kind}.")


class Times:
    """Turns a column of timestamps, part by part, into seconds since 1970 (UTC). Whether it holds numbers or dates is told by its first part.

    Args:
        unit (str): of numbers: s, ms, us, ns, or auto (by size, once all are read).
        date_format (str, optional): of dates (strptime); default ISO 8601.
        zone (str): time zone of dates that name none.
    """

    def __init__(self, unit="auto", date_format=None, zone="UTC"):
        try:
            self.zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"--timezone={zone}: unknown. Write it as Europe/Berlin or UTC.") from error
        self.unit, self.date_format, self.dates = unit, date_format, True if date_format else None

    def __call__(self, values, file, first_row, column):
        """Seconds where dates; numbers as they are, to be scaled by :meth:`scale` at the end. float64, NaN where empty."""
        values = _series(values)
        if pd.api.types.is_datetime64_any_dtype(values):
            self.dates = True
            return self._seconds(values)
        if self.dates is None:
            some = values[values.notna() & (values.astype(str).str.strip() != "")].head(1)
            self.dates = None if some.empty else bool(pd.to_numeric(some.map(str), errors="coerce").isna().all())
        if not self.dates:
            return to_numbers(values, file, first_row, column)
        text = values.astype(str).str.strip()
        try:
            parsed = pd.to_datetime(text, format=self.date_format or "ISO8601", utc=True, errors="coerce")
        except ValueError as error:
            raise ValueError(f"--timestamp-format={self.date_format}: not a form of dates ({error}). Write it as %d/%m/%Y.") from error
        kind = f"date of the form {self.date_format}" if self.date_format else "date (ISO 8601; other forms need --timestamp-format)"
        _check(values, parsed.isna().to_numpy(), file, first_row, column, kind)
        naive = parsed.dt.tz_localize(None)
        if self.date_format:
            return self._seconds(naive, "UTC" if "%z" in self.date_format else None)
        named = text.str.contains(r"(?:Z|[T ]\d.*[+-]\d\d(?::?\d\d)?)$", case=False)
        return np.where(named, self._seconds(naive, "UTC"), self._seconds(naive))

    def _seconds(self, times, zone=None):
        if times.dt.tz is None:  # an hour that a clock change skips or repeats is taken as summer time
            times = times.dt.tz_localize(zone or self.zone, nonexistent="shift_forward", ambiguous=np.ones(len(times), dtype=bool))
        times = times.dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[us]")
        seconds = times.to_numpy().astype(np.int64) / 1e6
        return np.where(times.isna(), np.nan, seconds)

    def scale(self, times, column="timestamp"):
        """Scale numbers to seconds, in place.

        Returns:
            str: what was done, for the summary; "" for dates.

        Raises:
            ValueError: the numbers look like dates (20240131).
        """
        if self.dates:
            return "Times were read as dates."
        unit, largest = self.unit, float(np.abs(times).max(initial=0))
        if unit == "auto":
            unit = _unit(largest)
            if _like_dates(times):
                raise ValueError(f"{column}: the numbers look like dates, e.g. {int(times[0])}. Give --timestamp-format %Y%m%d, or --timestamp-unit s.")
            smallest = float(np.abs(times)[np.abs(times) >= 3e8].min(initial=largest))  # 1979, in seconds; less is no time of our days in any unit
            if (first := _unit(smallest)) != unit:
                raise ValueError(f"{column}: {smallest:.0f} looks like {first}, {largest:.0f} like {unit}. Bring them to one unit, or give --timestamp-unit.")
        if unit != "s":
            times /= UNITS[unit]
        return f"Times were read as {unit} ({'given' if self.unit != 'auto' else 'by their size'})."


def _unit(time):
    """The unit in which a number is a time of our days."""
    return next((name for name, limit in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if time < limit), "ns")


def _like_dates(times):
    """Whether all are YYYYMMDD."""
    if not len(times) or times.min() < 19000101 or times.max() > 21001231:
        return False
    month, day = times // 100 % 100, times % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (times == np.floor(times))).all())
