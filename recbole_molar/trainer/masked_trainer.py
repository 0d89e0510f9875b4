"""Training of the compact encoders on the catalogue alone: parts of a text or a picture are hidden, and told from the rest."""

import logging
import shutil
import time
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from recbole_molar.device import return_freed_memory
from recbole_molar.lock import cache_lock
from recbole_molar.trainer.schedule import warmup_cosine

FEWEST_STEPS = 20  # of a catalogue smaller than some batches
WARMUP, CLIP_NORM, WEIGHT_DECAY = 0.1, 1.0, 0.01


class MaskedTrainer:
    """Trains a compact encoder and keeps it in the cache, as a folder that transformers can read.

    Args:
        make (callable): gives the untrained encoder, which has `collator`, `loss(items)` and `save(folder)`; called where it must be trained.
        folder (Path): the finished encoder's, `<modality>-<fingerprint>` of all that it depends on. accelerator (Accelerator): device and precision.
        epochs (int), batch_size (int), learning_rate (float): peak; warm-up over a tenth of the steps, then cosine to 0.
        seed (int): of weights, order and what is hidden.
    """

    def __init__(self, make, folder, accelerator, epochs=5, batch_size=32, learning_rate=1e-3, seed=0):
        self.make, self.folder, self.accelerator = make, Path(folder), accelerator
        self.name = self.folder.name.partition("-")[0]  # for the log: text, image
        self.epochs, self.batch_size, self.learning_rate, self.seed = epochs, batch_size, learning_rate, seed

    @property
    def is_finished(self):
        """True where the folder holds an encoder. It was put there whole; one that was cut since is trained anew."""
        try:
            with safe_open(self.folder / "model.safetensors", "pt"):
                return (self.folder / "config.json").is_file()
        except (OSError, SafetensorError):
            return False

    def fit(self):
        """Train it, or leave the finished one as it is.

        Returns:
            dict: JSON-able; `folder`, `reused`, and of a new one `loss` of the first and the last tenth of the steps, `seconds`.
        """
        with cache_lock(self.folder.parent, self.folder.name, self.accelerator):
            self.accelerator.wait_for_everyone()  # until another run has finished this very encoder
            report = {"folder": str(self.folder), "reused": self.is_finished}
            if self.is_finished:
                logging.getLogger().info("Encoder: reused %s.", self.folder)
            elif self.accelerator.is_main_process:
                report.update(self._train())
        self.accelerator.wait_for_everyone()
        return report

    def _train(self):
        start = time.time()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            encoder = self.make().to(self.accelerator.device).train()
            losses = self._epochs(encoder)
        temporary = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}")
        try:
            encoder.save(temporary)
            shutil.rmtree(self.folder, ignore_errors=True)  # what is left of one that was cut
            temporary.rename(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return_freed_memory()
        seconds = round(time.time() - start, 1)
        logging.getLogger().info("Encoder: %d steps, kept in %s [%.0f s]", len(losses), self.folder, seconds)
        tenth = max(1, len(losses) // 10)
        return {"loss": [sum(part) / tenth for part in (losses[:tenth], losses[-tenth:])] if losses else None, "seconds": seconds}

    def _epochs(self, encoder):
        """All steps, with a line for each pass over the items; returns their losses."""
        n_items, start, losses = len(self.readable(encoder)), time.time(), []
        steps, each = self.n_steps(n_items), -(-n_items // self.batch_size)
        for loss in tqdm(self.steps(encoder), total=steps, desc=f"{self.name} encoder", unit="batch", disable=None, leave=False):
            losses.append(loss)
            if len(losses) % each == 0 or len(losses) == steps:
                part, epoch = losses[(len(losses) - 1) // each * each :], -(-len(losses) // each)
                logging.getLogger().info("%s encoder, epoch %d: loss %.4f [%.0f s]", self.name, epoch, sum(part) / len(part), time.time() - start)
                start = time.time()
        return losses

    def steps(self, encoder):
        """Train it, step by step; yields the loss of each.

        Raises:
            ValueError: a loss is not a number.
        """
        items, parameters = self.readable(encoder), [value for value in encoder.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
        steps, step = self.n_steps(len(items)), 0
        while step < steps:
            for chosen in torch.randperm(len(items)).split(self.batch_size)[: steps - step]:
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate * warmup_cosine(step, steps, int(WARMUP * steps))
                with self.accelerator.autocast():
                    loss = encoder.loss([items[place] for place in chosen.tolist()])
                if not torch.isfinite(loss):
                    raise ValueError(f"{self.name} encoder, step {step + 1}: the loss is {loss.item()}. Set precision=fp32, or encoder_epochs=0.")
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
                optimizer.step()
                optimizer.zero_grad()
                step += 1
                yield loss.item()

    def readable(self, encoder):
        """The items that have something to learn from."""
        return [item for item in range(1, len(encoder.collator.content)) if encoder.collator.has(item)]

    def n_steps(self, n_items):
        """Steps in all, for so many items that can be read."""
        return max(FEWEST_STEPS, self.epochs * -(-n_items // self.batch_size)) if self.epochs else 0
