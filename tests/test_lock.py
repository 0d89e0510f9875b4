"""Locks between runs."""

import threading
import time

from recbole_molar.lock import cache_lock, take_lock


def test_who_waits_for_another_run_is_told(tmp_path, caplog):
    """And goes on once that one has ended."""
    held, entered = take_lock(tmp_path / "locks" / "part"), threading.Event()

    def wait():
        with cache_lock(tmp_path, "part"):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    deadline = time.time() + 30
    while "another run is making part" not in caplog.text:
        assert time.time() < deadline and not entered.is_set()
        time.sleep(0.01)
    held.close()
    assert entered.wait(30)
    thread.join()
    caplog.clear()
    with cache_lock(tmp_path, "part"), cache_lock(tmp_path, "other"), cache_lock(None, "part"):
        assert not caplog.text
