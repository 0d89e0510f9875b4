"""RecBole's Trainer for every sequential model of a run, ours and RecBole's: Accelerate, exact resume, masked evaluation."""

import contextlib
import functools
import math
import time
from logging import getLogger
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.checkpoint import flatten_optimizer, load_meta, load_tensors, restore_optimizer, restore_rng, rng_state, save_tensors, write_json
from recbole_molar.device import kept_freed_memory
from recbole_molar.model.all_positions import n_targets
from recbole_molar.processes import bar_off, main_says, mean_over_processes, n_processes, own_noise, process_index, standing_in
from recbole_molar.run_folder import CONFIG
from recbole_molar.sharding import clip_gradients, gather, prepare, shard_as, share_gradients, whole_on_main
from recbole_molar.trainer.ranking_trainer import RankingTrainer
from recbole_molar.trainer.schedule import warmup_cosine

ESTIMATE_AFTER = 20  # batches
COME_APART = 0.5  # of the best validation score: a fall below that is told
LIKE_CHANCE = 0.45  # of the items that stand before the target, on average: from here on it is told (chance: at most 0.5, less for long histories)
OF_OTHER_FILES = ("mirm.", "id_model.")  # parts of a model that have files of their own
SKETCHED, ROUNDING = 64, 0.05  # values of a tensor that a checkpoint keeps to know it by, and by how much they may differ, relatively
LAST, BEST, CURVE = "last.safetensors", "best.safetensors", "curve.json"
CHECKPOINT_KEYS = ("epoch", "global_step", "cur_step", "curve", "best_valid_score", "best_valid_result", "optimizer", "rng", "split_hash")


class LossModule(torch.nn.Module):
    """A model's `calculate_loss` as `forward`, for what wraps a module to exchange gradients.

    Args:
        model: a recommender. device_type (str); autocast (bool): whether to compute in bfloat16.
    """

    def __init__(self, model, device_type, autocast):
        super().__init__()
        self.model, self.device_type, self.autocast = model, device_type, autocast

    def forward(self, interaction):
        """RecBole's batch -> scalar, or a tuple of them."""
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.autocast):
            return self.model.calculate_loss(interaction)


