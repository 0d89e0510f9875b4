"""Timing a few real batches of a stage, and the memory that they take."""

import contextlib
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import torch

GIB = 2**30
MOST_DRAWN, FEWEST_TIMED, MOST_TIMED = 64, 3, 8  # batches
BUSY = 0.1  # share of the process's CPU time that a thread has, if it counts as one that works
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class DoesNotFit(Exception):
    """A batch needs, or would need, more memory than there is."""


def free_memory(device):
    """GiB that this process can still take on the device, and GiB in all."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # by PyTorch, to be used again
        return (free + kept) / GIB, total / GIB
    memory = psutil.virtual_memory()
    return memory.available / GIB, memory.total / GIB


class MemoryPeak:
    """Highest memory use while inside, in GiB: of the process (looked at every 10 ms) or of the GPU. `with MemoryPeak(device) as peak`."""

    open = []  # those under way, outermost first: a GPU's own peak is set back for the innermost

    def __init__(self, device):
        self.device, self.gib = device, 0.0
        self._process, self._done = psutil.Process(), threading.Event()

    def __enter__(self):
        for outer in MemoryPeak.open:
            outer._look()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        MemoryPeak.open.append(self)
        self.before = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        self._thread.join()
        self._look()
        MemoryPeak.open.remove(self)

    def _watch(self):
        while not self._done.wait(0.01):
            self._look()

    def _now(self):
        return torch.cuda.memory_allocated() / GIB if self.device.type == "cuda" else self._process.memory_info().rss / GIB

    def _look(self):
        self.gib = max(self.gib, torch.cuda.max_memory_allocated() / GIB if self.device.type == "cuda" else self._now())


class Clock:
    """Seconds that work takes where nothing else runs, and (in all) how much longer it took here.

    On a CPU the time on the wall is cut by the share of it that our busy threads stood in line for a core, which Linux counts. Where it
    does not, it is at most the time that the process had a core. On a GPU it is the wall.
    """

    wall = alone = 0.0  # of all work so far

    def __init__(self, device):
        self.device, self.start = device, (time.perf_counter(), time.process_time(), _threads())

    def seconds(self):
        """Since the clock was made."""
        wall, cpu, before = time.perf_counter() - self.start[0], time.process_time() - self.start[1], self.start[2]
        alone = wall
        if self.device.type != "cuda":
            spent = [(had - before.get(thread, (0, 0))[0], waited - before.get(thread, (0, 0))[1]) for thread, (had, waited) in _threads().items()]
            busy = [(had, waited) for had, waited in spent if had > BUSY * cpu]
            had, waited = sum(entry[0] for entry in busy), sum(entry[1] for entry in busy)
            alone = wall * had / (had + waited) if had else min(wall, cpu)
        Clock.wall, Clock.alone = Clock.wall + wall, Clock.alone + alone
        return alone

    @classmethod
    def slowdown(cls):
        """How many times as long all timed work took as it would alone."""
        return round(cls.wall / cls.alone, 1) if cls.alone else 1.0


def _threads():
    """Seconds that each thread of this process has had a core and has waited for one: {id: (had, waited)}; empty where Linux does not say."""
    found = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            had, waited = map(int, file.read_text().split()[:2])
            found[file.parent.name] = (had / 1e9, waited / 1e9)
    return found


def seconds_of(step, device):
    """Seconds of one call (see :class:`Clock`), to the end of the device's work.

    Raises:
        DoesNotFit: it ran out of memory.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock = Clock(device)
    try:
        step()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            raise DoesNotFit(str(error).splitlines()[0][:120] if str(error) else "out of memory") from error
        raise
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock.seconds()


def seconds_per_batch(batches, size_of, step, device, budget=4.0):
    """Mean seconds of a step over batches of all sizes, and the memory of the largest.

    The batches are sorted by size and a few timed that stand for equal shares of them; the first step, which warms up, and the
    largest batch count for memory alone. Where one step takes longer than the budget, one more is all.

    Args:
        batches (iterable): the stage's own; at most 64 are drawn. size_of (callable): what time and memory grow with.
        step (callable): does the work of one batch. device (torch.device). budget (float): about how many seconds to take.

    Returns:
        float: seconds.

    Raises:
        DoesNotFit: a batch ran out of memory, or the growth so far says that a larger one would.
    """
    drawn = sorted(islice(batches, MOST_DRAWN), key=size_of)
    room, _ = free_memory(device)
    with MemoryPeak(device) as peak:
        first = seconds_of(lambda: step(drawn[0]), device)
        if first < budget:
            first = seconds_of(lambda: step(drawn[0]), device)
    growth, size = max(peak.gib - peak.before, 0.0), max(size_of(drawn[0]), 1)
    expected = first * np.mean([max(size_of(batch), 1) for batch in drawn]) / size
    count = min(len(drawn), 1 if expected > budget else int(np.clip(budget / max(expected, 1e-4), FEWEST_TIMED, MOST_TIMED)))
    places = [int((number + 0.5) * len(drawn) / count) for number in range(count)]
    seconds = []
    for place in [*places, len(drawn) - 1] if expected <= budget else places:
        needed = growth * max(size_of(drawn[place]), 1) / size
        if needed > room:
            raise DoesNotFit(f"a batch would take about {needed:.1f} GiB, and {room:.1f} GiB are free")
        seconds.append(seconds_of(lambda batch=drawn[place]: step(batch), device))
    return float(np.mean(seconds[: len(places)]))


@contextlib.contextmanager
def watched(report, device):
    """Put the peak memory of what is done inside into `report`, and `does_not_fit` where it ran out."""
    with MemoryPeak(device) as peak:
        try:
            yield
        except DoesNotFit as reason:
            report["does_not_fit"] = str(reason)
    report["peak_gib"] = round(peak.gib, 2)
