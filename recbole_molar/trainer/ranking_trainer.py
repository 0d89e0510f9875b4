"""RecBole's evaluation with the history masked, for every model alike, and the rank of each user's target kept."""

import contextlib
import statistics
import time

import numpy as np
import torch
from tqdm import tqdm

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.checkpoint import write_atomic
from recbole_molar.data.dataset import TARGET_INDEX
from recbole_molar.model.fused_layers import last_layer_at
from recbole_molar.model.like_lengths import cut_to_longest, first_halves, parts_of_like_lengths
from recbole_molar.processes import bar_off, mean_over_processes, n_processes, of_all, own_part
from recbole_molar.trainer.rows import Rows
from recbole_molar.trainer.row_collector import OF_EACH_ROW, RowCollector
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer import Trainer
from recbole.utils import calculate_valid_score

COMPARED = 2**20  # scores at a time, 4 MiB


def average_running_figures(model):
    """Let all processes have the same figures in batch normalisation, of which each has seen its rows alone."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and n_processes() > 1:
            for figure in (module.running_mean, module.running_var):
                mean_over_processes(figure)


def _count(compare, scores, target):
    """How many scores of each row compare so with its target: [B, N], [B] -> [B]. In blocks that stay in the cache; as numbers: truth values add up slowly."""
    block = max(1, COMPARED // scores.size(1))
    holds = torch.empty(min(block, len(scores)), scores.size(1), device=scores.device)
    parts = zip(scores.split(block), target[:, None].split(block), strict=True)
    return torch.cat([compare(rows, one, out=holds[: len(rows)]).sum(1) for rows, one in parts]).long()


class RankingTrainer(Trainer):
    """RecBole's Trainer whose `evaluate` masks what a user has had (`mask_history`) and fills `ranks`.

    A model may have `before_evaluation(trainer)`. Subclasses give `load_best()`.
    """

    eval_dataset = None
    ranks = None
    keep_top = 0  # items of each ranking to keep in `top`; none while training
    top = None
    cuts_histories = None  # whether evaluation may cut them to their length, and ask for the last state alone; tried on the first batch
    last_only = False

    def __init__(self, config, model):
        super().__init__(config, model)
        self.eval_collector = RowCollector(config)

    def _valid_epoch(self, valid_data, show_progress=False):
        result = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
        return calculate_valid_score(result, self.valid_metric), result

    @torch.no_grad()
    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """RecBole's evaluation, with the history masked; afterwards `ranks` holds each row's rank.

        Of several processes each scores its stretch of the batches; all come to the same values, those of one process.

        Returns:
            dict: metric -> value.
        """
        if load_best_model:
            self.load_best()
        self.model.eval()
        if hasattr(self.model, "before_evaluation"):
            self.model.before_evaluation(self)
        average_running_figures(self.model)
        self.eval_dataset, self.ranks, self.top = eval_data._dataset, Rows(), Rows()
        self.tot_item_num = self.eval_dataset.item_num
        self.item_tensor = self.eval_dataset.get_item_feature().to(self.device) if self.item_tensor is None else self.item_tensor
        score = self._full_sort_batch_eval if isinstance(eval_data, FullSortEvalDataLoader) else self._neg_sample_batch_eval
        own = own_part(range(len(eval_data)))
        for index, batch in enumerate(tqdm(eval_data, desc="evaluation", unit="batch", disable=bar_off() if show_progress else True, leave=False)):
            if index in own:  # the others are made all the same: candidates may be drawn with them
                n_ranked = len(self.ranks)
                interaction, scores, positive_u, positive_i = score(batch)
                ranks = self.ranks.all()[n_ranked:, 2:] if len(self.ranks) > n_ranked else None
                self.eval_collector.eval_batch_collect(scores, interaction, positive_u, positive_i, ranks)
        result = self.evaluator.evaluate(self._collected())
        self.wandblogger.log_eval_metrics(result, head="eval")
        return {name: float(value) for name, value in result.items()}

    def _collected(self):
        """What RecBole's metrics read, of the rows of all processes; `ranks` and `top` become theirs, too."""
        data = self.eval_collector.get_data_struct()
        if n_processes() == 1:
            return data
        parts = of_all({"ranks": self.ranks.all(), "top": self.top.all(), **{name: data.get(name) for name in OF_EACH_ROW if name in data}})
        self.ranks, self.top = (Rows(rows for rows in (part.pop(name) for part in parts) if rows is not None) for name in ("ranks", "top"))
        for name in {name for part in parts for name in part}:
            data.set(name, torch.cat([part[name] for part in parts if name in part]))
        return data

    def _full_sort_batch_eval(self, batched_data):
        if self.cuts_histories is None:
            self.cuts_histories = self._may_cut_histories(batched_data[0].to(self.device))
        if self.cuts_histories:
            interaction, _, positive_u, positive_i = batched_data
            scores = self._scores_in_parts(interaction.to(self.device))
            scores[:, 0] = -np.inf
        else:
            interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(batched_data)
        self._mask_and_rank(interaction[self.config["USER_ID_FIELD"]], interaction[TARGET_INDEX], scores, positive_u, positive_i)
        return interaction, scores, positive_u, positive_i

    def _scores_in_parts(self, interaction):
        """The model's scores of all items, [B, N], with histories of like lengths scored together and cut to the longest."""
        lengths = interaction[self.model.ITEM_SEQ_LEN]
        scores = torch.empty(len(lengths), self.tot_item_num, device=self.device)
        for rows in parts_of_like_lengths(lengths):
            part = cut_to_longest(interaction[rows], self.model)
            last = torch.arange(len(rows), device=lengths.device)[:, None], lengths[rows][:, None] - 1
            with last_layer_at(self.model, last) if self.last_only else contextlib.nullcontext():
                scores[rows] = self.model.full_sort_predict(part).view(len(rows), -1).float()
        return scores

    def _may_cut_histories(self, interaction):
        """Try whether a model gives the same scores for histories cut to their length; most do, a convolution over all L does not.

        And whether it reads the last state of its encoder alone, which leaves most of the last layer out: `last_only`. Tried on first halves, so that
        there is something to cut whatever the lengths. Histories of one item do not tell.
        """
        try:
            interaction = first_halves(interaction, self.model)
            whole = self.model.full_sort_predict(interaction).view(len(interaction), -1)
            tells = int(interaction[self.model.ITEM_SEQ_LEN].max()) >= 2
            for self.last_only in (True, False) if tells else (False,):
                if torch.allclose(self._scores_in_parts(interaction), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max())):
                    return True
        except (AttributeError, TypeError, RuntimeError, IndexError, KeyError, ValueError):
            self.last_only = False  # scores one item at a time (NotImplementedError), or wants histories as they are
        return False

    def _neg_sample_batch_eval(self, batched_data):
        interaction, scores, positive_u, positive_i = super()._neg_sample_batch_eval(batched_data)
        if scores.dim() == 2 and len(scores) == len(positive_u):  # one target for each user; scores of what was not sampled are -inf
            first = torch.from_numpy(np.unique(batched_data[1].numpy(), return_index=True)[1])
            users, targets = (interaction[name].cpu()[first] for name in (self.config["USER_ID_FIELD"], TARGET_INDEX))
            self._mask_and_rank(users, targets, scores, positive_u, positive_i)
        return interaction, scores, positive_u, positive_i

    def _mask_and_rank(self, users, target_index, scores, positive_u, positive_i):
        """Mask the history in `scores` [B, N], in place, and keep the rank of each target."""
        if torch.isnan(scores).any():
            raise ValueError("evaluation: the model's scores hold NaN. Try a lower learning_rate, or precision=fp32.")
        target = scores[positive_u, positive_i]
        if self.config["mask_history"]:
            rows, items = self.eval_dataset.seen_before(target_index)
            scores[rows.to(scores.device), items.to(scores.device)] = -np.inf
            scores[positive_u, positive_i] = target  # an item consumed again stays a candidate
        ahead, ties = _count(torch.gt, scores, target), _count(torch.eq, scores, target) - 1
        self.ranks.append(torch.stack([users.to(ahead.device), positive_i.to(ahead.device), ahead + 1, ties], dim=1).cpu())
        if self.keep_top:
            best = scores.topk(min(self.keep_top, scores.size(1) - 1), dim=1)
            self.top.append(best.indices.masked_fill(best.values == -np.inf, 0).int().cpu())  # 0: no candidate is left

    def share_before_target(self):
        """Mean share of all items that stood before the target in the last evaluation, 0 to 1, ties by half; None where nothing was ranked."""
        if not self.ranks:
            return None
        _, _, rank, ties = self.ranks.all().double().T
        return float((rank - 1 + ties / 2).mean() / max(self.tot_item_num - 2, 1))  # neither padding nor the target itself

    @torch.no_grad()
    def latency(self, eval_data, repeats=20):
        """Milliseconds from one user's history to the best items, median over `repeats`; after :meth:`evaluate`.

        None for a model that does not score all items at once.
        """
        user, k = next(iter(eval_data))[0][:1].to(self.device), max(self.config["topk"])
        seconds = []
        try:
            for _ in range(repeats + 2):  # the first ones warm up
                start = time.perf_counter()
                self.model.full_sort_predict(user).view(-1).topk(k).indices.cpu()
                seconds.append(time.perf_counter() - start)
        except NotImplementedError:
            return None
        return round(1000 * statistics.median(seconds[2:]), 3)

    def save_ranks(self, path, dataset):
        """Write the rankings of the last evaluation.

        External ids of `user` and `item` (the target), its `rank` (1 is best), the number of `ties` at its score, and `top` [U, K], the
        first items as indexes into `items`, where kept; 0 where a user has fewer candidates.
        """
        user, item, rank, ties = (self.ranks.all() if self.ranks else torch.zeros(0, 4, dtype=torch.long)).numpy().T
        users, items = (np.asarray(dataset.field2id_token[field]).astype(str) for field in (dataset.uid_field, dataset.iid_field))
        columns = {"user": users[user], "item": items[item], "rank": rank, "ties": ties}
        if self.top:
            columns.update(top=self.top.all().numpy(), items=items)

        def write(temporary):
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **columns)

        write_atomic(path, write)
