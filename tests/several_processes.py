"""What `test_processes.py` launches: `torchrun several_processes.py JOBS`, a JSON list of jobs, done one after the other by the same processes.

A job is `{"words": command line of a run, "code": its exit code, if not 0, "cut": end after so many epochs as by Ctrl-C, "fails": the process to
which an error comes}`; `{"resume": output folder of a run that was cut}`; or `{"gathered": file to write}`.
"""

import json
import sys
from pathlib import Path

import torch

from recbole_molar import processes
from recbole_molar.__main__ import main
from recbole_molar.device import make_accelerator
from recbole_molar.trainer.sequential_trainer import SequentialTrainer

SAVE, CHECK = SequentialTrainer._save_checkpoint, SequentialTrainer._check_finite


def do(job):
    """One job; says whether it ended as it should."""
    if "gathered" in job:
        Path(f"{job['gathered']}-{processes.process_index()}").write_text(json.dumps(gathered()))
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

    SequentialTrainer._save_checkpoint, SequentialTrainer._check_finite = save, check
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


if __name__ == "__main__":
    sys.exit(not all(do(job) for job in json.loads(Path(sys.argv[1]).read_text())))
