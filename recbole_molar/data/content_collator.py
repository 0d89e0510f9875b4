"""Item ids -> batches for an encoder of one modality: texts as token ids, or pictures as pixels; items that lack it come apart."""

import numpy as np
import torch

from recbole_molar.data.collator import pad_rows, places_of_batches
from recbole_molar.data.prompt import item_text

ABSENT = "absent"  # key of a batch of items that have nothing to encode


class ContentCollator:
    """Base of the two. Subclasses have `content`, an ItemContent, and give `has(item)`, `collate(items)` and, if it pays, `length(item)`."""

    def batches(self, items, batch_size):
        """Split items into batches of similar length; those without the modality make up batches of their own.

        Yields:
            tuple: (positions in `items`, batch); each position comes once.
        """
        items = [int(item) for item in items]
        self.read_ahead(items)
        for present, chosen in places_of_batches([self.has(item) for item in items], [self.length(item) for item in items], batch_size):
            yield chosen, self.collate([items[place] for place in chosen]) if present else {ABSENT: torch.ones(len(chosen))}

    def read_ahead(self, items):
        """What can be done better for many items at once, before they are asked for one by one."""

    def length(self, item):
        """What the time of an item grows with."""
        return 0


class TextCollator(ContentCollator):
    """Texts of items as token ids.

    Args:
        content (ItemContent): the items. tokenizer: of transformers. max_tokens (int): longest text, special tokens included; cut at its end.
    """

    def __init__(self, content, tokenizer, max_tokens):
        self.content, self.tokenizer, self.max_tokens, self._tokens = content, tokenizer, max_tokens, {}

    def has(self, item):
        """True where the item has text."""
        return bool(self.content.items[item].fields)

    def tokens(self, item):
        """Token ids of an item's text, int32 [T]; what looks like a special token in it is spelled out."""
        if item not in self._tokens:
            text = item_text(self.content.items[item].fields)
            ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens, split_special_tokens=True)["input_ids"]
            self._tokens[item] = np.asarray(ids, dtype=np.int32)
        return self._tokens[item]

    def length(self, item):
        """Tokens of the item."""
        return len(self.tokens(item)) if self.has(item) else 0

    def collate(self, items):
        """`input_ids` and `attention_mask`, both [N, T]."""
        return pad_rows([self.tokens(item) for item in items], self.tokenizer.pad_token_id or 0)


class ImageCollator(ContentCollator):
    """Pictures of items as pixels.

    Args:
        content (ItemContent): the items. processor: an image processor of transformers. size (tuple): (width, height) to read them at.
    """

    def __init__(self, content, processor, size):
        self.content, self.processor, self.images = content, processor, content.images(tuple(size))

    def read_ahead(self, items):
        """Decodes their pictures."""
        self.images.read_ahead(items)

    def has(self, item):
        """True where the item has a picture that can be read."""
        return self.images.get(item) is not None

    def collate(self, items):
        """`pixel_values` [N, 3, height, width]: scaled and normalised as the encoder wants them; their size they have already."""
        pixels = [self.images.get(item) for item in items]
        made = self.processor(pixels, do_resize=False, do_center_crop=False, return_tensors="pt")
        return {"pixel_values": made["pixel_values"]}
