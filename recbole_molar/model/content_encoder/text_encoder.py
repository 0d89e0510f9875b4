"""A BERT-like encoder of items' texts."""

import json
from logging import getLogger

from torch import nn
from transformers import AutoTokenizer

from recbole_molar.data.content_collator import TextCollator
from recbole_molar.model.content_encoder.base import ContentEncoder, load_model, refused


class TextEncoder(ContentEncoder):
    """Any text encoder of transformers (BERT, RoBERTa, a sentence encoder, the text tower of CLIP), its states averaged over an item's tokens."""

    modality, key, part = "text", "text_encoder", "text_model"

    @classmethod
    def build(cls, name, content, max_tokens=128, **options):
        """Load it.

        Args:
            name (str): Hugging Face name, or a folder made by `save_pretrained`. content (ItemContent): the items.
            max_tokens (int): longest text; fewer where the model reads fewer. **options: of :class:`ContentEncoder`.

        Raises:
            ValueError: it cannot be loaded or reads no text; says what to do.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model = load_model(name, cls)
            limits = [max_tokens, tokenizer.model_max_length, places_of(model) or max_tokens]
            if min(limits) < max_tokens:
                getLogger().info("%s=%s reads at most %d tokens", cls.key, name, min(limits))
            return cls(model, TextCollator(content, tokenizer, min(limits)), **options)
        except Exception as error:  # broken files raise anything; a model of pictures, a TypeError
            raise refused(cls, name, error) from error

    def _reading(self):
        tokenizer = self.collator.tokenizer
        if tokenizer.is_fast:
            known = json.loads(tokenizer.backend_tokenizer.to_str())
            known = {name: value for name, value in known.items() if name not in ("padding", "truncation")}
        else:  # in Python: BERT's for Japanese, PhoBERT's, ByT5's
            given = {name: str(value) for name, value in tokenizer.init_kwargs.items() if name != "name_or_path" and not name.endswith("_file")}
            known = [type(tokenizer).__name__, tokenizer.get_vocab(), given]
        return [self.collator.max_tokens, known]


def places_of(model):
    """How many tokens a model has positions for, or None: RoBERTa and MPNet count theirs from behind that of padding."""
    most = getattr(model.config, "max_position_embeddings", None)
    named = (part for name, part in model.named_modules() if name.endswith("position_embeddings") and isinstance(part, nn.Embedding))
    padding = next((part.padding_idx for part in named), None)
    return most and most - (0 if padding is None else padding + 1)
