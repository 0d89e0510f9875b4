"""Which values a property may have: by lists and ranges, and for the many keys of RecBole's models by the kind of their default."""

import codecs
import re
import sys

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole.evaluator.register import metric_types

CHOICES = {
    "mirm_tuning": ("full", "lora", "frozen"),
    "mirm_readout": ("cur_item", "mean"),
    "mirm_finetune_objective": ("through_state", "generation"),
    "item_encoding": ("cached", "end_to_end"),
    "id_training": ("frozen", "joint"),
    "rec_loss": ("bce", "nce", "ce"),
    "precision": ("auto", "bf16", "fp32"),
    "lr_schedule": ("constant", "cosine"),
    "train_windows": ("last", "chunks"),
    "score_function": ("dot", "cosine"),
    "item_adapter": ("none", "linear", "mlp"),
    "learner": ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam"),  # RecBole takes Adam for any other name
}
INFINITY = float("inf")
NUMBERS = {  # key: (type, smallest value, largest value)
    "epochs": (int, 0, INFINITY), "train_batch_size": (int, 1, INFINITY), "eval_batch_size": (int, 1, INFINITY), "MAX_ITEM_LIST_LENGTH": (int, 1, INFINITY),
    "stopping_step": (int, 0, INFINITY), "eval_step": (int, 0, INFINITY), "seed": (int, 0, INFINITY), "gradient_accumulation_steps": (int, 1, INFINITY),
    "learning_rate": (float, 0, INFINITY), "weight_decay": (float, 0, INFINITY), "warmup_ratio": (float, 0, 1), "metric_decimal_place": (int, 1, INFINITY),
    "mirm_finetune_samples": (int, 1, INFINITY), "mirm_finetune_epochs": (int, 0, INFINITY), "mirm_finetune_batch_size": (int, 1, INFINITY),
    "mirm_finetune_learning_rate": (float, 0, INFINITY), "mirm_finetune_history_length": (int, 1, INFINITY), "mirm_bow_weight": (float, 0, INFINITY),
    "mirm_contrast_weight": (float, 0, INFINITY), "mirm_contrast_temperature": (float, 1e-3, INFINITY), "mirm_max_answer_tokens": (int, 1, INFINITY),
    "mirm_max_tokens": (int, 1, INFINITY), "mirm_encode_batch_size": (int, 1, INFINITY), "mirm_lora_rank": (int, 1, INFINITY),
    "mirm_lora_alpha": (float, 0, INFINITY), "mirm_learning_rate": (float, 0, INFINITY), "end_to_end_items": (int, 1, INFINITY),
    **{f"compact_{name}": (int, 1, INFINITY) for name in (
        "hidden_size", "num_layers", "num_heads", "num_kv_heads", "intermediate_size", "vision_size", "vision_layers", "vision_heads", "vocab_size")},
    "item_adapter_size": (int, 1, INFINITY), "item_dropout": (float, 0, 0.99), "dueg_dropout": (float, 0, 0.99), "align_weight": (float, 0, INFINITY),
    "align_temperature": (float, 1e-3, INFINITY), "score_temperature": (float, 1e-3, INFINITY), "nce_negatives": (int, 1, INFINITY),
}
MAX_IMAGE_SIDE = 2048  # pixels
SWITCHES = ("item_text_escaped", "item_standardize", "item_id_residual", "gradient_checkpointing", "mask_history", "train_all_positions")
MERGED_KEYS = ("eval_args", "load_col")  # dictionaries of which a user may give a part
OF_SEVERAL_KINDS = ("dueg_layers", "reranker_CAN_NUM")  # a number or ~, checked once the backbone is known; a number or "500,100,20"
BOUND = r"\s*-?(?:inf|[\d.]+(?:e[-+]?\d+)?)\s*"
INTERVAL = re.compile(rf"\s*[\[(]{BOUND},{BOUND}[\])]\s*")
PICKLED = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")  # RecBole's; nothing here writes or reads a pickle


def check_types(final, defaults):
    """Raise ValueError where a value is not of the kind of its default: RecBole's own keys and those of its models are not listed in NUMBERS."""
    for key, default in defaults.items():
        value = final[key]
        if key in OF_SEVERAL_KINDS:
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
            raise ValueError(f"{key}={str(value)[:80]}: must be {kind}.")
    for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"):
        if not isinstance(final[key], str) or not final[key]:
            raise ValueError(f"{key}={final[key]}: must be the name of a column, such as {defaults[key]!r}.")
    separator = final["field_separator"]
    if not isinstance(separator, str) or not separator:
        raise ValueError(f"field_separator={separator!r}: must be a sign such as '\\t' or ','.")
    try:
        codecs.lookup(final.get("encoding") or "utf-8")
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"encoding={final['encoding']}: unknown to Python. Valid: utf-8, utf-8-sig, latin-1 and others.") from error


