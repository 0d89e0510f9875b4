"""What reads an item and gives its embedding, MIRM or an encoder of one modality: encoding by id, and rows of a table encoded anew."""

import contextlib
import logging

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recbole_molar.processes import from_main, gathered, own_part
from recbole_molar.sharding import whole_tensor


class ItemEncoder(nn.Module):
    """Base of what :class:`ItemEmbedding` fills a table with.

    Subclasses have `collator` (with `content`, an ItemContent, and `batches(items, batch_size)`, which yields positions and a batch),
    `encode_batch_size`, `embedding_dim`, `forward(batch)`, which gives [N, D], and `fingerprint()`, of all that an embedding depends on
    but the item.
    """

    @property
    def content(self):
        """The ItemContent that it reads."""
        return self.collator.content

    def encode_items(self, ids, accelerator=None, recompute=False, read=None, **chosen):
        """Embeddings of items, with gradients, in the order given.

        Args:
            ids (Tensor or list): internal ids, [N]; each is encoded once however often it stands there.
            accelerator (Accelerator, optional): gives the precision.
            recompute (bool): forget what lies between items and embeddings and compute it anew, batch by batch, in the backward pass: memory
                then holds one batch of items however many there are, for a second pass forward (gradient caching, arXiv 2101.06983).
            read (callable, optional): a batch and its internal ids [B] -> [B, D]; by default the encoder itself, which needs no ids.
            **chosen: for the collator (MIRM: `parts`, see `ItemCollator.tokens`).

        Returns:
            Tensor: [N, D]; zeros for the padding id 0.
        """
        ids = torch.as_tensor(ids).cpu()
        unique, places = ids.unique(return_inverse=True)
        real, device = unique[unique != 0], next(self.parameters()).device
        read = read or (lambda batch, items: self(batch))
        order, states = [], []
        with contextlib.nullcontext() if accelerator is None else accelerator.autocast():
            for positions, batch in self.collator.batches(real.tolist(), self.encode_batch_size, **chosen):
                given = batch, real[positions].to(device)
                states.append(checkpoint(read, *given, use_reentrant=False) if recompute else read(*given))
                order += positions
        if not len(real):
            return torch.zeros(len(ids), self.embedding_dim, device=device)
        rows = torch.cat(states).float()[torch.tensor(order).argsort().to(device)]
        if len(real) < len(unique):
            rows = torch.cat([rows.new_zeros(1, rows.shape[1]), rows])
        return rows[places.to(rows.device)]

    def log_report(self):
        """Log how many items lack text or an image."""
        report = self.content.report()
        logging.getLogger().info(
            "Items: %(items)d; without text: %(no_text)d; without image: %(no_image)d; broken images: %(broken_images)d", report
        )


def hash_weights(digest, model):
    """Feed a module's parameters, with their names, to a hash."""
    for name, value in sorted(model.named_parameters()):
        digest.update(name.encode())
        value = whole_tensor(value.detach()).cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value  # in shards they are float32, and a run may go on with or without those
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())


def some_items(parts, most):
    """The items of a batch, each once, without the padding; drawn from them where there are more than `most`.

    Args:
        parts (list): tensors of internal ids of any shape, or None.

    Returns:
        Tensor: [U], the same on all processes, of the whole batch.
    """
    wanted = gathered(torch.cat([part.flatten() for part in parts if part is not None]).unique()).unique()
    wanted = wanted[wanted > 0]
    return wanted[from_main(torch.randperm(len(wanted), device=wanted.device))[:most]] if len(wanted) > most else wanted


def encoded_anew(encode, table, items):
    """A table with the rows of some items encoded with gradients, each by one process; the table itself is brought up to date in place.

    Args:
        encode (callable): items -> [U, D]. table (Tensor): [n_items, D]; items (Tensor): internal ids, each once, [U].

    Returns:
        Tensor: [n_items, D].
    """
    fresh = gathered(encode(own_part(items)).float())  # [U, D]
    with torch.no_grad():
        table[items] = fresh
    return table.clone().index_put((items,), fresh)
