"""Checks of single values that a type and a range cannot say; and of the many keys of RecBole's models, by the kind of their default."""

import codecs
import re
import sys

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.property_error import PropertyError, bad_value
from recbole.evaluator.register import metric_types

MERGED_KEYS = ("eval_args", "load_col")  # dictionaries of which a user may give a part
OF_SEVERAL_KINDS = ("reranker_CAN_NUM",)  # a number or "500,100,20"
BOUND = r"\s*-?(?:inf|[\d.]+(?:e[-+]?\d+)?)\s*"
MODE = re.compile(r"full|(uni|pop)\d+")
INTERVAL = re.compile(rf"\s*[\[(]{BOUND},{BOUND}[\])]\s*")


def check_kinds(final, defaults, listed):
    """Check the keys without a field in the schema, RecBole's own and its models', against the kind of their default.

    Args:
        final (dict), defaults (dict): key -> value. listed (container of str): keys that the schema checks.

    Raises:
        PropertyError: a value of another kind.
    """
    for key, default in defaults.items():
        value = final[key]
        if key in listed or key in OF_SEVERAL_KINDS:
            continue
        if isinstance(default, bool):
            fits, kind = isinstance(value, (bool, int)) or value is None, "True or False"
        elif isinstance(default, (int, float)):
            least = -sys.maxsize if default < 0 else int(default >= 1 and key.endswith(("_size", "_dim")))
            most = sys.maxsize if isinstance(value, int) else sys.float_info.max
            fits, kind = isinstance(value, (int, float)) and least <= value <= most, f"a number of at least {least}, such as {default}"
        elif isinstance(default, str):
            fits, kind = not isinstance(value, (list, dict, set)), f"a word, such as {default!r}"
        else:
            continue
        if not fits and value != default:
            raise bad_value(key, shown(value), f"must be {kind}.")


def shown(value):
    """A value as an error shows it: short, and an empty text as quotes."""
    return str(value)[:80] if value != "" else "''"


def as_list(value):
    """A property of one or several values as a list; None is none."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


# Validators of single fields: each returns its value. A ValueError of theirs says what stands behind `key=value: `; a PropertyError says all.


def check_metric(name):
    """One of RecBole's metrics."""
    if str(name).lower() not in metric_types:
        raise ValueError(f"unknown. Valid: {', '.join(sorted(metric_types))}.")
    return name


def check_encoding(name):
    """An encoding that Python knows, or None for UTF-8."""
    try:
        codecs.lookup(name or "utf-8")
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError("unknown to Python. Valid: utf-8, utf-8-sig, latin-1 and others.") from error
    return name


def check_interval(text):
    """RecBole's intervals, or None."""
    if text is not None and not all(INTERVAL.fullmatch(part) for part in str(text).split(";")):
        raise ValueError("must be an interval such as '[5,inf)'; several are separated by ';'.")
    return text


def refuse_pickles(value):
    """Nothing but False or None: nothing here writes or reads a pickle."""
    if value:
        raise ValueError("not offered, RecBole would pickle the data. Leave it out; a run keeps what it needs in output_dir.")
    return value


def check_intervals(by_column):
    """`val_interval`: intervals by column."""
    for column, text in _dictionary(by_column).items():
        try:
            check_interval(text if isinstance(text, str) else None)
        except ValueError as error:
            raise PropertyError("val_interval", f"val_interval: {column}={shown(text)}: {error}") from error
    return by_column


def check_columns(by_file):
    """`load_col`: lists of columns by the ending of a file."""
    for suffix, columns in _dictionary(by_file).items():
        if (columns is not None or suffix == "inter") and not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
            raise PropertyError("load_col", f"load_col: {suffix}: {shown(columns)}: must be a list of columns, [user_id, item_id, timestamp].")
    return by_file


def check_clipping(options):
    """`clip_grad_norm`: arguments of torch's function."""
    if options and ("max_norm" not in _dictionary(options) or set(options) - {"max_norm", "norm_type", "error_if_nonfinite", "foreach"}):
        raise ValueError("must be {max_norm: 1}, with norm_type if need be, or ~.")
    return options


def check_negatives(options):
    """`train_neg_sample_args`, as far as RecBole looks at it before it samples."""
    if _dictionary(options).get("distribution", "uniform") not in ("uniform", "popularity", "none", "None", None):
        text = f"train_neg_sample_args.distribution={shown(options['distribution'])}: unknown. Valid: uniform, popularity, none."
        raise PropertyError("train_neg_sample_args", text)
    return options


def check_evaluation(given):
    """`eval_args`: what RecBole would fail on, or pass over."""
    options = _dictionary(given)
    split, mode = options.get("split"), options.get("mode")
    if not isinstance(split, dict) or len(split) != 1 or not _is_split(*next(iter(split.items()))):
        _refuse_evaluation(f".split={shown(split)}: must be {{LS: valid_and_test}} (leave-one-out), {{RS: [0.8, 0.1, 0.1]}} or {{TS: [0.8, 0.1, 0.1]}}.")
    unknown = sorted(map(str, set(options) - {"split", "group_by", "order", "mode"}))
    if unknown:
        _refuse_evaluation(f": {unknown[0]!r}: unknown. Valid: split, group_by, order, mode.")
    modes = mode if isinstance(mode, dict) else {"valid": mode, "test": mode}
    if not {"valid", "test"} <= set(modes) or not all(MODE.fullmatch(str(name)) for name in modes.values()):
        _refuse_evaluation(f".mode={shown(mode)}: must be full, uni100 or the like, or {{valid: full, test: full}}.")
    return given


def _is_split(name, value):
    if name == "LS":
        return value in ("valid_and_test", "valid_only", "test_only")
    numbers = value if name in ("RS", "TS") and isinstance(value, list) else []
    return len(numbers) == 3 and all(isinstance(number, (int, float)) and number >= 0 for number in numbers) and sum(numbers) > 0


def _refuse_evaluation(text):
    raise PropertyError("eval_args", f"eval_args{text}")


def _dictionary(value):
    if value is not None and not isinstance(value, dict):
        raise ValueError("must be a dictionary, {name: value, ...}, or ~.")
    return value or {}
