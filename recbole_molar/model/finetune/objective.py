"""The loss of stage 1: how a sample of a fine-tuning task becomes a gradient on MIRM.

A language-model loss on a plain prompt gives the [Cur_Item] state no gradient, since nothing is generated from it. `through_state`
makes the answer depend on items through that state alone, in two passes: the items are encoded to their states, then the decoder
writes the answer from the states in place of words. That is how DUEG reads them too.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from recbole_molar.data.collator import pad_rows
from recbole_molar.model.alignment import alignment_loss
from recbole_molar.processes import gathered, n_processes, own_part

OBJECTIVES = ("through_state", "generation")
OTHER_VIEW = {"image": "attributes", "attributes": None}  # what a task reads of an item -> the other reading in the contrast of views


class StageOneObjective(nn.Module):
    """Loss of a batch of samples of one task.

    Args:
        mirm (MIRM): the model that is tuned.
        kind (str): `through_state`, or `generation`: the answer attends to the items' own tokens (the plain objective).
        bow_weight (float): weight of the bag of words of each item, read off its state by the word-scoring head; words count by
            their inverse document frequency.
        contrast_weight (float): weight of the next item as a contrastive target (samples with a target only).
        view_contrast_weight (float): weight of the contrast between two readings of one item (samples without a target): its image and its
            title and attributes, or its attributes and all of it (image-text contrast, Radford et al., 2021).
        item_counts (np.ndarray, optional): [n_items] training interactions, for the logQ correction of in-batch negatives.
        temperature (float): of both contrasts.
        max_answer_tokens (int): longest answer.
    """

    def __init__(self, mirm, kind="through_state", bow_weight=0.0, contrast_weight=0.0, item_counts=None, temperature=0.1,
                 max_answer_tokens=32, view_contrast_weight=0.0):
        super().__init__()
        if kind not in OBJECTIVES:
            raise ValueError(f"mirm_finetune_objective={kind}: unknown. Valid: {', '.join(OBJECTIVES)}.")
        self.mirm, self.kind, self.bow_weight, self.contrast_weight = mirm, kind, bow_weight, contrast_weight
        self.temperature, self.max_answer_tokens, self.view_contrast_weight = temperature, max_answer_tokens, view_contrast_weight
        counts = np.ones(len(mirm.content)) if item_counts is None else np.maximum(item_counts, 1)
        self.log_popularity = torch.from_numpy(np.log(counts / counts.sum())).float()
        self.bags = BagsOfWords(mirm) if bow_weight else None
        self.standardise = Standardise(mirm.embedding_dim)

    def has_contrast_or_bags(self, sample):
        """Whether samples of this one's task have a loss without an answer."""
        return bool(self.bow_weight) or any(self._contrasts(sample))

    def _contrasts(self, sample):
        """Whether samples of this one's task are contrasted with the next item, and whether with another reading."""
        return bool(self.contrast_weight) and sample.target != 0, bool(self.view_contrast_weight) and sample.parts in OTHER_VIEW

    def forward(self, samples, instruction):
        """Loss and its parts.

        Args:
            samples (list): of `Sample`, all of one task and read alike; of several processes all are given the same. Each encodes its part
                of the items and writes its part of the answers.
            instruction (str): of that task.

        Returns:
            tuple: (scalar, dict of detached scalars `lm`, `bow`, `contrast`, `view_contrast`); their means over the processes are those of the samples.
        """
        ids = sorted({item for sample in samples for item in sample.items})
        wants_contrast, wants_views = self._contrasts(samples[0])
        if wants_contrast:
            ids = sorted({*ids, *(sample.target for sample in samples)})
        wants_views = wants_views and len(ids) > 1
        needs_states = self.kind == "through_state" or self.bow_weight or wants_contrast or wants_views
        states = self.item_states(ids, samples[0].parts) if needs_states else None  # [N, D]
        place = {item: row for row, item in enumerate(ids)}
        parts = {}
        if any(sample.answer for sample in samples):
            parts["lm"] = self.lm_loss(samples, instruction, states, place)
        if self.bow_weight:
            parts["bow"] = self.bags(states, ids)
        if wants_contrast:
            parts["contrast"] = self.contrast(states, ids, samples, place)
        if wants_views:
            others = self.item_states(ids, OTHER_VIEW[samples[0].parts])
            parts["view_contrast"] = alignment_loss(states, others, self.temperature) / 2  # the mean of both directions
        weight = {"lm": 1.0, "bow": self.bow_weight, "contrast": self.contrast_weight, "view_contrast": self.view_contrast_weight}
        return sum(weight[name] * value for name, value in parts.items()), {name: value.detach() for name, value in parts.items()}

    def item_states(self, ids, parts=None):
        """Standardised states of items, [N, D], each encoded by one process."""
        return self.standardise(gathered(self.mirm.encode_items(own_part(ids), parts=parts)), parts)

    def lm_loss(self, samples, instruction, states=None, place=None):
        """Mean cross-entropy of the answers' tokens; with W processes W times what the own answers add to it."""
        everyones, own = samples, own_part(samples)
        samples = own or samples[:1]  # takes part, for nothing
        answers = [self._answer(sample) for sample in samples]
        if self.kind == "through_state":
            rows = [[place[item] for item in sample.items] for sample in samples]
            hidden, lengths = self.read_states(states, rows, instruction, answers)
        else:
            hidden, lengths = self.read_tokens(samples, instruction, answers)
        device = hidden.device
        # The state before a token predicts it; the head, dear on a CPU, runs on those states alone.
        rows = torch.tensor([row for row, ids in enumerate(answers) for _ in ids], device=device)
        firsts = [length - len(ids) - 1 for length, ids in zip(lengths, answers)]
        columns = torch.tensor([first + step for first, ids in zip(firsts, answers) for step in range(len(ids))], device=device)
        labels = torch.tensor([token for ids in answers for token in ids], device=device)
        loss = F.cross_entropy(self.mirm.backbone.logits(hidden[rows, columns]).float(), labels)
        if n_processes() == 1:
            return loss
        return loss * (n_processes() * bool(own) * len(labels) / sum(len(self._answer(sample)) for sample in everyones))

    def _answer(self, sample):
        return self.mirm.collator.prompt.answer(sample.answer, self.max_answer_tokens)

    def read_states(self, states, rows, instruction, answers):
        """Decoder states [B, T, D] over [item states, instruction, answer], and the length of each row.

        Args:
            states (Tensor): [N, D]. rows (list): for each sample the rows of `states` that it reads. answers (list): token ids.
        """
        backbone, prompt = self.mirm.backbone, self.mirm.collator.prompt
        words = prompt.encode(instruction)
        batch = pad_rows([[backbone.pad_id] * len(row) + words + ids for row, ids in zip(rows, answers)], backbone.pad_id)
        embeds = backbone.embed(batch["input_ids"].to(backbone.device))  # [B, T, D]
        row = torch.tensor([index for index, it in enumerate(rows) for _ in it], device=embeds.device)
        column = torch.tensor([step for it in rows for step in range(len(it))], device=embeds.device)
        flat = torch.tensor([place for it in rows for place in it], device=embeds.device)
        embeds = embeds.index_put((row, column), states[flat].to(embeds.dtype))
        lengths = batch["attention_mask"].sum(1).tolist()
        return backbone.decode(embeds, batch["attention_mask"].to(embeds.device)), lengths

    def read_tokens(self, samples, instruction, answers):
        """States [B, T, D] over [tokens of the items, instruction, answer], and lengths; pictures only for samples of one item."""
        collator, backbone = self.mirm.collator, self.mirm.backbone
        words, rows, pictured = collator.prompt.encode(instruction), [], []
        for sample, ids in zip(samples, answers):
            alone = len(sample.items) == 1 and sample.target == 0
            read = [collator.tokens(item, sample.parts if alone else "attributes") for item in sample.items]
            pictured.append(read[0][1] if alone else False)
            rows.append(np.concatenate([tokens for tokens, _ in read] + [words, ids]).astype(np.int64))
        hidden, lengths = [None] * len(rows), [len(row) for row in rows]
        for wanted in (True, False):
            chosen = [index for index, it in enumerate(pictured) if it is wanted]
            if chosen:
                batch = pad_rows([rows[index] for index in chosen], backbone.pad_id)
                if wanted:
                    batch["mm_token_type_ids"] = (batch["input_ids"] == collator.image_token_id).long()
                    batch.update(collator.image_inputs([collator.images.get(samples[index].items[0]) for index in chosen]))
                for index, states in zip(chosen, backbone.encode(batch)):
                    hidden[index] = states
        return nn.utils.rnn.pad_sequence(hidden, batch_first=True), lengths

    def contrast(self, states, ids, samples, place):
        """InfoNCE of the mean state of a history against its next item among all items of the batch, logQ-corrected."""
        unit = F.normalize(states, dim=-1)
        users = torch.stack([unit[[place[item] for item in sample.items]].mean(0) for sample in samples])  # [B, D]
        scores = F.normalize(users, dim=-1) @ unit.T / self.temperature - self.log_popularity[ids].to(unit.device)
        targets = torch.tensor([place[sample.target] for sample in samples], device=unit.device)
        own = torch.zeros_like(scores, dtype=torch.bool)
        for row, sample in enumerate(samples):
            own[row, [place[item] for item in sample.items if item != sample.target]] = True
        return F.cross_entropy(scores.masked_fill(own, float("-inf")), targets)

    @torch.no_grad()
    def generate(self, sample, instruction, max_tokens=24):
        """Greedy text for one sample, for the log."""
        answer, prompt = [], self.mirm.collator.prompt
        states = self.item_states(list(sample.items), sample.parts) if self.kind == "through_state" else None
        for _ in range(max_tokens):
            if self.kind == "through_state":
                hidden, _ = self.read_states(states, [list(range(len(sample.items)))], instruction, [answer])
            else:
                hidden, _ = self.read_tokens([sample], instruction, [answer])
            token = int(self.mirm.backbone.logits(hidden[0, -1]).argmax())
            if token == prompt.tokenizer.eos_token_id:
                break
            answer.append(token)
        return prompt.tokenizer.decode(answer)