class SequentialTrainer(RankingTrainer):
    """Train, validate and test one model.

    Adds to RecBole's Trainer: parameter groups and a learning-rate schedule (`lr_schedule`, `warmup_ratio`), gradient
    accumulation, autocast and devices through Accelerate, the history masked in evaluation (`mask_history`), a checkpoint
    of every epoch from which training goes on exactly, and per-user ranks.

    Of several processes each takes its rows of every batch, `train_batch_size` being that of all together; the step is the one that a
    single process takes with the whole batch.

    Args:
        config (Config): the run's.
        model: any sequential recommender. Optional attributes: `loss_names` (parts of the loss), `supports_autocast`,
            `n_targets(interaction)` (see :func:`n_targets`), `parameter_groups(config)`, `before_training(train_data, trainer)`, `before_evaluation(trainer)`.
        accelerator (Accelerator): where to compute.
        folder (str or Path): where checkpoints and curves go.
    """

    def __init__(self, config, model, accelerator, folder):
        self.folder = Path(folder)
        self.accelerator = accelerator
        config["checkpoint_dir"] = str(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)  # RecBole looks first and makes it then: two processes come in each other's way
        if process_index():
            config["log_wandb"] = False  # one run, not W
        super().__init__(config, model)
        model.low_precision_products = accelerator.mixed_precision == "bf16"  # see AllPositions
        self.global_step = 0
        self.curve = []
        self.content_hash = None  # of what the model reads of items and times, where it does

    # --------------------------------------------------------------- training

    def _build_optimizer(self, **kwargs):
        groups = getattr(self.model, "parameter_groups", lambda config: [{"params": [p for p in self.model.parameters() if p.requires_grad]}])(self.config)
        learner = str(self.learner).lower()
        if not any(group["params"] for group in groups):
            groups = [{"params": [torch.zeros((), requires_grad=True)]}]  # nothing is trained (Popularity); torch wants a parameter
        if learner in ("adam", "adamw"):
            optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[learner](
                groups, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
            )
        else:
            optimizer = super()._build_optimizer(params=groups)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def _set_learning_rate(self, n_steps):
        """Linear warm-up, then constant or a cosine to 1/100 (`lr_schedule`)."""
        warmup = int((self.config["warmup_ratio"] or 0) * n_steps)
        factor = warmup_cosine(self.global_step, n_steps, warmup, final=0.01, cosine=self.config["lr_schedule"] == "cosine")
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        """One pass over the training rows; returns the mean of each loss part, as a tuple."""
        self.model.train()
        loss_func = loss_func or self.loss
        own_noise(self.config["seed"], epoch_idx)
        accumulation = self.config["gradient_accumulation_steps"] or 1
        n_steps = self.epochs * math.ceil(len(train_data) / accumulation)
        total, n_batches, start = None, 0, time.time()
        bar = tqdm(train_data, total=len(train_data), desc=f"epoch {epoch_idx + 1}", unit="batch", disable=bar_off() if show_progress else True, leave=False)
        for index, interaction in enumerate(bar):
            ends_step = (index + 1) % accumulation == 0 or index + 1 == len(train_data)
            gather(self.model)
            with contextlib.nullcontext() if ends_step else self.accelerator.no_sync(self.loss):
                losses = self._losses(loss_func, interaction)
                values = mean_over_processes(torch.stack([loss.detach() for loss in losses]))
                self._check_finite(values, epoch_idx, index)
                total = values if total is None else total + values
                n_batches += 1
                whole = index - index % accumulation + accumulation <= len(train_data)
                self.accelerator.backward(sum(losses) / (accumulation if whole else len(train_data) % accumulation))
            if ends_step:
                self._step(n_steps)
            if epoch_idx == self.start_epoch and index + 1 == ESTIMATE_AFTER:
                seconds = (time.time() - start) / ESTIMATE_AFTER * len(train_data)
                getLogger().info("about %.0f s an epoch, at most %.0f min in all", seconds, seconds * (self.epochs - epoch_idx) / 60)
        return tuple((total / n_batches).tolist())

    def _autocast(self):
        wanted = getattr(self.model, "supports_autocast", False) or self.enable_amp
        return bool(wanted and self.accelerator.mixed_precision == "bf16")

    @functools.cached_property
    def loss(self):
        """The model's loss as a module, among several processes one that exchanges the gradients; made where training begins."""
        loss = LossModule(self.model, self.device.type, self._autocast())
        if n_processes() == 1 or not any(parameter.requires_grad for parameter in self.model.parameters()):
            return loss
        loss, self.optimizer = prepare(self.accelerator, loss, self.optimizer)
        return loss

    def _losses(self, loss_func, interaction):
        """Parts of the loss of a batch, scalars. Their mean over the processes, each with its rows, is the loss of the whole batch."""
        share = interaction if n_processes() == 1 else interaction[process_index() :: n_processes()]  # not a stretch: a batch is sorted by length
        stands_in = n_processes() > 1 and not any(n_targets(self.model, share))
        with standing_in(stands_in):
            losses = loss_func((interaction if stands_in else share).to(self.device))
        losses = tuple(loss.squeeze() for loss in (losses if isinstance(losses, tuple) else (losses,)))  # RecBole's EmbLoss is of shape [1]
        if n_processes() == 1:
            return losses
        own, whole = (n_targets(self.model, part, len(losses)) for part in (share, interaction))
        return tuple(loss * (n_processes() * n / total) for loss, n, total in zip(losses, own, whole, strict=True))

    def _step(self, n_steps):
        share_gradients(self.model)
        if self.clip_grad_norm:
            clip_gradients(self.model.parameters(), **self.clip_grad_norm)
        self._set_learning_rate(n_steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.global_step += 1

    def _check_finite(self, values, epoch_idx, index):
        if not torch.isfinite(values).all():
            parts = dict(zip(self._loss_names(len(values)), values.tolist(), strict=True))
            raise ValueError(
                f"epoch {epoch_idx + 1}, batch {index + 1}: the loss is not a finite number ({parts}). "
                f"Try a lower learning_rate (now {self.learning_rate}), clip_grad_norm={{max_norm: 1}} (in Molar's ID model id_learning_rate, "
                "id_clip_grad_norm), or precision=fp32."
            )

    def _loss_names(self, n):
        names = getattr(self.model, "loss_names", ("loss",))
        return names if len(names) == n else tuple(f"loss_{index + 1}" for index in range(n))

    def fit(self, train_data, valid_data=None, verbose=True, saved=True, show_progress=False, callback_fn=None):
        """Train until `epochs`, or until `valid_metric` has not risen for more than `stopping_step` validations.

        Returns:
            tuple: best validation score and the whole validation result of that epoch.
        """
        self.eval_collector.data_collect(train_data)
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)
        stopped = bool(self.curve) and self.cur_step > self.stopping_step
        if hasattr(self.model, "before_training") and self.start_epoch < self.epochs and not stopped:
            self.model.before_training(train_data, self)
        with kept_freed_memory(self.device):
            for epoch_idx in range(self.start_epoch, self.epochs):
                if stopped:
                    break
                stopped = self._one_epoch(epoch_idx, train_data, valid_data, verbose, saved, show_progress, callback_fn)
                if saved:
                    self._save_checkpoint(epoch_idx, train_data=train_data)
                    if self.curve[-1].get("best"):
                        self._save_best()  # after the checkpoint, from which it can be made again
        if saved and not main_says((self.folder / BEST).is_file(), self.device):
            self._save_best()  # no validation took place
        if n_processes() > 1:
            self.accelerator.free_memory()  # it would keep what wraps the model
        return self.best_valid_score, self.best_valid_result

    def _one_epoch(self, epoch_idx, train_data, valid_data, verbose, saved, show_progress, callback_fn):
        start = time.time()
        losses = self._train_epoch(train_data, epoch_idx, show_progress=show_progress)
        entry = {"epoch": epoch_idx + 1, "train_seconds": round(time.time() - start, 2)}
        entry.update(zip(self._loss_names(len(losses)), losses, strict=True))
        stop = fell = False
        if valid_data and self.eval_step > 0 and ((epoch_idx + 1) % self.eval_step == 0 or epoch_idx + 1 == self.epochs):
            start = time.time()
            score, result = self._valid_epoch(valid_data, show_progress=show_progress)
            improved = score > self.best_valid_score if self.valid_metric_bigger else score < self.best_valid_score
            self.best_valid_score, self.cur_step = (score, 0) if improved else (self.best_valid_score, self.cur_step + 1)
            stop, fell = self.cur_step > self.stopping_step, self.valid_metric_bigger and score < COME_APART * self.best_valid_score
            entry.update({"valid": dict(result), "valid_seconds": round(time.time() - start, 2)})
            if improved:
                self.best_valid_result = dict(result)
                entry["best"] = True
            if callback_fn:
                callback_fn(epoch_idx, score)
        self.curve.append(entry)
        if verbose:
            self._log_epoch(entry)
            if fell:
                getLogger().warning(
                    "epoch %d: valid %s %.4f, and %.4f at best before. Training may have come apart; clip_grad_norm={max_norm: 2} or a lower "
                    "learning_rate (now %g) can prevent that (in Molar's ID model id_clip_grad_norm, id_learning_rate).",
                    epoch_idx + 1, self.valid_metric, score, self.best_valid_score, self.learning_rate,
                )  # fmt: skip
            if "valid" in entry and (before := self.share_before_target()) is not None and before > LIKE_CHANCE:
                getLogger().warning(
                    "epoch %d: on average %.0f%% of all items stand before the user's target, about as in a random order: nothing is learnt yet. If it "
                    "stays so, all embeddings may have become alike: try a lower learning_rate (now %g), or clip_grad_norm={max_norm: 1}.",
                    epoch_idx + 1, 100 * before, self.learning_rate,
                )  # fmt: skip
        return stop

    def _log_epoch(self, entry):
        losses = "  ".join(f"{name} {entry[name]:.4f}" for name in entry if name not in ("epoch", "train_seconds", "valid", "valid_seconds", "best"))
        valid = "  ".join(f"{name} {value:.4f}" for name, value in entry.get("valid", {}).items())
        seconds = entry["train_seconds"] + entry.get("valid_seconds", 0)
        at_most = seconds * (self.epochs - entry["epoch"]) / 60
        getLogger().info(
            "epoch %d/%d  %s%s%s  %.1f s, at most %.0f min to go", entry["epoch"], self.epochs, losses,
            f"  |  valid {valid}" if valid else "", " *" if entry.get("best") else "", seconds, at_most,
        )

    # ------------------------------------------------------------- checkpoint

    def _model_tensors(self):
        keep = getattr(self.model, "is_saved", lambda name: True)
        return {f"model.{name}": value for name, value in self.model.state_dict().items() if keep(name)}

    def _load_model(self, tensors):
        state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        own = self.model.state_dict()
        try:
            state = {name: shard_as(value, own.get(name)) for name, value in state.items()}
            missing, unexpected = self.model.load_state_dict(state, strict=False)
        except RuntimeError as error:  # other shapes; the message lists each tensor
            reason = str(error).splitlines()[1].strip()
            raise ValueError(f"{self.folder}: the checkpoint is of another model ({reason}). {self._remedy}") from error
        keep = getattr(self.model, "is_saved", lambda name: True)
        missing = [name for name in missing if keep(name)]
        if missing or unexpected:
            raise ValueError(f"{self.folder}: the checkpoint is of another model (missing {missing[:3]}, unexpected {unexpected[:3]}). {self._remedy}")

    def _save_best(self):
        tensors = whole_on_main(self._model_tensors())
        if self.accelerator.is_main_process:
            save_tensors(self.folder / BEST, tensors, {"model": self.config["model"], "valid": self.best_valid_result})

    def _save_checkpoint(self, epoch, verbose=True, train_data=None, **kwargs):
        optimizer, optimizer_rest = flatten_optimizer(self.optimizer)
        tensors = whole_on_main({**self._model_tensors(), **optimizer})
        if not self.accelerator.is_main_process:
            return
        rng, rng_rest = rng_state()
        tensors.update(rng)
        if train_data is not None:
            tensors["rng.loader"] = train_data.generator.get_state()
        meta = {
            "epoch": epoch, "global_step": self.global_step, "cur_step": self.cur_step, "curve": self.curve,
            "best_valid_score": float(self.best_valid_score), "best_valid_result": self.best_valid_result,
            "optimizer": optimizer_rest, "rng": rng_rest, "split_hash": train_data._dataset.split_hash() if train_data is not None else None,
            "content_hash": self.content_hash, "not_saved": self._sketch(),
        }
        save_tensors(self.folder / LAST, tensors, meta)
        write_json(self.folder / CURVE, self.curve)

    def resume_checkpoint(self, resume_file=None, train_data=None):
        """Go on after the last finished epoch of this folder, with the same random numbers; nothing to do if there is none."""
        path = Path(resume_file or self.folder / LAST)
        if not path.is_file():
            return
        tensors, meta = load_tensors(path)
        missing = [key for key in CHECKPOINT_KEYS if key not in meta]
        if missing:
            raise ValueError(f"{path}: not the checkpoint of a run, it lacks {', '.join(missing)}. {self._remedy}")
        if train_data is not None:
            check_same_data(path, train_data._dataset.split_hash(), self.content_hash)
        self._check_what_is_not_saved(path, meta.get("not_saved"))
        self._load_model(tensors)
        try:
            restore_optimizer(self.optimizer, tensors, meta["optimizer"])
            restore_rng(tensors, meta["rng"])
            if train_data is not None and "rng.loader" in tensors:
                train_data.generator.set_state(tensors["rng.loader"])
            self.start_epoch, self.global_step, self.cur_step = meta["epoch"] + 1, meta["global_step"] + 0, meta["cur_step"] + 0
            self.curve, self.best_valid_score, self.best_valid_result = list(meta["curve"]), float(meta["best_valid_score"]), meta["best_valid_result"]
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # whatever a changed file leads to
            raise ValueError(f"{path}: not the checkpoint of this run ({type(error).__name__}: {error}). {self._remedy}") from error
        getLogger().info("going on after epoch %d of %s", self.start_epoch, path)
        self._finish_what_was_cut()

    def _finish_what_was_cut(self):
        """Make the files that follow the checkpoint, where writing stopped in between.

        Raises:
            ValueError: the best epoch was an earlier one, and its file is gone.
        """
        if self.curve and self.curve[-1].get("best"):
            if main_says(not self._best_is_of(self.best_valid_result), self.device):
                self._save_best()
        elif self.best_valid_result is not None and not main_says((self.folder / BEST).is_file(), self.device):
            found = f"{self.folder / BEST}: is gone, and with it the weights of the best epoch"
            raise ValueError(f"{found}. Delete {LAST} beside it too, and all is trained anew.")
        if self.accelerator.is_main_process:
            write_json(self.folder / CURVE, self.curve)

    def _best_is_of(self, result):
        try:
            return load_meta(self.folder / BEST).get("valid") == result
        except ValueError:
            return False

    def _sketch(self):
        """Name -> some values of each tensor that checkpoints leave out since another file holds it: a cached item table, MIRM, a frozen ID model."""
        keep, state = getattr(self.model, "is_saved", lambda name: True), self.model.state_dict()
        left_out = {name: value for name, value in state.items() if name.startswith(OF_OTHER_FILES) and not keep(name)}
        if (table := getattr(self.model, "mirm_table", None)) is not None and "mirm_table" not in state:
            left_out["mirm_table"] = table
        left_out = {name: value for name, value in left_out.items() if value.numel() and not hasattr(value, "to_local")}
        return {name: value.detach().flatten()[:: -(-value.numel() // SKETCHED)].double().cpu().tolist() for name, value in left_out.items()}

    def _check_what_is_not_saved(self, path, then):
        """Raise ValueError where the run would go on over another item table or ID model than it began with; rounding apart."""
        now = self._sketch()
        for name in sorted(now.keys() & (then or {}).keys()):
            one, other = (np.asarray(values, dtype=np.float64) for values in (then[name], now[name]))
            if one.shape != other.shape or np.linalg.norm(one - other) > ROUNDING * (np.linalg.norm(one) + 1e-12):
                found = f"was trained over another {name} than is there now: the item embeddings or an ID model were made anew, or given otherwise"
                raise ValueError(f"{path}: {found}. {self._remedy}")

    @property
    def _remedy(self):
        """What helps where a checkpoint cannot be gone on with: the folder is a run's, or a part's in the cache, which every run would find again."""
        return "Start a new run." if (self.folder / CONFIG).is_file() else f"Delete the folder {self.folder}, and it is trained anew."

    def load_best(self):
        """Put the weights of the best validation epoch into the model."""
        self._load_model(load_tensors(self.folder / BEST)[0])


def check_same_data(path, split_hash, content_hash):
    """Raise ValueError where a checkpoint was trained on another split, or on other texts, pictures, features or times; None is not compared."""
    meta = load_meta(path)
    if split_hash is not None and meta.get("split_hash") not in (None, split_hash):
        raise ValueError(f"{path}: was trained on other data (split_hash differs). Put the data back as it was, or start a new run.")
    if content_hash is not None and meta.get("content_hash") not in (None, content_hash):
        found = "was trained on other texts, pictures, features or times, or reads them otherwise now (content_hash differs)"
        raise ValueError(f"{path}: {found}. Put the data back as it was, or start a new run.")
