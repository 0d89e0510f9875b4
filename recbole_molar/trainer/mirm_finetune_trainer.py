"""Stage 1: tunes MIRM on the fine-tuning tasks, with a held-out loss before and after and a checkpoint that resumes exactly."""

import functools
import hashlib
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from recbole_molar.checkpoint import flatten_optimizer, load_tensors, restore_optimizer, restore_rng, rng_state, save_tensors
from recbole_molar.device import return_freed_memory
from recbole_molar.lock import cache_lock
from recbole_molar.lookup import available, find_class
from recbole_molar.model.finetune.base import FinetuneTask, Unbuildable
from recbole_molar.model.finetune.objective import StageOneObjective
from recbole_molar.processes import bar_off, main_says, mean_over_processes, own_noise
from recbole_molar.property_error import PropertyError
from recbole_molar.sharding import clip_gradients, gather, prepare, share_gradients, whole, whole_on_main
from recbole_molar.trainer.schedule import warmup_cosine

HELD_OUT_SHARE, HELD_OUT_MOST = 0.05, 128
ESTIMATE_AFTER = 20  # batches
TRIM_EVERY = 8  # steps


def make_tasks(names, **options):
    """Instances of the tasks named in `mirm_finetune_tasks`.

    Args:
        names (list): file names (`image_text`), class names or dotted paths.
        **options: `history_length` of user behaviour.

    Raises:
        PropertyError: an unknown task.
    """
    by_file = {path.rpartition(".")[2]: name for name, path in available("model.finetune").items()}
    tasks = []
    for name in names:
        if name not in by_file and name not in by_file.values() and "." not in str(name):
            raise PropertyError("mirm_finetune_tasks", f"mirm_finetune_tasks: no task {name}. Valid: {', '.join(by_file)}, or a dotted path to a class.")
        part = find_class(by_file.get(name, name), "model.finetune", key="mirm_finetune_tasks")
        if not (isinstance(part, type) and issubclass(part, FinetuneTask)):
            raise PropertyError("mirm_finetune_tasks", f"mirm_finetune_tasks: {name} is no subclass of recbole_molar.model.finetune.base.FinetuneTask.")
        tasks.append(part(**options) if part.__name__ == "UserBehavior" else part())
    return tasks


def stage1_fingerprint(mirm, tasks, train_histories, settings):
    """sha256 of all that the weights after stage 1 depend on.

    Args:
        mirm (MIRM): before stage 1. tasks (list): of FinetuneTask. train_histories (list): arrays of internal ids.
        settings (dict): anything JSON can hold.
    """
    digest = hashlib.sha256(mirm.fingerprint().encode())
    digest.update(json.dumps([[task.name, vars(task)] for task in tasks], sort_keys=True).encode())
    digest.update(json.dumps(settings, sort_keys=True).encode())
    digest.update(json.dumps([item.id for item in mirm.content.items]).encode())
    mirm.content.hash_into(digest)
    for history in [] if all(task.reads_items_alone for task in tasks) else train_histories:
        digest.update(np.asarray(history, dtype=np.int64).tobytes() + b"|")
    return digest.hexdigest()


