"""A step that trains MIRM and DUEG: each item of the batch encoded once, against every position and every negative as the released code does.

    OMP_NUM_THREADS=1 python -m tests.benchmarks --rows=[end_to_end_step] --data_path=../shared/data

The other side pads histories with random items and encodes those too, as transformers computes them. Its seconds are scaled from `SAMPLE` of its items,
and leave out all but MIRM. Its activations do not fit, so that it forgets them between batches of items and computes them anew (`gradient_checkpointing`).
Ours, of a quarter of the items, fit (a peak of 17 GiB): the first row keeps them, as a run does by default, with freed memory kept as in a run; the second
forgets them as the other side does. Losses are compared in fp32, seconds in the precision that a run takes on this machine.
"""

import contextlib
import functools
import tempfile
import time

import torch
from recbole.utils import init_seed
from torch.utils.checkpoint import checkpoint

from recbole_molar.config import Config
from recbole_molar.device import has_cpu_bf16, kept_freed_memory, make_accelerator
from recbole_molar.quick_start import prepare, read_content, train_id_model
from recbole_molar.run_folder import RunFolder, peak_resident
from recbole_molar.stages import build
from as_transformers import as_transformers_computes
from side_by_side import Row, as_they_stand

SAMPLE, CHECKED = 256, 4  # items of the other side that are timed; histories whose loss is compared


def measure(given):
    """Two rows: batch 128, L 50, one negative for each position; the loss must be the same to rounding."""
    with tempfile.TemporaryDirectory() as folder:
        own = {
            "model": "Molar", "MAX_ITEM_LIST_LENGTH": 50, "train_batch_size": 128, "rec_loss": "bce", "align_weight": 0, "mirm_finetune_tasks": [],
            "item_encoding": "end_to_end", "end_to_end_items": 10**6, "gradient_checkpointing": True, "dueg_dropout": 0.0, "item_dropout": 0.0,
            "output_dir": folder, "precision": "fp32", "show_progress": False, "use_cpu": True,
        }
        config = Config(config_dict={"dataset": "ml-1m", **given, **own})
        init_seed(0, True)
        accelerator, prepared = make_accelerator("fp32", use_cpu=True), prepare(config)
        as_in_a_run = functools.partial(torch.autocast, "cpu", torch.bfloat16, enabled=has_cpu_bf16())
        content = read_content(config, prepared.dataset)
        model = build(config, prepared, content, accelerator, RunFolder.create(folder, "step", "Molar", config.as_yaml()), train_id_model).eval()
        batch = next(iter(prepared.loaders[0]))
        few = batch[torch.arange(CHECKED)]

        losses = []
        every_place = functools.partial(_every_place, model)
        for own_table, way in ((model.fresh_table, contextlib.nullcontext), (every_place, as_transformers_computes)):
            model.fresh_table = own_table
            torch.manual_seed(0)  # the same negatives
            with way(model.mirm):
                losses.append(sum(model.calculate_loss(few)).item())
        del model.fresh_table
        encoded = []
        hook = model.mirm.register_forward_hook(lambda module, given, rows: encoded.append(len(rows)))

        def seconds(recompute):
            model.recompute_items = recompute
            encoded.clear()
            start = time.process_time()
            with as_in_a_run():
                loss = sum(model.calculate_loss(batch))
            items = sum(encoded)
            loss.backward()
            model.zero_grad()
            return time.process_time() - start, items

        forgetting, items = seconds(recompute=True)
        with kept_freed_memory(accelerator.device):
            seconds(recompute=False)  # takes the memory that the next step finds
            keeping, _ = seconds(recompute=False)
        hook.remove()
        peak = peak_resident() / 2**30

        places = len(batch) * (2 * config["MAX_ITEM_LIST_LENGTH"] + 1)  # L + 1 items of a history, and L negatives
        sample, rounds = torch.randint(1, model.n_items, (SAMPLE,)), []
        with as_transformers_computes(model.mirm), kept_freed_memory(accelerator.device):
            for _ in range(3):
                start = time.process_time()
                with as_in_a_run():
                    rows = _every_place(model, sample)
                rows.sum().backward()
                model.zero_grad()
                rounds.append(time.process_time() - start)
        theirs = min(rounds) * places / SAMPLE
        note = f"{places:,} encodings there, {items:,} here; {'bf16' if has_cpu_bf16() else 'fp32'}"
        against = f"every position and negative (scaled from {SAMPLE})"
        same = f"losses of {CHECKED} histories {losses[0]:.6f} and {losses[1]:.6f}"
        yield Row("end-to-end step, batch 128, L 50", against, keeping, theirs, 8, f"{note}; {same}; our peak {peak:.1f} GiB")
        yield Row("the same, activations forgotten", against, forgetting, theirs, None, note)


def _every_place(model, *parts):
    """MIRM's table with each given item encoded where it stands, however often: [n_items, D]."""
    items = torch.cat([part[part > 0] for part in parts])
    rows = torch.zeros(len(items), model.mirm.embedding_dim)
    for places, batch in as_they_stand(model.mirm.collator, items.tolist(), model.mirm.encode_batch_size):
        rows = rows.index_put((torch.tensor(places),), checkpoint(model.mirm, batch, use_reentrant=False))
    return model.mirm_table.clone().index_put((items,), rows)