def check_values(final):
    """Raise ValueError for a choice, number or metric out of its range, and for what is not offered."""
    for key, choices in CHOICES.items():
        if key in final and (not isinstance(final[key], str) or final[key] not in choices):
            raise ValueError(f"{key}={final[key]}: unknown. Valid: {', '.join(choices)}.")
    for key in PICKLED:
        if final.get(key):
            raise ValueError(f"{key}={final[key]}: not offered, RecBole would pickle the data. Leave it out; a run keeps what it needs in output_dir.")
    for key in ("metrics", "topk"):
        if not as_list(final[key]):
            raise ValueError(f"{key}={final[key]}: is empty; give at least one.")
    for metric in as_list(final["metrics"]):
        if str(metric).lower() not in metric_types:
            raise ValueError(f"metrics={metric}: unknown. Valid: {', '.join(sorted(metric_types))}.")
    for key, (kind, least, most) in NUMBERS.items():
        value = final.get(key, least)
        if isinstance(value, bool) or not isinstance(value, (int, kind)) or not least <= value <= most:
            between = f"of at least {least}" if most == INFINITY else f"from {least} to {most}"
            raise ValueError(f"{key}={value}: must be {'a whole number' if kind is int else 'a number'} {between}.")
    for key in SWITCHES:
        if not isinstance(final.get(key, True), bool):
            raise ValueError(f"{key}={final[key]}: must be True or False.")
    size = final.get("mirm_image_size", [28, 28])
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and 1 <= side <= MAX_IMAGE_SIDE for side in size)):
        raise ValueError(f"mirm_image_size={size}: must be [width, height], whole numbers from 1 to {MAX_IMAGE_SIDE}.")
    for k in as_list(final["topk"]):
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"topk={final['topk']}: must be a whole number of at least 1, or a list of them.")
    for key in (*MERGED_KEYS, "clip_grad_norm", "train_neg_sample_args", "val_interval"):
        if final[key] is not None and not isinstance(final[key], dict):
            raise ValueError(f"{key}={final[key]}: must be a dictionary, {{name: value, ...}}, or ~.")
    name, _, k = str(final["valid_metric"]).partition("@")
    if k not in {str(value) for value in as_list(final["topk"])} or name.lower() not in {str(m).lower() for m in as_list(final["metrics"])}:
        raise ValueError(f"valid_metric={final['valid_metric']}: not computed with metrics={final['metrics']} and topk={final['topk']}.")


def check_dictionaries(final):
    """Raise ValueError for what RecBole would fail on, or pass over, inside `load_col`, `eval_args`, `clip_grad_norm` and intervals."""
    for suffix, columns in (final["load_col"] or {}).items():
        if columns is not None and not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
            raise ValueError(f"load_col: {suffix}: {str(columns)[:80]}: must be a list of columns, [user_id, item_id, timestamp].")
    split = (final["eval_args"] or {}).get("split")
    if not isinstance(split, dict) or not set(split) <= {"LS", "RS", "TS"}:
        raise ValueError(f"eval_args.split={str(split)[:80]}: must be {{LS: valid_and_test}} (leave-one-out) or {{RS: [0.8, 0.1, 0.1]}}.")
    unknown = sorted(map(str, set(final["eval_args"] or {}) - {"split", "group_by", "order", "mode"}))
    if unknown:
        raise ValueError(f"eval_args: {unknown[0]!r}: unknown. Valid: split, group_by, order, mode.")
    mode = (final["eval_args"] or {}).get("mode")
    if not isinstance(mode, str) and not (isinstance(mode, dict) and {"valid", "test"} <= set(mode)):
        raise ValueError(f"eval_args.mode={str(mode)[:80]}: must be full, uni100 or the like, or {{valid: full, test: full}}.")
    unknown = set(final["clip_grad_norm"] or {"max_norm": 1}) - {"max_norm", "norm_type", "error_if_nonfinite", "foreach"}
    if unknown or "max_norm" not in (final["clip_grad_norm"] or {"max_norm": 1}):
        raise ValueError(f"clip_grad_norm={final['clip_grad_norm']}: must be {{max_norm: 1}}, with norm_type if need be, or ~.")
    intervals = {key: final[key] for key in ("user_inter_num_interval", "item_inter_num_interval")}
    intervals.update({f"val_interval: {key}": value for key, value in (final["val_interval"] or {}).items() if isinstance(value, str)})
    for key, value in intervals.items():
        if value is not None and not all(INTERVAL.fullmatch(part) for part in str(value).split(";")):
            raise ValueError(f"{key}={str(value)[:80]}: must be an interval such as '[5,inf)'; several are separated by ';'.")


def as_list(value):
    """A value or a list of them as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
