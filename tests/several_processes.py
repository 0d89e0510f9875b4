"""What `test_processes.py` launches: `torchrun several_processes.py JOBS`, a JSON list of jobs, done one after the other by the same processes.

A job is `{"words": command line of a run, "code": its exit code, if not 0, "cut": end after so many epochs as by Ctrl-C, "fails": the process to
which an error comes, "cut_stage_1": end after so many of its steps, "sharded": FSDP or DEEPSPEED, what Accelerate's
configuration says}`; `{"resume": output folder of a run that was cut}`; or `{"gathered": file to write}`, `{"stepped": file to write}`.
"""

import json
import os
import sys
from pathlib import Path

import torch

from recbole_molar import processes, sharding
from recbole_molar.__main__ import main
from recbole_molar.device import make_accelerator
from recbole_molar.trainer.mirm_finetune_trainer import MIRMFinetuneTrainer
from recbole_molar.trainer.sequential_trainer import SequentialTrainer

SAVE, CHECK = SequentialTrainer._save_checkpoint, SequentialTrainer._check_finite
SAVE_STAGE_1, STEP_STAGE_1 = MIRMFinetuneTrainer._save, MIRMFinetuneTrainer._step


def do(job):
    """One job; says whether it ended as it should."""
    os.environ.update({f"ACCELERATE_USE_{plugin}": str(job.get("sharded") == plugin) for plugin in ("FSDP", "DEEPSPEED")}, FSDP_VERSION="2")
    for name, function in (("gathered", gathered), ("stepped", stepped)):
        if name in job:
            Path(f"{job[name]}-{processes.process_index()}").write_text(json.dumps(function()))
            return True
    if "resume" in job:
        (folder,) = Path(job["resume"]).glob("tiny/*")
        job["words"] = [f"--resume={folder}"]

    def save(self, epoch, **kwargs):
        SAVE(self, epoch, **kwargs)
        if epoch + 1 == job.get("cut"):
            self.accelerator.wait_for_everyone()
            raise KeyboardInterrupt

    def check(self, values, epoch_idx, index):
        CHECK(self, values, epoch_idx, index)
        if processes.process_index() == job.get("fails") and index == 1:
            raise ValueError("this process alone fails")

    def step_stage_1(self, position, steps):
        STEP_STAGE_1(self, position, steps)
        self.save_minutes = -1 if position["step"] == job.get("cut_stage_1") else self.save_minutes

    def save_stage_1(self, position):
        SAVE_STAGE_1(self, position)
        if position["step"] == job.get("cut_stage_1"):
            self.accelerator.wait_for_everyone()
            raise KeyboardInterrupt

    SequentialTrainer._save_checkpoint, SequentialTrainer._check_finite = save, check
    MIRMFinetuneTrainer._save, MIRMFinetuneTrainer._step = save_stage_1, step_stage_1
    return main(["run", *job["words"]]) == job.get("code", 0)


def gathered():
    """Process r gives r + 1 rows of r + 1 and has (r + 1) · sum of the squares of all as its loss; then again, where the last one stands in."""
    make_accelerator("fp32", use_cpu=True)
    index, last = processes.process_index(), processes.n_processes() - 1
    own = torch.full((index + 1, 2), index + 1.0, requires_grad=True)
    rows = processes.gathered(own)
    ((index + 1) * rows.square().sum()).backward()
    with processes.standing_in(index == last):
        without = processes.of_whole_batch(own)
    shared, part = processes.from_main(torch.tensor([index])), list(processes.own_part(range(5)))
    return {"rows": rows.tolist(), "without": without.tolist(), "grad": own.grad.tolist(), "shared": shared.tolist(), "part": part}


class Toy(torch.nn.Module):
    """A backbone of which processes use parts of their own, and a head; odd numbers of rows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.head = torch.nn.Module(), torch.nn.Linear(3, 1)
        self.backbone.words, self.backbone.pictures, self.backbone.never = torch.nn.Embedding(7, 3), torch.nn.Linear(3, 5), torch.nn.Linear(3, 3)

    def loss(self, index):
        """The main process makes three passes, two of them by parts that the others leave out; they make one."""
        words = self.backbone.words(torch.tensor([index, 1, 2]))
        seen = sum(self.backbone.pictures(words * by).square().sum() for by in (1, 2)) if index == 0 else 0
        return self.head(words).square().sum() + seen


def stepped():
    """Gradients, norm and weights of a step of the toy in shards, as whole tensors, and how many numbers this process keeps of what."""
    toy = Toy()
    sharding.shard(toy.backbone, toy.backbone.words, make_accelerator("fp32", use_cpu=True))
    optimizer = torch.optim.AdamW([{"params": toy.backbone.parameters()}, {"params": toy.head.parameters()}], lr=0.1, fused=True)
    sharding.gather(toy)
    toy.loss(processes.process_index()).backward()
    sharding.share_gradients(toy)
    norm = sharding.clip_gradients(toy.parameters(), 1.0)
    gradients = {name: None if value.grad is None else sharding.whole_tensor(value.grad).tolist() for name, value in toy.named_parameters()}
    optimizer.step()
    shards = {"weights": list(toy.backbone.parameters())}
    shards["gradients"] = [value.grad for value in shards["weights"] if value.grad is not None]
    shards["optimizer"] = [optimizer.state[value]["exp_avg"] for value in shards["weights"] if value in optimizer.state]
    weights = {name: sharding.whole_tensor(value.detach()).tolist() for name, value in toy.named_parameters()}
    kept = {what: [sum(value.to_local().numel() for value in values), sum(value.numel() for value in values)] for what, values in shards.items()}
    return {"gradients": gradients, "norm": norm.item(), "weights": weights, "kept": kept}


if __name__ == "__main__":
    sys.exit(not all(do(job) for job in json.loads(Path(sys.argv[1]).read_text())))
