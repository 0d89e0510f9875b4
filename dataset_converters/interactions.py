"""Interactions as arrays of codes: collected by parts, then filtered (rating, duplicates, k-core). No Python object per row."""

import re
from collections import Counter
from urllib.parse import quote

import numpy as np
import pandas as pd

RESERVED = {  # words that RecBole's reader (pandas) takes for a missing value, and RecBole's padding
    "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN",
    "-1.#QNAN", "[PAD]",
}  # fmt: skip
UNSAFE = re.compile(r'[\x00-\x1f\x7f"\\/\u0085\u2028\u2029\ud800-\udfff]|%(?=[0-9A-Fa-f]{2})')


def safe_id(text):
    """An id as it is written: percent-encoded where RecBole's reader or a file name could not hold it (`a/b` -> `a%2Fb`).

    Tabs and line breaks, quotes, slashes and backslashes are encoded, a `%` only where it would read as an encoding, and the
    first letter of words that stand for a missing value or padding there (`NA`, `[PAD]`). `urllib.parse.unquote` gives the id back.
    """
    if text in RESERVED:
        return f"%{ord(text[0]):02X}{text[1:]}"
    return UNSAFE.sub(lambda match: quote(match[0], safe="", errors="replace"), text)


def id_text(value):
    """A raw id as text without white space around it; "" for None and NaN. A float such as 12.0 (an integer column with gaps) is 12."""
    if isinstance(value, float):
        if value != value:
            return ""
        value = int(value) if value.is_integer() else value
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return "" if value is None or value is pd.NA or value is pd.NaT else str(value).strip()


class _Ids:
    """Ids in the order first seen; a call turns a column of raw ids into codes, -1 where there is none."""

    def __init__(self):
        self.codes = {}

    def __call__(self, values):
        codes, unique = pd.factorize(np.asarray(values, dtype=object))
        table = np.empty(len(unique) + 1, dtype=np.int32)
        table[-1] = -1
        for place, value in enumerate(unique):
            text = id_text(value)
            table[place] = self.codes.setdefault(text, len(self.codes)) if text else -1
        return table[codes]

    def names(self):
        return np.array([safe_id(text) for text in self.codes], dtype=object)


class InteractionReader:
    """Collects interactions by parts; `finish` gives :class:`Interactions`."""

    def __init__(self):
        self.user_ids, self.item_ids, self.parts, self.dropped = _Ids(), _Ids(), [], Counter()

    def add(self, users, items, times, ratings=None):
        """Add a part: ids of any kind, times (float64 seconds), ratings (float, optional). Rows without an id or a time (NaN) are dropped."""
        user, item, time = self.user_ids(users), self.item_ids(items), np.asarray(times, dtype=np.float64)
        keep = (user >= 0) & (item >= 0) & np.isfinite(time)
        self._count("without a user or item id", ((user < 0) | (item < 0)).sum())
        self._count("without a time", ((user >= 0) & (item >= 0) & ~np.isfinite(time)).sum())
        part = [user[keep], item[keep], time[keep]]
        if ratings is not None:
            part.append(np.asarray(ratings, dtype=np.float32)[keep])
        self.parts.append(part)

    def _count(self, cause, number):
        if number:
            self.dropped[cause] += int(number)

    def finish(self, source="the input"):
        """The interactions; `source` names them in an error.

        Raises:
            ValueError: there is none.
        """
        if not sum(len(part[0]) for part in self.parts):
            raise ValueError(f"{source}: no interaction was read ({describe(self.dropped) or 'the files hold no row'}).")
        columns = []
        for place in range(len(self.parts[0])):
            columns.append(np.concatenate([part[place] for part in self.parts]))
            for part in self.parts:
                part[place] = None
        self.parts = []
        return Interactions(self.user_ids.names(), self.item_ids.names(), *columns, dropped=self.dropped)


class Interactions:
    """Interactions in the order of the file.

    Args:
        user_names, item_names (ndarray of str): id of each code, as it is written.
        user, item (int32 [M]): codes; time (float64 [M]): seconds; rating (float32 [M], optional).
        dropped (Counter, optional): rows left out, by cause.
    """

    def __init__(self, user_names, item_names, user, item, time, rating=None, dropped=None):
        self.user_names, self.item_names = user_names, item_names
        self.user, self.item, self.time, self.rating = user, item, time, rating
        self.dropped = Counter() if dropped is None else dropped
        self.duplicates, self.read = 0, len(user)

    def __len__(self):
        return len(self.user)

    @property
    def n_users(self):
        return int((np.bincount(self.user, minlength=1) > 0).sum())

    def item_set(self):
        """Ids of all items that are left, as written."""
        return set(self.item_names[np.bincount(self.item, minlength=len(self.item_names)) > 0])

    def _keep(self, mask, cause):
        number = int(len(mask) - mask.sum())
        if number:
            self.dropped[cause] += number
            for name in ("user", "item", "time", "rating"):
                if getattr(self, name) is not None:
                    setattr(self, name, getattr(self, name)[mask])

    def filter(self, min_rating=None, drop_duplicates=False, k_core=0):
        """Filter in place: rating, then duplicates of user and item (always counted; the earliest stays), then the k-core.

        Raises:
            ValueError: no interaction is left, or there is no rating to filter by.
        """
        if k_core < 0:
            raise ValueError(f"--k-core={k_core}: must be 0 or more.")
        if min_rating is not None and not np.isfinite(min_rating):
            raise ValueError(f"--min-rating={min_rating}: must be a number.")
        if min_rating is not None:
            if self.rating is None:
                raise ValueError(f"--min-rating={min_rating}: the interactions have no rating.")
            self._keep(self.rating >= min_rating, f"rated below {min_rating:g}")
        repeats = self._repeats()
        self.duplicates, self.read = int(repeats.sum()), len(self)
        if drop_duplicates:
            self._keep(~repeats, "repeating a user and item")
        self._k_core(k_core)
        if not len(self):
            raise ValueError(f"no interaction is left after the filters: {describe(self.dropped)}.")
        return self

    def _repeats(self):
        """Mask [M] of rows whose user and item came earlier in time (ties: earlier in the file)."""
        pair = self.user.astype(np.int64) * len(self.item_names) + self.item
        order = np.lexsort((self.time, pair))  # stable
        pair = pair[order]
        repeats = np.zeros(len(self), dtype=bool)
        repeats[order[1:]] = pair[1:] == pair[:-1]
        return repeats

    def _k_core(self, k):
        """Drop users and items with fewer than k interactions, again and again until none is left."""
        while k > 1:
            users, items = np.bincount(self.user, minlength=1), np.bincount(self.item, minlength=1)
            mask = (users[self.user] >= k) & (items[self.item] >= k)
            if mask.all():
                break
            self._keep(mask, f"outside the {k}-core")


def describe(dropped):
    """Counts by cause as words: "3 without a time, 2 rated below 4"."""
    return ", ".join(f"{number:,} {cause}" for cause, number in dropped.items())


def add_filter_arguments(parser):
    """The filters that every converter of interactions offers."""
    group = parser.add_argument_group("filters, in this order")
    group.add_argument("--min-rating", type=float, metavar="R", help="keep interactions rated R or more (ratings to implicit feedback)")
    group.add_argument("--drop-duplicates", action="store_true", help="keep the earliest of several interactions of one user and item (always counted)")
    group.add_argument("--k-core", type=int, default=0, metavar="K", help="keep users and items with K interactions or more, until all have them")
