"""Locks between processes of one machine, which end with the process that holds them, even by `kill -9`."""

import contextlib
import fcntl
from logging import getLogger
from pathlib import Path


def take_lock(path, wait=True):
    """Take a lock; close what is returned, or leave `with`, to give it back.

    Args:
        path (Path): a file that nobody replaces. If it is not there, it is made, and stays behind, empty.
        wait (bool): wait while another holds it.

    Returns:
        the open file; None if another holds the lock and `wait` is False.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    return file


def await_lock(path, told):
    """:func:`take_lock`, which waits; `told` (str) is logged where it has to."""
    lock = take_lock(path, wait=False)
    if lock is None:
        getLogger().warning("%s", told)
        lock = take_lock(path)
    return lock


def cache_lock(cache_dir, name, accelerator=None):
    """A context in which no other run makes this part of the cache. Of several processes of one run, the main one takes the lock for all.

    Args:
        cache_dir (Path): None for no cache, and no lock. name (str): of the part. accelerator (Accelerator, optional): of this run.
    """
    if cache_dir is None or (accelerator and not accelerator.is_main_process):
        return contextlib.nullcontext()
    return await_lock(Path(cache_dir) / "locks" / name, f"another run is making {name} in {cache_dir}; waiting until it has.")
