"""Interactions: counts before and after the filter, histories, duplicates, ties in time, and items that are cold."""

from pathlib import Path

import numpy as np
import pandas as pd

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import TARGET_INDEX

EXAMPLES, LONGEST = 5, 60  # names, and characters of a name
PARTS = ("training", "validation", "test")


def read_inter(config):
    """The `.inter` file as it stands, before any filter: a DataFrame of `user`, `item` (strings) and `time` (float64)."""
    path = Path(config["data_path"]) / f"{config['dataset']}.inter"
    separator, encoding = config["field_separator"], config["encoding"]
    header = pd.read_csv(path, sep=separator, encoding=encoding, nrows=0, engine="python").columns
    places = {name.split(":")[0]: name for name in header}
    wanted = {places[config[key]]: name for key, name in (("USER_ID_FIELD", "user"), ("ITEM_ID_FIELD", "item"), ("TIME_FIELD", "time"))}
    types = {column: np.float64 if name == "time" else str for column, name in wanted.items()}
    engine = "c" if len(separator) == 1 else "python"
    return pd.read_csv(path, sep=separator, encoding=encoding, usecols=list(wanted), dtype=types, engine=engine).rename(columns=wanted)


def data_report(raw, prepared, max_length):
    """Section "data".

    Args:
        raw (DataFrame): of :func:`read_inter`. prepared (Prepared): the run's data. max_length (int): MAX_ITEM_LIST_LENGTH.

    Returns:
        dict: counts and shares (0 to 1), JSON-able.
    """
    dataset = prepared.dataset
    lengths = dataset.user_ends - dataset.user_starts
    kept, times = len(dataset.sorted_items), dataset.sorted_times
    pairs = pd.DataFrame({"user": np.repeat(dataset.user_ids, lengths), "item": dataset.sorted_items.numpy()})
    return {
        "in_files": {"users": raw["user"].nunique(), "items": raw["item"].nunique(), "interactions": len(raw)},
        "after_filter": {"users": len(lengths), "items": int(pairs["item"].nunique()), "interactions": kept},
        "rows": {name: len(loader._dataset) for name, loader in zip(PARTS, prepared.loaders)},
        "history": {
            "shortest": int(lengths.min()), "median": float(np.median(lengths)), "p90": float(np.percentile(lengths, 90)), "longest": int(lengths.max()),
            "max_length": max_length, "share_longer": share((lengths - 1 > max_length).sum(), len(lengths)),
        },
        "duplicates": {"in_files": int(raw.duplicated(["user", "item"]).sum()), "after_filter": int(pairs.duplicated().sum())},
        "ties": ties(times, dataset, prepared.loaders),
    }


def ties(times, dataset, loaders):
    """Neighbours in a history with one and the same time, and users whose held-out item such a tie decides.

    Both at float64, as here, and at float32, which is what RecBole alone sees.
    """
    same_user = np.r_[False, dataset.first_of_user[1:] == dataset.first_of_user[:-1]]  # [M]: has a predecessor
    report = {}
    for name, values in (("float64", times), ("float32", times.astype(np.float32))):
        with_earlier = same_user & np.r_[False, values[1:] == values[:-1]]  # [M]
        with_later = np.r_[with_earlier[1:], False]
        report[name] = {"share_of_steps": share(with_earlier.sum(), same_user.sum())}
        for part, loader in zip(PARTS[1:], loaders[1:]):
            targets = loader._dataset.inter_feat[TARGET_INDEX].numpy()
            hanging = with_earlier[targets] | with_later[targets]
            report[name].update({f"{part}_users": int(hanging.sum()), f"share_of_{part}_users": share(hanging.sum(), len(targets))})
    return report


def cold_report(prepared):
    """Section "cold": items of validation and test that no training interaction holds."""
    dataset, known = prepared.dataset, training_counts(prepared) > 0
    report = {"items_without_training": int((~known[1:]).sum())}
    for part, loader in zip(PARTS[1:], prepared.loaders[1:]):
        rows = loader._dataset.inter_feat
        targets = rows[dataset.iid_field].numpy()
        cold = ~known[targets]
        report[part] = {"cold_items": len(np.unique(targets[cold])), "users": int(cold.sum()), "share_of_users": share(cold.sum(), len(targets))}
    return report


def training_counts(prepared):
    """Training interactions of each item, ndarray [n_items]."""
    dataset = prepared.dataset
    if dataset.held_out:
        return dataset.item_popularity().numpy()
    targets = prepared.loaders[0]._dataset.inter_feat[TARGET_INDEX].numpy()  # split by ratio
    seen = np.union1d(targets, dataset.first_of_user[targets])
    return np.bincount(dataset.sorted_items.numpy()[seen], minlength=dataset.item_num)


def some(names):
    """How many there are and the first few, fit to print whatever stands in them: JSON-able."""
    names = sorted(names, key=lambda name: (len(name), name))
    return {"count": len(names), "examples": [printable(name if len(name) <= LONGEST else name[: LONGEST - 1] + "…") for name in names[:EXAMPLES]]}


def printable(text):
    """The text with a � for each control character, which a terminal would obey, and for each byte that is no UTF-8."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def share(part, whole):
    """part / whole, 0 where there is nothing."""
    return round(float(part) / float(whole), 6) if whole else 0.0
