"""The clock takes waiting for a core out, by hand-made figures; slow steps are not repeated."""

import pytest
import torch

from recbole_molar.doctor import rehearsal
from recbole_molar.doctor.rehearsal import Clock, seconds_per_batch

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Function: what has passed until the clock is read: seconds on the wall, and of each thread with a core and waiting."""

    def passed(wall, threads, cpu=None):
        cpu = sum(had for had, _ in threads.values()) if cpu is None else cpu
        walls, cpus, counts = iter((100.0, 100.0 + wall)), iter((7.0, 7.0 + cpu)), iter(({}, threads))
        monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: next(walls))
        monkeypatch.setattr(rehearsal.time, "process_time", lambda: next(cpus))
        monkeypatch.setattr(rehearsal, "_threads", lambda: next(counts))
        monkeypatch.setattr(Clock, "wall", 0.0)
        monkeypatch.setattr(Clock, "alone", 0.0)
        return Clock(CPU).seconds()

    return passed


def test_waiting_for_a_core_is_taken_off(machine):
    assert machine(10.0, {"1": (2.0, 8.0)}) == pytest.approx(2.0) and Clock.slowdown() == 5.0
    assert machine(6.0, {"1": (3.0, 3.0), "2": (3.0, 3.0)}) == pytest.approx(3.0)  # two threads at once


def test_a_quiet_machine_changes_nothing(machine):
    assert machine(4.0, {"1": (4.0, 0.0)}) == 4.0 and Clock.slowdown() == 1.0
    assert machine(4.0, {"1": (1.0, 0.0)}) == 4.0  # three seconds of reading from a disk are part of the work


def test_a_thread_that_hardly_works_does_not_count(machine):
    assert machine(4.0, {"1": (4.0, 0.0), "2": (0.01, 3.0)}) == 4.0


def test_where_the_system_does_not_count_waiting(machine):
    assert machine(10.0, {}, cpu=3.0) == 3.0 and machine(3.0, {}, cpu=5.0) == 3.0


@pytest.mark.parametrize("seconds, calls", [(0.5, 2 + 8 + 1), (3.0, 2 + 3 + 1), (60.0, 2)])
def test_slow_steps_are_not_repeated(monkeypatch, seconds, calls):
    done = []

    def seconds_of(step, device):
        step()
        return seconds

    monkeypatch.setattr(rehearsal, "seconds_of", seconds_of)
    assert seconds_per_batch([[1]] * 20, len, done.append, CPU, budget=4.0) == seconds and len(done) == calls
