"""The prompts: of an item (MIRM's input, paper's Sec. on MIRM), of the fine-tuning tasks and of a history (CoLLM's), as token ids."""

CUR_ITEM = "[Cur_Item]"
PROMPT_VERSION = 1  # raise it with any change below: cached embeddings are keyed by it

COMPRESS = {
    (True, True): "Compress the text and the image of this item into one embedding.",
    (True, False): "Compress the text of this item into one embedding.",
    (False, True): "Compress the image of this item into one embedding.",
    (False, False): "Nothing is known of this item.",
}
TASKS = {
    "image_text": "Describe the item in the image:",
    "structured_attributes": "Describe the item with these attributes:",
    "user_behavior": "A user chose these items one after another. The next item:",
}

HISTORY = "A user chose these items one after another."  # the titles follow, a line each


def item_text(fields):
    """`name: value` lines of an item; column names lose their underscores."""
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in fields.items())


class ItemPrompt:
    """Writes an item as token ids: instruction, fields, image, [Cur_Item].

    Args:
        tokenizer: of transformers, with [Cur_Item] added.
        image_ids (list): tokens that stand for one image, as the model wants them.
        max_tokens (int): longest instruction and text, in tokens; the text is cut at its end. The image's tokens and [Cur_Item]
            come on top, so that neither can be cut.
    """

    def __init__(self, tokenizer, image_ids, max_tokens):
        self.tokenizer, self.image_ids, self.max_tokens = tokenizer, list(image_ids), max_tokens
        self.cur_item_id = tokenizer.convert_tokens_to_ids(CUR_ITEM)
        self.start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.compress = {key: self.encode(text) for key, text in COMPRESS.items()}

    def encode(self, text):
        """Token ids of text that may hold anything: what looks like a special token in it is spelled out."""
        if not text:
            return []
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def item(self, fields, has_image):
        """Token ids of one item.

        Args:
            fields (dict): column -> text; may be empty.
            has_image (bool): whether pixels go with it.
        """
        head = self.start + self.compress[bool(fields), has_image]
        text = self.encode("\n" + item_text(fields) + "\n") if fields else []
        words = (head + text)[: self.max_tokens]
        return words + (self.image_ids if has_image else []) + [self.cur_item_id]

    def answer(self, text, max_tokens):
        """Token ids of a text to generate, cut to `max_tokens`, with the end-of-text token where it is whole."""
        ids = self.encode(text)
        end = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        return (ids + end)[:max_tokens]


class HistoryPrompt:
    """Writes a history as token ids: instruction, then the items' titles in order.

    Args:
        prompt (ItemPrompt): gives the tokenizer.
        titles (list of str): by internal item id.
        title_tokens (int): longest title, in tokens, the line end before it included; it is cut at its end.
    """

    def __init__(self, prompt, titles, title_tokens):
        self.head = prompt.start + prompt.encode(HISTORY)
        self.titles = [prompt.encode(f"\n{title}")[:title_tokens] for title in titles]

    def write(self, items):
        """One history.

        Args:
            items (list of int): internal ids, oldest first.

        Returns:
            tuple: token ids; for each item the place of its last token.
        """
        ids, ends = list(self.head), []
        for item in items:
            ids += self.titles[item]
            ends.append(len(ids) - 1)
        return ids, ends
