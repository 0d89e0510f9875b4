"""Item ids -> batches that an MLLM reads; items with and without an image never share one."""

import numpy as np
import torch


class ItemCollator:
    """Builds batches of items.

    Args:
        content (ItemContent): the items.
        prompt (ItemPrompt): writes an item as token ids.
        image_inputs (callable): list of uint8 [height, width, 3] -> dict of the model's image tensors.
        image_size (tuple): (width, height).
        pad_id (int), padding_side (str): `right` or `left`.
        image_token_id (int): the token that a piece of an image replaces.
    """

    def __init__(self, content, prompt, image_inputs, image_size, pad_id, image_token_id, padding_side="right"):
        self.content, self.prompt, self.image_inputs = content, prompt, image_inputs
        self.images = content.images(tuple(image_size))
        self.pad_id, self.image_token_id, self.padding_side = pad_id, image_token_id, padding_side
        self._tokens = {}

    def tokens(self, item, parts=None):
        """Token ids of one item and whether an image is among them.

        Args:
            item (int): internal id.
            parts (str, optional): None takes all; `image`, the image alone; `attributes`, the text without the description.
        """
        if (item, parts) not in self._tokens:
            row = self.content.items[item]
            fields = {} if parts == "image" else dict(row.fields)
            if parts == "attributes":
                fields.pop(self.content.description_field, None)
            has_image = parts != "attributes" and self.images.get(item) is not None
            self._tokens[item, parts] = np.asarray(self.prompt.item(fields, has_image), dtype=np.int32), has_image
        return self._tokens[item, parts]

    def batches(self, items, batch_size, parts=None):
        """Split items into batches of similar length, with an image or without.

        Yields:
            tuple: (positions in `items`, batch); each position comes once.
        """
        items = [int(item) for item in items]
        if parts != "attributes":
            self.images.read_ahead(items)
        rows = [self.tokens(item, parts) for item in items]
        for _, chosen in places_of_batches([has_image for _, has_image in rows], [len(ids) for ids, _ in rows], batch_size):
            yield chosen, self.collate([items[place] for place in chosen], parts)

    def collate(self, items, parts=None):
        """One batch: `input_ids`, `attention_mask`, `mm_token_type_ids` [N, T], and the model's image tensors.

        All items must have an image, or none.
        """
        rows = [self.tokens(item, parts) for item in items]
        has_image = rows[0][1]
        assert all(other is has_image for _, other in rows), "items with and without an image in one batch"
        batch = pad_rows([ids for ids, _ in rows], self.pad_id, self.padding_side)
        if has_image:
            batch["mm_token_type_ids"] = (batch["input_ids"] == self.image_token_id).long()
            batch.update(self.image_inputs([self.images.get(item) for item in items]))
        return batch


def places_of_batches(present, lengths, batch_size):
    """Split rows into batches of similar length, those that have something apart from those that lack it.

    Args:
        present (list of bool), lengths (list of int): of each row. batch_size (int): most rows of a batch.

    Yields:
        tuple: whether its rows have it, their places in the lists; each place comes once.
    """
    for wanted in (True, False):
        places = sorted((place for place, has in enumerate(present) if has is wanted), key=lengths.__getitem__)
        for start in range(0, len(places), batch_size):
            yield wanted, places[start : start + batch_size]


def pad_rows(rows, pad_id, side="right"):
    """Rows of token ids as `input_ids` and `attention_mask`, both [N, T]."""
    longest = max(len(ids) for ids in rows)
    input_ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        place = slice(0, len(ids)) if side == "right" else slice(longest - len(ids), longest)
        input_ids[row, place] = torch.as_tensor(np.asarray(ids), dtype=torch.long)
        mask[row, place] = 1
    return {"input_ids": input_ids, "attention_mask": mask}
