"""The offline stand-in for a text encoder: a small BERT, to be trained on the catalogue's own texts by masked language modelling."""

import torch
import torch.nn.functional as F
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from recbole_molar.data.content_collator import TextCollator
from recbole_molar.data.prompt import item_text
from recbole_molar.model.backbone.compact import byte_level_bpe
from recbole_molar.model.content_encoder.base import quiet

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
CHOSEN, MASKED, SWAPPED = 0.15, 0.8, 0.9  # share of the tokens to tell; of these, up to 0.8 masked, up to 0.9 another token, the rest kept (BERT)


class CompactText(nn.Module):
    """BERT (Devlin et al., NAACL 2019) at a small size, with a byte-level tokenizer trained on the same texts.

    Args:
        content (ItemContent): the items; nothing else is seen. max_tokens (int): longest text.
        hidden_size, layers, heads, vocab_size (int): `encoder_…`.
    """

    def __init__(self, content, max_tokens, hidden_size=128, layers=2, heads=4, vocab_size=4096):
        super().__init__()
        tokenizer = byte_level_bpe([item_text(item.fields) for item in content.items], vocab_size, SPECIAL)
        ids = [tokenizer.token_to_id(name) for name in SPECIAL]
        tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids[1]), ("[SEP]", ids[2])])
        names = dict(zip(("pad_token", "cls_token", "sep_token", "mask_token"), SPECIAL))
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens, **names)
        config = BertConfig(
            vocab_size=-(-len(self.tokenizer) // 64) * 64, hidden_size=hidden_size, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * hidden_size, max_position_embeddings=max_tokens, pad_token_id=ids[0], type_vocab_size=1,
            initializer_range=hidden_size**-0.5,  # 0.02 is made for a width of 768
        )  # fmt: skip
        self.model, self.mask_id = BertForMaskedLM(config), ids[3]
        self.collator = TextCollator(content, self.tokenizer, max_tokens)

    @property
    def encoder(self):
        """What is kept of it."""
        return self.model.bert

    def loss(self, items):
        """Cross entropy of the chosen tokens of some items, a scalar; log of the vocabulary where all are equally likely."""
        batch = {name: value.to(self.model.device) for name, value in self.collator.collate(items).items()}
        ids = batch["input_ids"]
        hidden, chosen = self.hide(ids)
        states = self.encoder(input_ids=hidden, attention_mask=batch["attention_mask"]).last_hidden_state  # [N, T, D]
        return F.cross_entropy(self.model.cls(states[chosen]), ids[chosen])  # word scores where they are needed alone

    def hide(self, ids):
        """Token ids [N, T] with some of them hidden, and which those are, bool [N, T]; of each row at least one."""
        draw = torch.rand(ids.shape, device=ids.device).masked_fill_(ids < len(SPECIAL), 2.0)
        chosen = (draw < CHOSEN) | (draw == draw.min(1, keepdim=True).values)
        how = torch.rand(ids.shape, device=ids.device)
        others = torch.randint(len(SPECIAL), len(self.tokenizer), ids.shape, device=ids.device)
        hidden = torch.where(chosen & (how < MASKED), self.mask_id, ids)
        return torch.where(chosen & (how >= MASKED) & (how < SWAPPED), others, hidden), chosen

    def save(self, folder):
        """Write it as `save_pretrained` does, to be loaded as any other encoder."""
        with quiet():
            self.encoder.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
