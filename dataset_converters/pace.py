"""Politeness towards each host: so many requests a second, none while it asks for patience, and an end of trying where nobody answers."""

import asyncio
import time
from collections import defaultdict

DEAD_AFTER = 100  # attempts in a row without an answer


class Pace:
    """When the next request to a host may go out.

    Args:
        rate (float): requests a second for each host.
    """

    def __init__(self, rate):
        self._step = 1 / rate
        self._next, self._blocked = defaultdict(float), defaultdict(float)
        self._silent = defaultdict(int)

    async def wait(self, host):
        """Return when it is this request's turn."""
        while True:
            now = time.monotonic()
            turn = max(now, self._next[host], self._blocked[host])
            self._next[host] = turn + self._step
            await asyncio.sleep(turn - now)
            if self._blocked[host] <= turn:  # else the host has asked for patience meanwhile
                return

    def postpone(self, host, seconds):
        """No request to `host` for so long."""
        self._blocked[host] = max(self._blocked[host], time.monotonic() + seconds)

    def count(self, host, answered):
        """Say whether `host` answered at all."""
        self._silent[host] = 0 if answered else self._silent[host] + 1

    def is_dead(self, host):
        """Whether `host` has been silent so often that the rest of its pictures is left for another run."""
        return self._silent[host] >= DEAD_AFTER


def by_turns(items, key):
    """Items so ordered that groups alternate: a slow host does not hold up the others.

    >>> by_turns(["a1", "a2", "a3", "b1"], key=lambda name: name[0])
    ['a1', 'b1', 'a2', 'a3']
    """
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    ranked = [(place, order, item) for order, group in enumerate(groups.values()) for place, item in enumerate(group)]
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])]
