"""SASRec-Content: SASRec whose item embeddings are made from features of text and picture (a baseline of Molar, arXiv 2412.18176, table 2)."""

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.model.content_embedding import ContentEmbedding
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.model.item_encoder import encoded_anew, some_items
from recbole_molar.model.loss import ce_loss
from recbole.model.sequential_recommender.sasrec import SASRec


class SASRecContent(SASRec):
    """RecBole's SASRec (Kang & McAuley, ICDM 2018, arXiv 1808.09781), without IDs: an item is what an adapter makes of the features of its text (an
    encoder like BERT, arXiv 1810.04805), of its picture (one like ViT, arXiv 2010.11929), or of both, side by side.

    The features are computed once (`item_encoding: cached`), or the encoders are trained by the recommendation loss too (`end_to_end`):
    the items of a batch are encoded anew, with gradients, the others keep the features that they had last.

    Args:
        config (Config), dataset (HistoryDataset): as for every RecBole model.
        tables (list, optional): features by modality, [n_items, D_m]; None takes random ones, for a try-out of the model.
        encoders (list, optional): the :class:`ContentEncoder` of each table, to be trained; None keeps the tables fixed.
    """

    stages = "recbole_molar.feature_stages"  # what comes before it: see quick_start
    low_precision_products = False  # see AllPositions

    def __init__(self, config, dataset, tables=None, encoders=None):
        super().__init__(config, dataset)
        tables = [torch.randn(self.n_items, 8)] if tables is None else tables
        self.encoders = torch.nn.ModuleList(encoders or [])
        self.item_embedding = ContentEmbedding(
            tables, self.hidden_size, config["item_adapter"], config["item_adapter_size"], config["item_dropout"], config["feature_scaling"],
            saved=bool(encoders),
        )
        self.item_embedding.apply(self._init_weights)  # features of 128 numbers give embeddings of .23, of 768 .56; torch's weights .61, SASRec's own .02
        self.end_to_end_items, self.supports_autocast = config["end_to_end_items"], bool(encoders)

    def calculate_loss(self, interaction):
        """SASRec's loss; histories and targets share one computation of the item embeddings. The padding is no candidate."""
        with self.item_embedding.computed_once(self._fresh_tables(interaction) if self.encoders else None):
            if self.loss_type != "CE":
                return super().calculate_loss(interaction)
            user = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
            with torch.autocast(user.device.type, dtype=torch.bfloat16, enabled=self.low_precision_products):
                return ce_loss(user, self.item_embedding.weight, interaction[self.POS_ITEM_ID])

    def _fresh_tables(self, interaction):
        """The tables with the batch's own items encoded anew, with gradients; `end_to_end_items` of them at most."""
        read = [self.ITEM_SEQ, self.POS_ITEM_ID] + [self.NEG_ITEM_ID] * (self.loss_type == "BPR")
        items = some_items([interaction[name] for name in read], self.end_to_end_items)
        return [
            encoded_anew(lambda items, place=place: self.item_embedding.scaled(place, self.encoders[place].encode_items(items)), table, items)
            for place, table in enumerate(self.item_embedding.tables)
        ]

    def train(self, mode=True):
        """Encoders draw no dropout: its noise would be encoded into the table, and whitening makes it larger."""
        super().train(mode)
        self.encoders.eval()
        return self

    # ---------------------------------------------------- hooks of the trainer

    @torch.no_grad()
    def before_evaluation(self, trainer):
        """Bring the item embeddings up to date once for all batches of an evaluation."""
        self.refill(trainer.accelerator)
        self.item_embedding.keep()

    def refill(self, accelerator):
        """Encode all items anew, with encoders that are trained."""
        for place, encoder in enumerate(self.encoders):
            rows = ItemEmbedding().fill(encoder, accelerator).to(self.device)
            self.item_embedding.tables[place].copy_(self.item_embedding.scaled(place, rows))

    def parameter_groups(self, config):
        """Encoders learn at a rate of their own, `encoder_learning_rate`."""
        groups = {}
        for name, value in self.named_parameters():
            if value.requires_grad:
                groups.setdefault("encoder_learning_rate" if name.startswith("encoders.") else "learning_rate", []).append(value)
        return [{"params": values, "lr": config[key]} for key, values in groups.items()]
