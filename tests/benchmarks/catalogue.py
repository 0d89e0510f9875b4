"""The catalogue through MIRM, against plain padded batches in catalogue order as transformers computes them; and one changed item of a finished table.

    OMP_NUM_THREADS=1 python -m tests.benchmarks --rows=[catalogue] --data_path=../shared/data
"""

import dataclasses
import tempfile
import time

import torch

from recbole_molar.config import Config
from recbole_molar.data.item_content import ItemContent
from recbole_molar.device import make_accelerator
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.quick_start import prepare, read_content
from recbole_molar.stages import build_mirm
from as_transformers import as_transformers_computes
from side_by_side import Row, as_they_stand, least_seconds

SAMPLE, WHOLE = 768, 512  # items of the first rows, in catalogue order; tokens that hold nearly every text of ml-1m


def measure(given):
    """Three rows: texts whole, texts cut as a run cuts them, one changed item."""
    options = {"dataset": "ml-1m", "use_cpu": True, **given, "model": "Molar"}
    yield encoding(*mirm_of({**options, "mirm_max_tokens": WHOLE}), f"texts whole, {WHOLE} tokens at most")
    mirm, accelerator, config = mirm_of(options)
    yield encoding(mirm, accelerator, config, f"texts cut at {config['mirm_max_tokens']} tokens")
    yield one_changed(mirm, accelerator, config)


def mirm_of(options):
    """MIRM before stage 1, the accelerator and the configuration of a run."""
    config = Config(config_dict=options)
    accelerator = make_accelerator(config["precision"], use_cpu=True)
    return build_mirm(config, read_content(config, prepare(config).dataset)).to(accelerator.device).eval(), accelerator, config


def encoding(mirm, accelerator, config, texts):
    """The first items of the catalogue both ways; the embeddings must be the same to rounding."""
    ids, size = list(range(1, min(SAMPLE, len(mirm.collator.content) - 1) + 1)), config["mirm_encode_batch_size"]

    @torch.no_grad()
    def sorted_by_length():
        return mirm.encode_items(ids, accelerator)

    @torch.no_grad()
    def in_catalogue_order():
        rows = torch.zeros(len(ids), mirm.embedding_dim)
        with as_transformers_computes(mirm), accelerator.autocast():
            for places, batch in as_they_stand(mirm.collator, ids, size):
                rows[places] = mirm(batch).float()
        return rows

    ours, theirs, found, expected = least_seconds(sorted_by_length, in_catalogue_order, rounds=2)
    apart = float((torch.nn.functional.cosine_similarity(found, expected) - 1).abs().max())
    note = f"{len(ids) / ours:.0f} items/s; cosine of the embeddings within {apart:.0e} of 1, {accelerator.mixed_precision}"
    return Row(f"encoding {len(ids)} items, {texts}", "padded batches in catalogue order", ours, theirs, 2, note)


def one_changed(mirm, accelerator, config):
    """A table of all items, and the same after one of them has another title."""
    content = mirm.collator.content
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        ItemEmbedding(folder).fill(mirm, accelerator)
        theirs = time.process_time() - start
        items = list(content.items)
        items[1] = dataclasses.replace(items[1], fields={**items[1].fields, next(iter(items[1].fields)): "Another title"})
        mirm.collator = type(mirm.collator)(
            ItemContent(items, content.description_field), mirm.collator.prompt, mirm.collator.image_inputs, tuple(config["mirm_image_size"]),
            mirm.collator.pad_id, mirm.collator.image_token_id,
        )
        table = ItemEmbedding(folder)
        start = time.process_time()
        table.fill(mirm, accelerator)
        ours = time.process_time() - start
        assert table.encoded == 1
    return Row("one changed item", f"encoding all {len(content) - 1:,}", ours, theirs, 100, "reading, hashing and writing the table included")
