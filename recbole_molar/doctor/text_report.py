"""Text of the items: how much of it there is in each column, and how much of it MIRM reads."""

from pathlib import Path

import numpy as np

from recbole_molar.data.prompt import item_text
from recbole_molar.doctor.data_report import share
from recbole_molar.stages import text_columns

TOKENIZED, MOST_CHARACTERS = 5000, 10_000_000  # most items whose tokens are counted, and about their text in all


def text_report(config, content, prompt):
    """Section "text": each field's coverage and length in characters, and the tokens of the whole against `mirm_max_tokens`.

    Args:
        content (ItemContent): the run's items. prompt (ItemPrompt, optional): with the tokenizer; None where that is not at hand.
    """
    items, n_items = content.items[1:], len(content) - 1
    names = config["item_text_fields"] or text_columns(Path(config["data_path"]) / f"{config['dataset']}.item", config)
    fields = {}
    for name in [names] if isinstance(names, str) else names:
        lengths = [len(item.fields[name]) for item in items if name in item.fields]
        fields[name] = {"filled": share(len(lengths), n_items), "median": _percentile(lengths, 50), "p95": _percentile(lengths, 95)}
    report = {"items": n_items, "without_text": sum(not item.fields for item in items), "fields": fields, "description_field": content.description_field}
    if prompt is not None:
        report["tokens"] = _tokens(items, prompt)
    return report


def _tokens(items, prompt):
    chosen, characters = [], 0
    for place in np.random.default_rng(0).permutation(len(items))[:TOKENIZED]:
        chosen.append(items[place])
        characters += sum(map(len, items[place].fields.values()))
        if characters > MOST_CHARACTERS:
            break
    counts = [whole_length(item, prompt) for item in chosen]
    cut = sum(count > prompt.max_tokens for count in counts)
    return {
        "limit": prompt.max_tokens, "counted_items": len(chosen), "median": _percentile(counts, 50), "p95": _percentile(counts, 95),
        "longest": max(counts, default=0), "cut": cut, "share_cut": share(cut, len(chosen)), "picture_tokens": len(prompt.image_ids),
    }


def whole_length(item, prompt):
    """Tokens of an item's instruction and text if nothing were cut; the picture and [Cur_Item] come on top, as in `ItemPrompt.item`."""
    head = len(prompt.start) + len(prompt.compress[bool(item.fields), item.image_path is not None])
    return head + (len(prompt.encode("\n" + item_text(item.fields) + "\n")) if item.fields else 0)


def _percentile(values, percent):
    return int(np.percentile(values, percent)) if len(values) else 0
