"""What the benchmarks of `python -m tests.benchmarks` share: a row of the table, and two sides that take turns."""

import dataclasses
import platform
import time

import torch


@dataclasses.dataclass
class Row:
    """One row of the table.

    Args:
        what (str): the work. against (str): how the other side does it.
        ours, theirs (float): CPU seconds of each side for the same work. target (float, optional): least ratio theirs / ours.
        note (str): what else was checked, or how a figure was come by.
    """

    what: str
    against: str
    ours: float
    theirs: float
    target: float | None
    note: str = ""

    @property
    def ratio(self):
        return self.theirs / self.ours

    def __str__(self):
        verdict = "" if self.target is None else "met" if self.ratio >= self.target else "NOT MET"
        ratio, target = f"{self.ratio:.2g}" if self.ratio < 10 else f"{self.ratio:.0f}", "" if self.target is None else f"{self.target:g}"
        cells = (self.what, self.against, f"{self.ours:.3g}", f"{self.theirs:.3g}", ratio, target, verdict, self.note)
        return f"| {' | '.join(cells)} |"


HEADER = "| what | against | ours, CPU s | theirs, CPU s | ratio | target | | |\n|---|---|---|---|---|---|---|---|"


def least_seconds(ours, theirs, rounds=3):
    """Run two callables in turns after a warm-up each; the least CPU seconds of either, and the last results."""
    found = [ours(), theirs()]
    least = [float("inf"), float("inf")]
    for _ in range(rounds):
        for side, work in enumerate((ours, theirs)):
            start = time.process_time()
            found[side] = work()
            least[side] = min(least[side], time.process_time() - start)
    return (*least, *found)


def as_they_stand(collator, ids, size):
    """Batches of items in the order given, without looking for like lengths; one for those with a picture and one for those without, where both are in it.

    Yields:
        tuple: places in `ids`, batch of the collator.
    """
    for start in range(0, len(ids), size):
        for places, batch in collator.batches(ids[start : start + size], size):
            yield [start + place for place in places], batch


def machine():
    """The machine in a line."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, Python {platform.python_version()}"