class BagsOfWords(nn.Module):
    """For each item a distribution over the tokens of its text, weighted by inverse document frequency, and a linear head that
    reads it off the item's state.

    The head starts at zero on top of the mean bag: MIRM's own word-scoring head would start with scores at random, and the first
    thing that training then does is to make all states alike, from which it does not recover.

    Args:
        mirm (MIRM): gives the items and the tokenizer. Tokens that stand in one item only are left out.
    """

    def __init__(self, mirm):
        super().__init__()
        tokenized = [np.asarray(mirm.collator.prompt.encode(text), dtype=np.int64) for text in mirm.content.texts]
        counted = [np.unique(tokens, return_counts=True) for tokens in tokenized]
        documents = np.bincount(np.concatenate([tokens for tokens, _ in counted]), minlength=1)
        number = np.full(len(documents), -1)
        number[documents > 1] = np.arange((documents > 1).sum())
        rarity = np.log(max(len(counted) - 1, 1) / np.maximum(documents, 1)).clip(min=0)
        self.words, self.bags = int((documents > 1).sum()), []
        mean = torch.full((self.words,), 1e-7)
        for tokens, counts in counted:
            kept = documents[tokens] > 1
            weights = np.log1p(counts[kept]) * rarity[tokens[kept]]
            bag = torch.from_numpy(number[tokens[kept]]), torch.from_numpy(weights / max(weights.sum(), 1e-9)).float()
            mean[bag[0]] += bag[1]
            self.bags.append(bag)
        self.register_buffer("log_prior", (mean / mean.sum()).log(), persistent=False)
        self.head = nn.Linear(mirm.embedding_dim, self.words, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, states, ids):
        """Mean cross-entropy between each item's bag and what is read off its standardised state; states [N, D]."""
        scores = F.log_softmax(self.head(states).float() + self.log_prior, dim=-1)  # [N, V]
        rows = torch.cat([torch.full_like(self.bags[item][0], row) for row, item in enumerate(ids)]).to(states.device)
        tokens = torch.cat([self.bags[item][0] for item in ids]).to(states.device)
        weights = torch.cat([self.bags[item][1] for item in ids]).to(states.device)
        return -(scores[rows, tokens] * weights).sum() / len(ids)


class Standardise(nn.Module):
    """Zero mean and unit variance in each dimension over the items of a batch (running figures outside training).

    States of one model share most of their length; losses on what they share make them alike. One set of figures for each way of
    reading an item, since an image alone gives another mean.

    Args:
        dim (int): D.
    """

    def __init__(self, dim):
        super().__init__()
        self.by_parts = nn.ModuleDict({name: nn.BatchNorm1d(dim, affine=False) for name in ("all", "image", "attributes")})

    def forward(self, states, parts):
        """states [N, D] in, the same shape out."""
        norm = self.by_parts[parts or "all"]
        if norm.training and len(states) > 1:
            return norm(states.float())
        return F.batch_norm(states.float(), norm.running_mean, norm.running_var, eps=norm.eps)
