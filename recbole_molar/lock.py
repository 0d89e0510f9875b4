"""Locks between processes of one machine, which end with the process that holds them, even by `kill -9`."""

import fcntl
from pathlib import Path


def take_lock(path, wait=True):
    """Take a lock; close what is returned, or leave `with`, to give it back.

    Args:
        path (Path): a file made for this lock alone. It stays behind, empty.
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
