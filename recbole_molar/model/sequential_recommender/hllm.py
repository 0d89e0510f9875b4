"""HLLM: an LLM makes item embeddings out of texts, another one reads them and predicts the next (a baseline of Molar, arXiv 2412.18176, table 2)."""

import math

import torch
from torch import nn

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import FIRST_TARGET
from recbole_molar.model.all_positions import trim_and_target
from recbole_molar.model.sequential_recommender.base import MIRMRecommender
from recbole_molar.model.user_encoder.user_llm import UserLLM


class HLLM(MIRMRecommender):
    """Chen et al., "HLLM: Enhancing Sequential Recommendations via Hierarchical Large Language Models for Item and User Modeling", 2024
    (arXiv 2409.12740).

    The item LLM reads an instruction, the item's text and a special token ([ITEM] there, here MIRM's [Cur_Item]), whose last hidden state is
    the item embedding. The user LLM, the same architecture from the same weights without word embeddings, reads the item embeddings of a
    history; its state at each position predicts the next item. InfoNCE over sampled negatives, cosine scores, a learned temperature. Both are
    trained (`item_encoding: end_to_end`), or the item LLM stays as it is (`cached`; the paper's frozen item LLM has the mean of all states besides,
    `mirm_readout: mean`, as the special token's embedding was never trained).

    Where this differs from the paper and the authors' code: the LLM is a language model or the decoder of an image-text model, for the compact one from
    random weights unless `mirm_weights` gives some. K negatives are drawn uniformly for a whole batch, a user's own items among them (the paper draws
    them for each user, without those), and one is left out where it is the target, not where its embedding lies within cosine 0.99 of the
    target's. At most `end_to_end_items` items of a batch are encoded anew,
    the others keep their last embedding. Prediction divides by the temperature, which changes no rank. HLLM's late fusion with IDs and its
    ranking models are left out.

    Args:
        config (Config), dataset (HistoryDataset): as for every RecBole model.
        item_table (Tensor): [n_items, D], the item LLM's embeddings, row 0 zeros.
        user_decoder (nn.Module): layers of the item LLM's decoder, a copy.
        mirm (MIRM, optional): the item LLM, to be trained; None keeps the table fixed.
    """

    stages = "recbole_molar.text_stages"  # what comes before it: see quick_start

    def __init__(self, config, dataset, item_table, user_decoder, mirm=None):
        super().__init__(config, dataset, item_table, mirm)
        self.n_negatives = config["nce_negatives"]
        self.user_encoder = UserLLM(user_decoder)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config["score_temperature"])))

    def calculate_loss(self, interaction):
        """InfoNCE over all valid positions of a batch: a scalar."""
        batch, targets = trim_and_target(interaction, self)
        item_seq, item_seq_len = batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN]
        negatives = self.shared_negatives()  # [K]
        table = self.fresh_table(item_seq, targets, negatives)  # [N, D]
        user = self.user_embeddings(item_seq, item_seq_len, batch[FIRST_TARGET], table)  # [M, D]
        return self.nce(user, table, targets, negatives)
