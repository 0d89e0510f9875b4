"""CoLLM: an ID model's embeddings, mapped to tokens of an LLM that reads titles (a baseline of Molar, arXiv 2412.18176, table 2)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.collator import pad_rows
from recbole_molar.data.prompt import HistoryPrompt
from recbole_molar.model.all_positions import position_targets
from recbole_molar.model.item_encoder import encoded_anew, some_items
from recbole_molar.model.sequential_recommender.base import MIRMRecommender
from recbole_molar.processes import gathered, own_part
from recbole_molar.sharding import gather, whole

WORDS = 65_536  # of the vocabulary, that tell how large a word's embedding is


class CoLLM(MIRMRecommender):
    """Zhang et al., "CoLLM: Integrating Collaborative Embeddings into Large Language Models for Recommendation", 2023 (arXiv 2310.19488).

    The paper's prompt names the titles of a user's history, the user as a token made from an ID model's user embedding, and one candidate as
    its title and a token made from its item embedding; the LLM answers Yes or No. One MLP maps both kinds of embeddings to tokens. It is
    tuned in two steps: the LLM (LoRA) on prompts of text alone, then the MLP alone on prompts with the tokens.

    Here that prompt is cut in two before the candidate, so that all items can be ranked:

        user: A user chose these items one after another. <title> ... <title> <user token> [Cur_Item]
        item: MIRM's item prompt, instruction and text, <item token> [Cur_Item]

    The LLM's last hidden state at [Cur_Item] is the user's query, or the item's representation; a score is their cosine over a temperature.
    Both steps minimise the cross-entropy of the next item among the shared negatives of a batch. Step 1 (`id_model=None`, `collaborative:
    False` as a model of its own) leaves the two tokens out and trains the LLM and the temperature; step 2 trains the mapping alone.

    Cost: ranking all items for a user takes one pass of the LLM over at most `prompt_items` titles of `prompt_title_tokens` tokens, and a
    product [D] x [D, N]; the N items take one pass each for each state of the model, not for each user. The paper's form takes N passes a user.

    In training a row gives one window of its history, drawn anew in each epoch. The window's titles are read once, and behind each stands
    [Cur_Item] (in step 2 with the token of the user as of there), which sees the titles up to there and nothing behind: each has the state
    that it would have in a prompt of its own.

    Where this differs from the paper, besides: user and candidate meet in a dot product, not in the LLM's attention. The LLM is a language
    model or the decoder of an image-text model, for the compact one from random weights and trained in full. LoRA is on all linear layers of the
    decoder, without dropout (the paper's on queries and values, dropout 0.05), weight decay 0.01 (0.001). The loss is of next items, not
    of likes. The user token is the ID model's state after the history, as with the paper's SASRec; its scale is taken out, items keep
    theirs but for one common factor. The words of the prompt are the same in both steps, since a small LLM knows no others: the tokens are
    not introduced in words. A mapping that gives zeros is not step 1: the zero tokens still take attention and a place. The mapping is
    tuned with the ID model frozen.

    Args:
        config (Config), dataset (HistoryDataset): as for every RecBole model.
        item_table (Tensor): [n_items, D], item representations to begin with, row 0 zeros.
        mirm (MIRM): the LLM with its tokenizer and items.
        id_model (IDModel, optional): frozen, with item embeddings of its users' size; given, this is step 2, and `mirm` is frozen too.
    """

    stages = "recbole_molar.collm_stages"  # what comes before it: see quick_start
    low_precision_products = False  # see AllPositions

    def __init__(self, config, dataset, item_table, mirm, id_model=None):
        super().__init__(config, dataset, item_table, mirm)
        self.n_negatives, self.prompt_items = config["nce_negatives"], config["prompt_items"]
        self.prompt = HistoryPrompt(mirm.collator.prompt, [item.title for item in mirm.content.items], config["prompt_title_tokens"])
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config["score_temperature"])), requires_grad=id_model is None)
        self.id_model = id_model
        if id_model is not None:
            mirm.requires_grad_(False)
            with whole(mirm):
                items, n_words = id_model.item_embeddings(), len(mirm.backbone.plain.get_input_embeddings().weight)
                words = mirm.backbone.embed(torch.arange(0, n_words, -(-n_words // WORDS), device=mirm.backbone.device))  # some models scale them
                for name, table in (("item_scale", items[1:]), ("word_scale", words)):
                    self.register_buffer(name, table.detach().float().square().mean().sqrt())
            dim, size = items.size(1), config["mapping_size"]
            self.mapping = nn.Sequential(nn.Linear(dim, size), nn.ReLU(), nn.Linear(size, mirm.embedding_dim))

    # ----------------------------------------------------------------- tokens

    def user_tokens(self, interaction):
        """The users' tokens after whole histories, [B, D]."""
        user = self.id_model(interaction).float()
        return self._mapped(F.rms_norm(user, user.shape[-1:]))

    def item_tokens(self, items):
        """The items' tokens: internal ids [U] -> [U, D]."""
        return self._mapped(self.id_model.item_embeddings()[items].float() / self.item_scale)

    def _mapped(self, embeddings):
        """ID embeddings of about unit size as tokens, which begin at the size of the LLM's words."""
        return self.mapping(embeddings) * self.word_scale

    # ------------------------------------------------------------- LLM passes

    def queries(self, items, after, tokens=None):
        """The users' queries behind some of the titles in their prompts.

        Args:
            items (Tensor): [B, K], zeros on the right. after (Tensor): [B, R], columns of `items` behind which users are read.
            tokens (Tensor, optional): [B, R, D], the users' tokens there; None in step 1.

        Returns:
            Tensor: [B, R, D].
        """
        backbone, prompt = self.mirm.backbone, self.mirm.collator.prompt
        written = [self.prompt.write([item for item in row if item]) for row in items.tolist()]
        ids = pad_rows([ids for ids, _ in written], backbone.pad_id)["input_ids"].to(items.device)  # [B, T]
        ends = nn.utils.rnn.pad_sequence([torch.tensor(ends) for _, ends in written], batch_first=True).to(items.device)
        ends = F.pad(ends, (0, items.size(1) - ends.size(1))).gather(1, after)  # [B, R]
        text = backbone.embed(ids)  # [B, T, D]
        tails = backbone.embed(torch.full((*after.shape, 1), prompt.cur_item_id, device=items.device))  # [B, R, 1, D]
        if tokens is not None:
            tails = torch.cat([tokens[:, :, None].to(tails.dtype), tails], dim=2)  # [B, R, 2, D]
        seen, positions = prompts_in_one(ids.size(1), ends, tails.size(2))
        states = backbone.decode(torch.cat([text, tails.flatten(1, 2)], dim=1), seen, positions)
        return states[:, ids.size(1) :].reshape(tails.shape)[:, :, -1]

    def encode_items(self, items):
        """Representations of items: internal ids, each once, [U] -> [U, D]."""
        return self.mirm.encode_items(items, recompute=self.recompute_items, read=self._read_items)

    def _read_items(self, batch, items):
        if self.id_model is None:
            return self.mirm(batch)
        backbone, row = self.mirm.backbone, torch.arange(len(items), device=items.device)
        ids, end = batch["input_ids"].to(items.device), batch["attention_mask"].sum(1).to(items.device)
        embeds = F.pad(backbone.embed(ids), (0, 0, 0, 1))  # [U, T + 1, D]
        embeds = embeds.index_put((row, end), embeds[row, end - 1])  # [Cur_Item], which makes room
        embeds = embeds.index_put((row, end - 1), self.item_tokens(items).to(embeds.dtype))
        mask = (torch.arange(embeds.size(1), device=items.device) <= end[:, None]).long()
        return backbone.decode(embeds, mask)[row, end]

    # --------------------------------------------------------------- training

    def calculate_loss(self, interaction):
        """Sampled softmax over the positions of one window of each row: a scalar."""
        item_seq, item_seq_len = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        first = (item_seq_len - self.prompt_items).clamp(min=0)  # the last window's first column, [B]
        if first.any():  # no draw otherwise: several processes then learn what one does
            first = (torch.rand(len(first), device=first.device) * (first + 1)).long()
        items, place, valid = self._window(item_seq, item_seq_len, first)  # [B, K] each
        targets = position_targets(item_seq, item_seq_len, interaction[self.POS_ITEM_ID]).gather(1, place)[valid]  # [M]
        negatives = self.shared_negatives()  # [N']
        fresh = some_items((targets, negatives), self.end_to_end_items)
        table = encoded_anew(self.encode_items, self.mirm_table, fresh)  # [N, D]
        after = torch.arange(items.size(1), device=items.device).expand_as(items)
        user = self.queries(items, after, self._tokens_at(interaction, place, valid))[valid]  # [M, D]
        return self.nce(user, table, targets, negatives)

    def _window(self, item_seq, item_seq_len, first):
        """`prompt_items` items of each history from column `first` [B] on: items [B, K], their columns, and which of them exist."""
        place = first[:, None] + torch.arange(self.prompt_items, device=item_seq.device)
        valid = place < item_seq_len[:, None]
        place = place.clamp(max=item_seq.size(1) - 1)
        return item_seq.gather(1, place) * valid, place, valid

    def _tokens_at(self, interaction, place, valid):
        """The users' tokens as of columns [B, K] of their histories, [B, K, D]; zeros where not valid; None in step 1."""
        if self.id_model is None:
            return None
        row, _ = valid.nonzero(as_tuple=True)
        prefixes, lengths = interaction[row], place[valid] + 1
        inside = torch.arange(interaction[self.ITEM_SEQ].size(1), device=place.device) < lengths[:, None]
        prefixes[self.ITEM_SEQ], prefixes[self.ITEM_SEQ_LEN] = prefixes[self.ITEM_SEQ] * inside, lengths
        tokens = self.user_tokens(prefixes)  # [M, D]
        return tokens.new_zeros(*valid.shape, tokens.size(1)).index_put((valid,), tokens)

    # ---------------------------------------------------- hooks of the trainer

    def n_targets(self, interaction):
        """Positions of a batch's windows."""
        return int(interaction[self.ITEM_SEQ_LEN].clamp(max=self.prompt_items).sum())

    @torch.no_grad()
    def before_evaluation(self, trainer):
        """Read all items once for all batches of an evaluation."""
        gather(self.mirm)  # for the users' prompts, too
        with trainer.accelerator.autocast():
            own = self.encode_items(own_part(torch.arange(1, self.n_items, device=self.device))).float()
        self.mirm_table[1:] = gathered(own)
        self._eval_table = self.mirm_table

    def parameter_groups(self, config):
        """Step 1 learns at `mirm_learning_rate`, step 2 at `learning_rate`."""
        rate = config["mirm_learning_rate" if self.id_model is None else "learning_rate"]
        return super().parameter_groups({"mirm_learning_rate": rate, "learning_rate": rate, "weight_decay": config["weight_decay"]})

    def is_saved(self, name):
        """Nor is the ID model, which has a file of its own; step 1 has one too."""
        return super().is_saved(name) and not name.startswith("id_model.")

    # -------------------------------------------------------------- prediction

    def user_embedding(self, interaction):
        """The users' queries after their last `prompt_items` items, and the item representations: [B, D], [N, D]."""
        item_seq, item_seq_len = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        items, _, valid = self._window(item_seq, item_seq_len, (item_seq_len - self.prompt_items).clamp(min=0))
        tokens = None if self.id_model is None else self.user_tokens(interaction)[:, None]
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low_precision_products):  # as items are read
            user = self.queries(items, valid.sum(1, keepdim=True) - 1, tokens)[:, 0]
        return user.float(), self.mirm_table


def prompts_in_one(length, ends, extra):
    """Several prompts that share a text, in one row: the text, then for each prompt the tokens that stand behind its part of the text.

    Args:
        length (int): T, of the text. ends (Tensor): [B, R], the last place of each prompt's part. extra (int): tokens behind it.

    Returns:
        tuple: which token (row) sees which, boolean [B, 1, S, S] with S = T + R · extra, and positions [B, S], as in a prompt of its own.
    """
    (batch, prompts), device = ends.shape, ends.device
    places = torch.arange(length, device=device)
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    own = torch.eye(prompts, device=device).kron(torch.ones(extra, extra, device=device).tril()).bool()  # [R · extra, R · extra]
    of_text = (places <= ends[..., None]).repeat_interleave(extra, dim=1)  # [B, R · extra, T]
    above = F.pad(causal, (0, len(own))).expand(batch, -1, -1)
    seen = torch.cat([above, torch.cat([of_text, own.expand(batch, -1, -1)], dim=2)], dim=1)
    behind = (ends[..., None] + 1 + torch.arange(extra, device=device)).flatten(1)
    return seen[:, None], torch.cat([places.expand(batch, -1), behind], dim=1)
