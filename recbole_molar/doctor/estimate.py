"""Time and memory of each stage of a run on this machine: real batches through real, untrained parts, which are thrown away."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.device import kept_freed_memory
from recbole_molar.doctor.features import rehearse_features
from recbole_molar.doctor.rehearsal import Clock, free_memory, seconds_of, seconds_per_batch, watched
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.quick_start import DONE, finished_id_models, make_id_configs, prepare, stages_of, trained_id_model
from recbole_molar.stages import build_id_model, finetune_trainer
from recbole_molar.utils import get_trainer, make_model
from recbole.data.interaction import cat_interactions
from recbole.utils import init_seed

ITEMS_TIMED, EVALUATED_BATCHES, DRAWN = 96, 3, 32
BUDGET = 4.0  # seconds of timing for each stage
MOST_HASHED = 20_000  # pictures; beyond, reading them all to know whether the cache has their stage takes longer than the doctor should


class Estimate:
    """Makes the estimate; `stages` holds what is known so far, by the names that `result.json` gives to seconds.

    Args:
        config (Config), prepared (Prepared), content (ItemContent or None), accelerator (Accelerator): the run's.
        folder (Path): exists; RecBole's Trainer wants one, nothing is written there.
        mirm (MIRM, optional): untrained; None for models that read no content, or by other encoders.
        pictures_decoded (bool): the pictures are in memory already, so that drawing the samples of stage 1 is quick.
        reuse (bool): a stage whose result lies in the cache costs nothing, as in a run.
    """

    def __init__(self, config, prepared, content, accelerator, folder, mirm=None, pictures_decoded=True, reuse=True):
        self.config, self.prepared, self.content, self.accelerator = config, prepared, content, accelerator
        self.folder, self.mirm, self.pictures_decoded = folder, mirm, pictures_decoded
        self.device, self.stages, self.parameters, self.all_items_seconds = config["device"], {}, None, 0.0
        self.cache = Path(config["output_dir"]) / "cache" if reuse else None
        n_pictures = sum(item.image_path is not None for item in content.items) if content else 0
        self.item_cache = self.cache if n_pictures <= MOST_HASHED else None
        self.free_before = free_memory(self.device)[0]

    def make(self):
        """Rehearse all stages.

        Returns:
            dict: `stages` (name -> seconds and how they come about, peak memory), `total_seconds`, memory; JSON-able.

        Raises:
            ValueError: what a run would stop with.
        """
        if self.content is None:
            init_seed(self.config["seed"], self.config["reproducibility"])
            model = make_model(self.prepared.model_class, self.config, self.prepared.loaders[0]._dataset)
        else:
            model = rehearse_features(self) if self.mirm is None else self._over_mirm()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._training(self.config["model"], self.config, self.prepared, model)
        fits = not any("does_not_fit" in stage for stage in self.stages.values())
        seconds = sum(stage.get("seconds", 0.0) for stage in self.stages.values())
        peak = max(stage["peak_gib"] for stage in self.stages.values())
        return {
            "stages": self.stages, "total_seconds": round(seconds, 1), "peak_gib": peak, "free_gib": round(self.free_before, 2), "fits": fits,
            "parameters": self.parameters, "slowdown": Clock.slowdown(), "threads": torch.get_num_threads(),
        }

    def _over_mirm(self):
        """The recommender with untrained parts; rehearses the stages before it, those that it has, on the way."""
        config, id_parts, stages = self.config, (), stages_of(self.config.model_class)
        if "id_model" in config:
            if not config.reads_id_model:
                self.skip("id_model", "left out: align_weight=0" if "align_weight" in config else "left out: collaborative=False")
            id_parts = build_id_model(config, self.prepared, self.accelerator, None, self._id_model)
        if "mirm_finetune_tasks" in config:
            self._stage_1()
        self._table()
        table = torch.randn(len(self.content), self.mirm.embedding_dim)
        if config["collaborative"]:
            self._tuning(stages, table)
        return stages.assemble(config, self.prepared, self.mirm, table, *id_parts)

    # ------------------------------------------------------------------ stages

    def _id_model(self, config, accelerator, folder, split_hash):
        """Stands in for `train_id_model`: the same model, untrained, its training rehearsed."""
        if config["id_weights"]:
            self.skip("id_model", f"reused: id_weights={config['id_weights']}")
            return finished_id_models(config, accelerator, split_hash)
        return [self._one_id_model(stage, id_config, split_hash) for stage, id_config in make_id_configs(config).items()]

    def _one_id_model(self, stage, id_config, split_hash):
        config, prepared = self.config, prepare(id_config)
        init_seed(id_config["seed"], id_config["reproducibility"])
        model = make_model(prepared.model_class, id_config, prepared.loaders[0]._dataset)
        trained = self.cache and trained_id_model(config, id_config, split_hash)
        if config["id_training"] == "joint":
            self.skip(stage, f"left out: id_training=joint trains it with {config['model']}")
        elif trained:
            self.skip(stage, f"reused: {trained}")
        else:
            self._training(stage, id_config, prepared, model)
        return model

    def _tuning(self, stages, table):
        """CoLLM's step 1."""
        tuning = stages.tuning_config(self.config)
        cached = stages.tuning_cache(tuning, self.prepared.dataset.split_hash(), self.mirm)
        if self.cache and (cached / DONE).is_file():
            self.skip("tuning", f"reused: {cached}")
        else:
            self._training("tuning", tuning, self.prepared, stages.assemble(tuning, self.prepared, self.mirm, table))

    def skip(self, name, why):
        """A stage that costs nothing, and why."""
        self.stages[name] = {"skipped": True, "seconds": 0.0, "peak_gib": 0.0, "about": why}

    def _stage_1(self):
        """Batches of each task, forward, backward and step; the held-out samples, before and after, cost a forward each."""
        config, stage = self.config, {}
        for key, left_out in (("mirm_weights", config["mirm_weights"]), ("mirm_finetune_tasks", not config["mirm_finetune_tasks"]),
                              ("mirm_tuning", config["mirm_tuning"] == "frozen")):  # fmt: skip
            if left_out:
                return self.skip("mirm_finetune", f"{'reused' if key == 'mirm_weights' else 'left out'}: {key}={config[key]}")
        clock = Clock(self.device)
        trainer = finetune_trainer(config, self.mirm, self.prepared.dataset, self.accelerator, self.folder)
        if self.item_cache and any(self.item_cache.glob("mirm-*.safetensors")) and trainer.reuse():
            return self.skip("mirm_finetune", f"reused: {trainer.finished}")
        wanted = trainer.settings["samples"]
        if not self.pictures_decoded:
            trainer.settings["samples"] = min(wanted, 500)
        train, held_out, _ = trainer._draw_samples()
        seconds, n_batches = clock.seconds(), 0
        with watched(stage, self.device):
            step = _stage_1_step(trainer) if train else None
            size, epochs = trainer.settings["batch_size"], trainer.settings["epochs"]
            for task in trainer.tasks if train else []:
                samples = train.get(task.name, [])
                count = len(samples) * (wanted / trainer.settings["samples"] if len(samples) >= 0.9 * trainer.settings["samples"] else 1)
                batches = [samples[first : first + size] for first in range(0, len(samples), size)]
                if not batches:
                    continue
                if not any(sample.target for sample in samples):
                    count = min(count, len(self.content) - 1)  # of single items there are no more samples than items
                each = seconds_per_batch(batches, len, lambda batch, task=task: step(batch, task.instruction), self.device, BUDGET / 2)
                number = int(np.ceil(count / size))
                held = -(-len(held_out[task.name]) // size)
                n_batches += number * epochs
                seconds += each * number * epochs + 2 * held * each / 3
            stage.update(seconds=round(seconds, 1), batches=n_batches, about=f"{n_batches:,} batches of {size} samples" + self._not_looked_up())
        trainer.mirm.eval()
        self.stages["mirm_finetune"] = stage

    def _table(self):
        """A random part of the items through MIRM; the untrained weights cost what trained ones do."""
        stage, n_items, n_missing = {}, len(self.content) - 1, self._missing_rows()
        if not n_missing and self.config["item_encoding"] == "cached":
            return self.skip("item_embedding", f"reused: all {n_items:,} items are in {self.cache}")
        chosen = 1 + np.random.default_rng(0).permutation(n_items)[:ITEMS_TIMED]
        self.mirm.to(self.device).eval()
        with watched(stage, self.device), torch.no_grad():
            batches = [batch for _, batch in self.mirm.collator.batches(chosen, self.config["mirm_encode_batch_size"])]
            full = [batch for batch in batches if len(batch["input_ids"]) == self.config["mirm_encode_batch_size"]] or batches

            def encode(batch):
                with self.accelerator.autocast():
                    self.mirm(batch)

            each = seconds_per_batch(full, lambda batch: batch["input_ids"].numel(), encode, self.device, BUDGET / 2)
            self.all_items_seconds = each * n_items / len(full[0]["input_ids"])
            about = f"{n_missing:,} items through MIRM" + (f", {n_items - n_missing:,} are in the cache" if n_missing < n_items else self._not_looked_up())
            stage.update(seconds=round(self.all_items_seconds * n_missing / n_items, 1), about=about)
        self.stages["item_embedding"] = stage

    def _not_looked_up(self):
        return "; the cache, which may have it, was not looked up" if self.cache and not self.item_cache else ""

    def _missing_rows(self):
        """Items that the cache lacks for MIRM as it is after stage 1: all of them where stage 1 has yet to be run."""
        is_finished = self.stages.get("mirm_finetune", {"skipped": True}).get("skipped")
        if self.item_cache and is_finished and any(self.item_cache.glob("items-*.safetensors")):
            _, known = ItemEmbedding(self.item_cache).known(self.mirm, self.accelerator)
            if known:
                return sum(mark not in known for mark in self.content.fingerprints()[1:])
        return len(self.content) - 1

    def _training(self, name, config, prepared, model):
        """Training of a recommender with a validation after each epoch, and (as `test`, of the run's own) one evaluation."""
        stage, test, (train_data, valid_data, test_data) = {}, {}, prepared.loaders
        trainer = get_trainer(config)(config, model, self.accelerator, self.folder)
        trainer.eval_collector.data_collect(train_data)
        epochs, every = config["epochs"], config["eval_step"]
        with watched(stage, self.device), kept_freed_memory(self.device):
            clock = Clock(self.device)
            drawn = list(islice(train_data, DRAWN))
            loading = clock.seconds() / len(drawn)
            once = self._before_training(trainer, model, train_data, drawn)
            width = train_data._dataset.item_list_length_field
            each = loading + seconds_per_batch(
                drawn, lambda batch: int(batch[width].max()) * len(batch), lambda batch: trainer._train_epoch([batch], 0), self.device, BUDGET
            )
            row = 0.0
            with watched(test, self.device):
                row = self._evaluation(trainer, model, config, valid_data)
            validations = epochs // every + (epochs % every > 0) if every > 0 else 0
            epoch, valid = each * len(train_data), row * len(valid_data._dataset) + self._refill(model)
            stage.update(
                seconds=round(once + epochs * epoch + validations * valid, 1), epochs=epochs, epoch_seconds=round(epoch, 2),
                validations=validations, validation_seconds=round(valid, 2), once_seconds=round(once, 1),
                about=f"epochs: at most {epochs}, each {len(train_data):,} batches and a validation",
            )
            if "does_not_fit" not in test:
                test.update(seconds=round(row * len(test_data._dataset) + self._refill(model), 1), about=f"{len(test_data._dataset):,} users")
        self.stages[name] = stage
        if name != self.config["model"]:  # has no stage for its evaluation
            stage.update({key: test[key] for key in test if key == "does_not_fit"})
        elif test:
            self.stages["test"] = test
        else:
            self.skip("test", "not tried: a batch of the training does not fit")

    def _before_training(self, trainer, model, train_data, drawn):
        """Seconds of what a model does once before training (Molar: a frozen ID model's user embeddings)."""
        if not hasattr(model, "before_training"):
            return 0.0
        rows = cat_interactions(drawn)
        with_rows = SimpleNamespace(_dataset=SimpleNamespace(inter_feat=rows))
        return seconds_of(lambda: model.before_training(with_rows, trainer), self.device) * len(train_data._dataset) / len(rows)

    def _evaluation(self, trainer, model, config, loader):
        """Seconds for each row of an evaluation, metrics included."""
        if _trains_encoders(model):
            model.before_evaluation = lambda trainer: None  # all items through MIRM anew: counted by `_refill`
        part, size = loader._dataset, config["eval_batch_size"]
        rows = np.unique(np.linspace(0, len(part) - 1, EVALUATED_BATCHES * size).astype(int))
        few = [
            type(loader)(config, part.copy(part.inter_feat[torch.from_numpy(chosen)]), loader._sampler, shuffle=False) for chosen in (rows[:size], rows)
        ]
        first = seconds_of(lambda: trainer.evaluate(few[0], load_best_model=False), self.device)
        if first > BUDGET:
            return first / len(few[0]._dataset)
        return seconds_of(lambda: trainer.evaluate(few[1], load_best_model=False), self.device) / len(rows)

    def _refill(self, model):
        return self.all_items_seconds if _trains_encoders(model) else 0.0


def _trains_encoders(model):
    """Whether an evaluation encodes all items anew."""
    return getattr(model, "mirm", None) is not None or len(getattr(model, "encoders", ())) > 0


def _stage_1_step(trainer):
    """A function that does with a batch what an epoch of stage 1 does."""
    trainer.objective.to(trainer.accelerator.device)
    parameters = [value for value in trainer.objective.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=trainer.settings["learning_rate"], fused=True)
    trainer.objective.train()

    def step(samples, instruction):
        with trainer.accelerator.autocast():
            loss, _ = trainer.objective(samples, instruction)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, trainer.settings["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()

    return step
