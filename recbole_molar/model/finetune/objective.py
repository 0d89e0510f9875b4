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

OBJECTIVES = ("through_state", "generation")


class StageOneObjective(nn.Module):
    """Loss of a batch of samples of one task.

    Args:
        mirm (MIRM): the model that is tuned.
        kind (str): `through_state`, or `generation`: the answer attends to the items' own tokens (the plain objective).
        bow_weight (float): weight of the bag of words of each item, read off its state by the word-scoring head; words count by
            their inverse document frequency.
        contrast_weight (float): weight of the next item as a contrastive target (samples with a target only).
        item_counts (np.ndarray, optional): [n_items] training interactions, for the logQ correction of in-batch negatives.
        temperature (float): of the contrast.
        max_answer_tokens (int): longest answer.
    """

    def __init__(self, mirm, kind="through_state", bow_weight=0.0, contrast_weight=0.0, item_counts=None, temperature=0.1,
                 max_answer_tokens=32):
        super().__init__()
        if kind not in OBJECTIVES:
            raise ValueError(f"mirm_finetune_objective={kind}: unknown. Valid: {', '.join(OBJECTIVES)}.")
        self.mirm, self.kind, self.bow_weight, self.contrast_weight = mirm, kind, bow_weight, contrast_weight
        self.temperature, self.max_answer_tokens = temperature, max_answer_tokens
        counts = np.ones(len(mirm.content)) if item_counts is None else np.maximum(item_counts, 1)
        self.log_popularity = torch.from_numpy(np.log(counts / counts.sum())).float()
        self.bags = BagsOfWords(mirm) if bow_weight else None

    def forward(self, samples, instruction):
        """Loss and its parts.

        Args:
            samples (list): of `Sample`, all of one task. instruction (str): of that task.

        Returns:
            tuple: (scalar, dict of detached scalars `lm`, `bow`, `contrast`).
        """
        ids = sorted({item for sample in samples for item in sample.items})
        wants_contrast = bool(self.contrast_weight) and samples[0].target != 0
        if wants_contrast:
            ids = sorted({*ids, *(sample.target for sample in samples)})
        needs_states = self.kind == "through_state" or self.bow_weight or wants_contrast
        states = self.mirm.encode_items(ids, parts=samples[0].parts) if needs_states else None  # [N, D]
        place = {item: row for row, item in enumerate(ids)}
        parts = {}
        if any(sample.answer for sample in samples):
            parts["lm"] = self.lm_loss(samples, instruction, states, place)
        if self.bow_weight:
            parts["bow"] = self.bags.loss(states, ids)
        if wants_contrast:
            parts["contrast"] = self.contrast(states, ids, samples, place)
        weight = {"lm": 1.0, "bow": self.bow_weight, "contrast": self.contrast_weight}
        return sum(weight[name] * value for name, value in parts.items()), {name: value.detach() for name, value in parts.items()}

    def lm_loss(self, samples, instruction, states=None, place=None):
        """Mean cross-entropy of the answers' tokens."""
        answers = [self.mirm.collator.prompt.answer(sample.answer, self.max_answer_tokens) for sample in samples]
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
        return F.cross_entropy(self.mirm.backbone.logits(hidden[rows, columns]).float(), labels)

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
        states = self.mirm.encode_items(list(sample.items), parts=sample.parts) if self.kind == "through_state" else None
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


class BagsOfWords:
    """For each item, a distribution over the tokens of its text, weighted by inverse document frequency.

    Args:
        mirm (MIRM): gives the items and the tokenizer.
    """

    def __init__(self, mirm):
        self.mirm = mirm
        tokenized = [np.asarray(mirm.collator.prompt.encode(text), dtype=np.int64) for text in mirm.content.texts]
        counted = [np.unique(tokens, return_counts=True) for tokens in tokenized]
        documents = np.bincount(np.concatenate([tokens for tokens, _ in counted]), minlength=1)
        rarity = np.log(max(len(counted) - 1, 1) / np.maximum(documents, 1)).clip(min=0)
        self.bags = []
        for tokens, counts in counted:
            weights = np.log1p(counts) * rarity[tokens]
            self.bags.append((torch.from_numpy(tokens), torch.from_numpy(weights / max(weights.sum(), 1e-9)).float()))
        mean = torch.zeros(mirm.backbone.logits(torch.zeros(1, mirm.embedding_dim, device=mirm.backbone.device)).shape[-1])
        for tokens, weights in self.bags:
            mean[tokens] += weights
        self.log_prior = (mean / mean.sum().clamp(min=1e-9) + 1e-7).log()

    def loss(self, states, ids):
        """Mean cross-entropy between each item's bag and the word scores of its state; states [N, D]."""
        # The prior is added, so that the state has to hold what sets this item apart and not what all have in common.
        scores = F.log_softmax(self.mirm.backbone.logits(states).float() + self.log_prior.to(states.device), dim=-1)  # [N, V]
        rows = torch.cat([torch.full_like(self.bags[item][0], row) for row, item in enumerate(ids)]).to(states.device)
        tokens = torch.cat([self.bags[item][0] for item in ids]).to(states.device)
        weights = torch.cat([self.bags[item][1] for item in ids]).to(states.device)
        return -(scores[rows, tokens] * weights).sum() / len(ids)
