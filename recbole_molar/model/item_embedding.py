"""The item embedding table: every item through MIRM once, kept on disk by fingerprint of model and content."""

import contextlib
import hashlib
import logging
import time
from pathlib import Path

import torch
from tqdm import tqdm

from recbole_molar.checkpoint import load_tensors, save_tensors
from recbole_molar.lock import cache_lock
from recbole_molar.processes import bar_off, gathered, n_processes, of_all, own_part, process_index
from recbole_molar.sharding import whole

COLLAPSED = 10  # effective rank below which a user is warned
MOST_BYTES, MOST_ROWS = 2**31, 1_000_000  # of a cache file that holds other items too; the names of more rows do not fit into its header
MOST_LOOKED_AT = 4096  # items whose embeddings say the rank


class ItemEmbedding:
    """Fills the table, reusing what is on disk.

    A cache file belongs to one state of MIRM; inside it each row is kept under the hash of its item's text and image, so that one
    changed item costs one pass, and another filter of the same data set none. Rows of other items stay while the file is below MOST_BYTES.

    Args:
        cache_dir (Path, optional): None keeps nothing.
        save_minutes (float): time between saves of a table that is being filled.
    """

    def __init__(self, cache_dir=None, save_minutes=5.0):
        self.cache_dir, self.save_minutes = cache_dir and Path(cache_dir), save_minutes
        self.encoded = 0

    def fill(self, mirm, accelerator=None):
        """The table.

        Of several processes each encodes its part of the items; all have the whole table in the end, and the main one keeps it on disk.

        Args:
            mirm (MIRM): after stage 1. accelerator (Accelerator, optional): device and precision.

        Returns:
            Tensor: float32 [n_items, D] on the CPU; row 0 is zero. `self.encoded` then says how many rows were computed.
        """
        start, marks = time.time(), mirm.content.fingerprints()
        path = of_all(self._file(mirm, accelerator))[0]  # where weights differ in a last bit, so would their names
        with cache_lock(path and self.cache_dir, path and path.stem, accelerator):
            if accelerator:
                accelerator.wait_for_everyone()  # until another run has made what is read next
            return self._fill(path, mirm, marks, accelerator, start)

    def _fill(self, path, mirm, marks, accelerator, start):
        known = self._read(path, mirm.embedding_dim)
        missing = [item for item in range(1, len(marks)) if marks[item] not in known]
        self.encoded = len(missing)
        if missing:
            if accelerator:
                mirm.to(accelerator.device)
            with whole(mirm):
                self._encode(mirm, missing, marks, known, accelerator, path)
        table = _table(marks, known, mirm.embedding_dim)
        if missing:
            self._write(path, known, set(marks[1:]))
        mirm.log_report()
        _log_summary(table, len(missing), time.time() - start)
        return table

    def known(self, mirm, accelerator=None):
        """The file of this state of MIRM (None without a cache), and what it holds so far: hash of an item -> its row."""
        path = self._file(mirm, accelerator)
        return path, self._read(path, mirm.embedding_dim)

    def _file(self, mirm, accelerator):
        if not self.cache_dir:
            return None
        precision = accelerator.mixed_precision if accelerator else "no"
        key = hashlib.sha256(f"{mirm.fingerprint()}{precision}".encode()).hexdigest()
        return self.cache_dir / f"items-{key[:16]}.safetensors"

    def stored(self, mirm, accelerator=None):
        """The table as it lies on disk; arguments and result as of :meth:`fill`, but nothing is computed.

        Raises:
            ValueError: an item is missing.
        """
        marks, (path, known) = mirm.content.fingerprints(), self.known(mirm, accelerator)
        missing = sum(mark not in known for mark in marks[1:])
        if missing:
            raise ValueError(f"{path}: the embeddings of {missing} items are not there.")
        return _table(marks, known, mirm.embedding_dim)

    @torch.no_grad()
    def _encode(self, mirm, missing, marks, known, accelerator, path):
        was_training = mirm.training
        mirm.eval()
        saved, progress = time.time(), tqdm(total=len(missing), desc="Item embeddings", unit="item", disable=bar_off())
        # Long stretches: within one, the collator sorts by length.
        stretch = 64 * mirm.encode_batch_size * n_processes()
        for start in range(0, len(missing), stretch):
            items = missing[start : start + stretch]
            own = own_part(items)
            with accelerator.autocast() if accelerator else contextlib.nullcontext():  # which casts trained weights once for all batches
                for chosen, batch in mirm.collator.batches(own, mirm.encode_batch_size):
                    rows = mirm(batch)
                    _check_finite(rows, [mirm.content.items[own[place]].id for place in chosen])
                    for place, row in zip(chosen, rows.float().cpu()):
                        known[marks[own[place]]] = row
                    progress.update(len(chosen) * n_processes())
                    if time.time() - saved > 60 * self.save_minutes:
                        self._write(path, known)
                        saved = time.time()
            if n_processes() > 1:
                rows = torch.stack([known[marks[item]] for item in own]) if own else torch.zeros(0, mirm.embedding_dim)
                rows = gathered(rows.to(accelerator.device)).cpu()
                known.update((marks[item], row) for item, row in zip(items, rows, strict=True))
        progress.close()
        mirm.train(was_training)

    def _read(self, path, dim):
        """Hash of an item -> its row, [D], from a file whose checksum holds."""
        if not path or not path.is_file():
            return {}
        try:
            tensors, meta = load_tensors(path)
            rows, items = tensors.get("rows"), meta.get("items")
            is_list = isinstance(items, list) and all(isinstance(mark, str) for mark in items)
            if not is_list or rows is None or rows.dtype != torch.float32 or rows.shape != (len(items), dim):
                raise ValueError(f"{path}: holds no item embeddings of {dim} dimensions.")
            if _checksum(tensors) != meta.get("checksum"):
                raise ValueError(f"{path}: its checksum does not hold.")
        except ValueError as error:
            logging.getLogger().warning("%s The item embeddings are computed anew.", error)
            return {}
        return dict(zip(meta["items"], tensors["rows"].unbind()))

    def _write(self, path, known, keep=None):
        if not path or process_index():
            return
        kept = [mark for mark in known if keep is None or mark in keep]
        if keep is not None:
            others, size = [mark for mark in known if mark not in keep], 4 * len(next(iter(known.values())))
            room = max(0, min(MOST_BYTES // size, MOST_ROWS) - len(kept))
            kept = others[max(0, len(others) - room) :] + kept
        tensors = {"rows": torch.stack([known[mark] for mark in kept])}
        save_tensors(path, tensors, {"items": kept, "checksum": _checksum(tensors)})


def _log_summary(table, computed, seconds):
    log, items, rank = logging.getLogger(), len(table) - 1, effective_rank(table)
    log.info("Item embeddings: %d computed, %d reused; effective rank %.1f of %d [%.1f s]", computed, items - computed, rank, table.size(1), seconds)
    if rank < COLLAPSED and items >= 100:
        log.warning(
            "The item embeddings have all but collapsed: their effective rank is %.1f, so %d items look nearly alike and content cannot tell them apart. "
            "If stage 1 was run, let it pull items apart (user_behavior in mirm_finetune_tasks, or mirm_view_contrast_weight=1) or leave it out "
            "(mirm_finetune_tasks=[]).",
            rank, items,
        )  # fmt: skip


def effective_rank(table):
    """In how many directions the embeddings of a table spread: the exponential of the entropy of their squared singular values, each dimension
    standardised (Roy and Vetterli, 2007, with shares of variance). 1: all lie on one line; D: in all directions alike.

    Args:
        table (Tensor): [n_items, D], row 0 is padding and left out; of many items at most 4,096, evenly spaced, are looked at.

    Returns:
        float: at most D.
    """
    rows = table[1 :: -(-len(table) // MOST_LOOKED_AT)].float()
    rows = rows - rows.mean(0)
    rows = rows / rows.std(0, correction=0).clamp(min=1e-12)
    shares = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0)  # squared singular values
    shares = (shares / shares.sum().clamp(min=1e-12)).clamp(min=1e-12)
    return float((-(shares * shares.log()).sum()).exp())


def _check_finite(rows, ids):
    """Raise ValueError where an embedding of rows [N, D] is not a number; ids (list of str): of their items."""
    wrong = (~torch.isfinite(rows).all(1)).nonzero().flatten().tolist()
    if wrong:
        named = ", ".join(ids[place] for place in wrong[:5])
        raise ValueError(f"the item embeddings of {named} are not finite numbers. Try precision=fp32, or look at these items' texts and pictures.")


def _table(marks, known, dim):
    return torch.stack([torch.zeros(dim), *(known[mark] for mark in marks[1:])])


def _checksum(tensors):
    return hashlib.sha256(tensors["rows"].contiguous().numpy()).hexdigest()
