"""A page of a few items as MIRM reads them: the prompt, cut where it is cut, and the picture at its size. Self-contained HTML."""

import base64
import html
import io
import re

import numpy as np
from PIL import Image

from recbole_molar.checkpoint import write_text
from recbole_molar.data.prompt import item_text
from recbole_molar.model.mirm import IMAGE_SIZE

PER_KIND = 2
MOST_SHOWN, MOST_OF_NAME = 3000, 200  # characters of an item's text on either side of the cut, and of a title or id
HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }}
article {{ display: flex; gap: 1.5rem; border-top: 1px solid #ccc; padding: 1.2rem 0 }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.5 ui-monospace, monospace; margin: .5rem 0; background: #f5f5f2; padding: .8rem }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.05rem; margin: 0 }} small, figcaption {{ color: #666 }} figure {{ margin: 0; flex: 0 0 {width}px }}
article > div {{ min-width: 0; flex: 1 }} mark {{ background: #ddebf7 }} .cut {{ color: #6b6b6b; text-decoration: line-through }}
.none {{ height: {height}px; border: 1px dashed #999; color: #666; display: flex; align-items: center; justify-content: center; font-size: 14px }}
</style></head><body><h1>{title}</h1><p>{about}</p>
"""


def write_page(path, config, content, mirm, counts):
    """Write it.

    Args:
        path (Path): file to write. config (Config); content (ItemContent): the run's. mirm (MIRM, optional): for tokens and pictures as they are.
        counts (ndarray): [n_items], training interactions.
    """
    width, height = config["mirm_image_size"] or IMAGE_SIZE
    title = html.escape(f"{config['dataset']}: items as MIRM reads them")
    about = (
        "What stands in the boxes is the decoded prompt. <mark>Marked</mark> is what the prompt adds, <span class='cut'>struck out</span> the text beyond "
        f"mirm_max_tokens={config['mirm_max_tokens']}, which MIRM does not read. Pictures are shown as they are resized."
    )
    if mirm is None:
        about = f"{html.escape(str(config['mirm_backbone']))} is not loaded, so the items' text stands here without instruction, tokens and cut."
    parts = [HEAD.format(title=title, about=about, width=width, height=height)]
    for index, why in chosen_items(content, counts, (width, height)):
        parts.append(_article(index, why, content, mirm, (width, height), int(counts[index])))
    write_text(path, "".join([*parts, "</body></html>\n"]))


def chosen_items(content, counts, size):
    """Internal ids worth a look, each once, with the reason: most and least chosen, longest text, no picture, no text, broken, any."""
    real = np.arange(1, len(content))
    lengths = np.array([0, *(sum(map(len, item.fields.values())) for item in content.items[1:])])
    order = real[np.argsort(-counts[1:], kind="stable")]
    kinds = {
        "most interactions": order, "any": np.random.default_rng(0).permutation(real), "longest text": real[np.argsort(-lengths[1:], kind="stable")][:1],
        "no picture": [i for i in order if content.has_images and content.items[i].image_path is None],
        "broken picture": sorted(content.images(size).broken),
        "no text": [i for i in order if not content.items[i].fields],
        "never in training": order[counts[order] == 0],
    }
    found = {}
    for why, candidates in kinds.items():
        for index in [int(index) for index in candidates if int(index) not in found][:PER_KIND]:
            found[index] = why
    return list(found.items())


def _article(index, why, content, mirm, size, count):
    item, pixels = content.items[index], content.images(size).get(index)
    picture = ""
    if pixels is not None:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        picture = f'<img alt="" width="{size[0]}" height="{size[1]}" src="data:image/png;base64,{data}">'
    elif content.has_images:
        picture = f'<div class="none">{"broken" if item.image_path else "no picture"}</div>'
    prompt, tokens = _prompt(index, item, mirm)
    title, name = html.escape(_shortened(item.title or item.id, MOST_OF_NAME)), html.escape(_shortened(item.id, MOST_OF_NAME))
    head = f"<h2>{title}</h2><small>id {name} · {why} · {count:,} training interactions{tokens}</small>"
    figure = f"<figure>{picture}</figure>" if picture else ""
    return f"<article>{figure}<div>{head}<pre>{prompt}</pre></div></article>\n"


def _prompt(index, item, mirm):
    """The prompt as HTML, and a note on its tokens."""
    if mirm is None:
        return html.escape(_shortened(item_text(item.fields))), ""
    prompt, tokenizer = mirm.collator.prompt, mirm.collator.prompt.tokenizer
    ids, has_image = mirm.collator.tokens(index)
    added = len(prompt.image_ids) * has_image + 1
    head = prompt.start + prompt.compress[bool(item.fields), has_image]
    words = ids[: len(ids) - added].tolist()
    text = prompt.encode("\n" + item_text(item.fields) + "\n") if item.fields else []
    whole = head + text
    read, rest = (html.escape(_shortened(_decode(tokenizer, part))) for part in (words[len(head) :], whole[len(words) :]))
    tail = [_decode(tokenizer, ids[len(words) :])]
    if has_image:
        tail = [f"[picture: {len(prompt.image_ids)} tokens]", _decode(tokenizer, ids[-1:])]
    pieces = [_mark(_decode(tokenizer, words[: len(head)])), read, f'<span class="cut">{rest}</span>' if rest else ""]
    note = f" · {len(words)} of {len(whole)} tokens of text read" + (f", {len(prompt.image_ids)} of the picture" if has_image else "")
    return "".join([*pieces, *map(_mark, tail)]), note


def _decode(tokenizer, ids):
    text = tokenizer.decode([int(token) for token in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "�", text)


def _shortened(text, most=MOST_SHOWN):
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} characters more)"


def _mark(text):
    return f"<mark>{html.escape(text)}</mark>" if text else ""