class MIRMFinetuneTrainer:
    """Fine-tunes MIRM in place; several processes share each batch.

    Args:
        mirm (MIRM): the model. tasks (list): from :func:`make_tasks`. accelerator (Accelerator): device, precision.
        train_histories (list): for each user, training interactions as internal ids in time order.
        folder (Path): for the checkpoint of a run that is cut. cache_dir (Path, optional): finished weights are kept there and
            reused by any run with equal settings.
        samples (int): most samples of each task. epochs (int): passes over them. batch_size (int): samples of one task in a batch.
        learning_rate (float): peak; warm-up from 1/100 of it over `warmup_ratio` of all steps, then cosine to 0.
        weight_decay, clip_norm (float): of AdamW, of the gradient's norm.
        objective (str), bow_weight, contrast_weight, temperature, max_answer_tokens, view_contrast_weight: see :class:`StageOneObjective`.
        seed (int): samples, their order. save_minutes (float): time between checkpoints inside an epoch.
    """

    def __init__(self, mirm, tasks, accelerator, train_histories, folder, cache_dir=None, samples=10000, epochs=1, batch_size=32,
                 learning_rate=2e-3, warmup_ratio=0.1, weight_decay=0.01, clip_norm=1.0, objective="through_state", bow_weight=1.0,
                 contrast_weight=1.0, temperature=0.1, max_answer_tokens=32, seed=0, save_minutes=5.0,
                 view_contrast_weight=0.0):  # fmt: skip
        self.settings = {
            "samples": samples, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "warmup_ratio": warmup_ratio,
            "weight_decay": weight_decay, "clip_norm": clip_norm, "objective": objective, "bow_weight": bow_weight,
            "contrast_weight": contrast_weight, "temperature": temperature, "max_answer_tokens": max_answer_tokens, "seed": seed,
            "precision": accelerator.mixed_precision, "accumulation": 1,  # stands in the names of finished files
        }  # fmt: skip
        if view_contrast_weight:
            self.settings["view_contrast_weight"] = view_contrast_weight  # left out at 0: results from before it count on
        self.mirm, self.tasks, self.accelerator, self.train_histories = mirm, tasks, accelerator, train_histories
        self.folder, self.cache_dir, self.save_minutes = Path(folder), cache_dir and Path(cache_dir), save_minutes
        self.log = logging.getLogger()
        counts = np.zeros(len(mirm.content))
        for history in train_histories:
            np.add.at(counts, np.asarray(history, dtype=np.int64), 1)
        self.objective = StageOneObjective(mirm, objective, bow_weight, contrast_weight, counts, temperature, max_answer_tokens, view_contrast_weight)

    def fit(self):
        """Run stage 1, or take its result from the cache.

        Returns:
            dict: JSON-able; `tasks` (samples, held-out loss before and after), `skipped`, `seconds`, `reused`, `weights` (their file).

        Raises:
            ValueError: the loss is not a number.
        """
        start = time.time()
        if not self.tasks or self.mirm.backbone.tuning == "frozen":
            self.log.info("Stage 1 is left out: %s.", "MIRM is frozen" if self.tasks else "mirm_finetune_tasks is empty")
            return {"tasks": {}, "skipped": {}, "seconds": 0.0, "reused": False}
        with cache_lock(self.finished and self.cache_dir, self.finished and self.finished.stem, self.accelerator):
            self.accelerator.wait_for_everyone()  # until another run has finished this very stage 1
            report = self.reuse() or self._run(start)
            if self.accelerator.is_main_process:
                self._checkpoint.unlink(missing_ok=True)  # also where another run has finished it meanwhile
            return report

    def _run(self, start):
        train, held_out, skipped = self._draw_samples()
        report = {"tasks": {}, "skipped": skipped, "seconds": 0.0, "reused": False}
        if train:
            before, after = self._train(train, held_out)
            report["tasks"] = {
                name: {"samples": len(train[name]), "loss_before": before[name], "loss_after": after[name]} for name in before
            }
        report["seconds"] = round(time.time() - start, 1)
        if self.finished:
            report["weights"] = str(self.finished)
            self.mirm.save(self.finished, {"fingerprint": self.fingerprint, "report": report})
            self.log.info("Stage 1: weights in %s; --mirm_weights=%s uses them again when items change.", self.finished, self.finished)
        return report

    @property
    def _checkpoint(self):
        return self.folder / "stage1.safetensors"

    @functools.cached_property
    def fingerprint(self):
        """Of all that stage 1 depends on; taken before MIRM is trained."""
        return stage1_fingerprint(self.mirm, self.tasks, self.train_histories, self.settings)

    @property
    def finished(self):
        """The file of the finished weights; None without a cache."""
        return self.cache_dir and self.cache_dir / f"mirm-{self.fingerprint[:16]}.safetensors"

    def reuse(self):
        """Load the weights of an equal stage 1 from the cache; returns its report, or None where there is none."""
        if not self.finished or not self.finished.is_file():
            return None
        try:
            meta = self.mirm.load(self.finished)
            if not isinstance(meta.get("report"), dict):
                raise ValueError(f"{self.finished}: holds no report of stage 1.")
        except ValueError as error:
            self.log.warning("%s Stage 1 runs again.", error)
            return None
        self.log.info("Stage 1: reused %s.", self.finished)
        return {**meta["report"], "reused": True, "weights": str(self.finished)}

    def _draw_samples(self):
        """Samples by task: for training, held out, and the reasons of tasks that cannot be built."""
        train, held_out, skipped = {}, {}, {}
        for place, task in enumerate(self.tasks):
            rng = np.random.default_rng([self.settings["seed"], place])
            try:
                drawn = task.samples(self.mirm.content, self.mirm.collator.images, self.train_histories, self.settings["samples"], rng)
            except Unbuildable as reason:
                self.log.warning("Fine-tuning task %s is skipped: %s.", task.name, reason)
                skipped[task.name] = str(reason)
                continue
            writes_alone = not self.objective.has_contrast_or_bags(drawn[0])
            if writes_alone:
                drawn = [sample for sample in drawn if sample.answer]  # the others would give no loss
            if not any(sample.answer for sample in drawn) and (writes_alone or not self.settings["contrast_weight"]):
                skipped[task.name] = "there is no text to write: item_modalities leaves it out"
                self.log.warning("Fine-tuning task %s is skipped: %s.", task.name, skipped[task.name])
                continue
            kept = min(int(len(drawn) * HELD_OUT_SHARE), HELD_OUT_MOST)
            held_out[task.name], train[task.name] = drawn[:kept] or drawn[:1], drawn[kept:]
        return train, held_out, skipped

    def _train(self, train, held_out):
        self.objective.to(self.accelerator.device)
        of_mirm = [value for value in self.mirm.parameters() if value.requires_grad]
        rest = [value for name, value in self.objective.named_parameters() if not name.startswith("mirm.")]
        groups = [{"params": values} for values in (of_mirm, rest) if values]  # apart: shards and whole tensors cannot be stepped together
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings["learning_rate"], weight_decay=self.settings["weight_decay"], fused=True)
        self.model, self.optimizer = prepare(self.accelerator, self.objective, self.optimizer)
        position = self._resume()
        if position is None:
            position = {"epoch": 0, "batch": 0, "step": 0, "before": self.evaluate(held_out)}
            self._log_losses("before", position["before"])
        steps = self.settings["epochs"] * len(self._batches(train, 0))
        for epoch in range(position["epoch"], self.settings["epochs"]):
            self._epoch(epoch, self._batches(train, epoch), position, steps)
        after = self.evaluate(held_out)
        self._log_losses("after", after)
        self._log_generations(held_out)
        self.objective.eval()
        self.accelerator.free_memory()  # it would keep the optimizer, two fp32 numbers for each weight, through stage 2
        return position["before"], after

    def _batches(self, train, epoch):
        """(task name, sample numbers) of each batch of an epoch: tasks alternate at random; the same for the same epoch."""
        rng = np.random.default_rng([self.settings["seed"], 1000 + epoch])
        size, batches = self.settings["batch_size"], []
        for name, samples in train.items():
            order = rng.permutation(len(samples))
            batches += [(name, [samples[place] for place in order[start : start + size]]) for start in range(0, len(order), size)]
        return [batches[place] for place in rng.permutation(len(batches))]

    def _epoch(self, epoch, batches, position, steps):
        instruction = {task.name: task.instruction for task in self.tasks}
        saved, start, sums = time.time(), time.time(), {}
        self.model.train()
        progress = tqdm(batches, desc=f"Stage 1, epoch {epoch + 1}", unit="batch", initial=position["batch"], disable=bar_off())
        progress.n = first = position["batch"]
        for number in range(first, len(batches)):
            name, samples = batches[number]
            own_noise(self.settings["seed"], epoch, number)
            gather(self.model)
            with self.accelerator.autocast():
                loss, parts = self.model(samples, instruction[name])
            values = mean_over_processes(torch.stack([loss.detach(), *parts.values()]))
            if not torch.isfinite(values[0]):
                raise ValueError(
                    f"Stage 1: the loss of {name} is {values[0].item()} in epoch {epoch + 1}, batch {number + 1}. Lower "
                    f"mirm_finetune_learning_rate={self.settings['learning_rate']}, or set precision=fp32."
                )
            self.accelerator.backward(loss)
            for part, value in zip(parts, values[1:], strict=True):
                sums.setdefault((name, part), []).append(value)
            self._step(position, steps)
            position.update(epoch=epoch, batch=number + 1)
            if position["step"] % TRIM_EVERY == 0:
                return_freed_memory()
            if main_says(time.time() - saved > 60 * self.save_minutes, self.accelerator.device):
                self._save(position)
                saved = time.time()
            progress.update()
            if number + 1 - first == ESTIMATE_AFTER:
                left = (time.time() - start) / ESTIMATE_AFTER * (len(batches) - number - 1)
                self.log.info("Stage 1, epoch %d: about %.0f min to go for %d batches", epoch + 1, left / 60, len(batches) - number - 1)
        progress.close()
        position.update(epoch=epoch + 1, batch=0)
        self._save(position)
        means = ", ".join(f"{name} {part} {torch.stack(values).mean():.4f}" for (name, part), values in sorted(sums.items()))
        self.log.info("Stage 1, epoch %d: %s [%.0f s]", epoch + 1, means, time.time() - start)

    def _step(self, position, steps):
        warmup = max(1, round(steps * self.settings["warmup_ratio"]))
        factor = warmup_cosine(position["step"], steps, warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings["learning_rate"] * factor
        share_gradients(self.model)
        clip_gradients(self.model.parameters(), self.settings["clip_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        position["step"] += 1

    @torch.no_grad()
    def evaluate(self, held_out):
        """Mean language-model loss of the held-out samples of each task (None where nothing is written)."""
        self.objective.eval()
        with whole(self.objective):
            return self._evaluate(held_out)

    def _evaluate(self, held_out):
        instruction, losses = {task.name: task.instruction for task in self.tasks}, {}
        for name, samples in held_out.items():
            size, values = self.settings["batch_size"], []
            for start in range(0, len(samples), size):
                with self.accelerator.autocast():
                    values.append(self.objective(samples[start : start + size], instruction[name])[1].get("lm"))
            losses[name] = None if None in values else round(float(mean_over_processes(torch.stack(values).mean())), 4)
        return losses

    def _log_losses(self, when, losses):
        self.log.info("Stage 1, held-out loss %s: %s", when, ", ".join(f"{name} {value}" for name, value in losses.items()))

    def _log_generations(self, held_out):
        for task in self.tasks:
            if held_out.get(task.name) and held_out[task.name][0].answer:
                sample = held_out[task.name][0]
                with self.accelerator.autocast(), whole(self.objective):
                    text = self.objective.generate(sample, task.instruction)
                self.log.info("Stage 1, %s wrote %r; wanted %r", task.name, text, sample.answer[:120])

    def _save(self, position):
        tensors = {f"model.{name}": value for name, value in self.mirm.backbone.weights().items()}
        tensors.update({f"rest.{name}": value for name, value in self._objective_state().items()})
        optimizer, optimizer_rest = flatten_optimizer(self.optimizer)
        tensors = whole_on_main({**tensors, **optimizer})
        if not self.accelerator.is_main_process:
            return
        rng, rng_rest = rng_state()
        meta = {"position": position, "optimizer": optimizer_rest, "rng": rng_rest, "fingerprint": self.fingerprint}
        save_tensors(self._checkpoint, {**tensors, **rng}, meta)

    def _objective_state(self):
        """What the objective holds beside MIRM: the bag-of-words head and running figures."""
        return {name: value for name, value in self.objective.state_dict().items() if not name.startswith("mirm.")}

    def _resume(self):
        """Where a run that was cut stands, with its state restored, or None."""
        if not self._checkpoint.is_file():
            return None
        try:
            tensors, meta = load_tensors(self._checkpoint)
        except ValueError as error:
            self.log.warning("%s", error)
            return None
        if meta.get("fingerprint") != self.fingerprint:
            self.log.warning("%s belongs to other stage-1 settings; stage 1 starts anew.", self._checkpoint)
            return None
        try:
            position, rng = meta["position"], meta["rng"]
            where = position["epoch"] + 1, position["batch"]
            restore_optimizer(self.optimizer, tensors, meta["optimizer"])
        except (ValueError, KeyError, TypeError) as error:
            self.log.warning("%s: %s Stage 1 starts anew.", self._checkpoint, error)
            return None
        weights = {name[len("model.") :]: value for name, value in tensors.items() if name.startswith("model.")}
        self.mirm.load_weights(weights, self._checkpoint)
        rest = {name[len("rest.") :]: value for name, value in tensors.items() if name.startswith("rest.")}
        self.objective.load_state_dict(rest, strict=False)
        restore_rng(tensors, rng)
        self.log.info("Stage 1 goes on at epoch %d, batch %d.", *where)
        return position
