"""How it went with each picture: one JSON line per attempt in `images/manifest.jsonl`, the last line of an id counts."""

import json
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none: two runs at once are not caught there
    fcntl = None

NAME = "manifest.jsonl"
STORED, FAILED = "stored", "failed"


class Manifest:
    """The file of a folder, open for one run; every line is on its way to the disk before the next picture is begun.

    A kill can cut the last line only: such a line is dropped, and its picture, which lies in the folder, counts as there.

    Args:
        folder (Path): where pictures and manifest lie; must exist.

    Raises:
        ValueError: another run holds the file.
    """

    def __init__(self, folder):
        self.path = Path(folder) / NAME
        self._file = open(self.path, "ab+", buffering=0)
        try:
            if fcntl:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"{self.path}: another run is at work in this folder. Wait for it, or end it.") from None
        self.entries = self._read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def record(self, item_id, status, source, **more):
        """Add one line: `id`, `status`, `source` (URL or file), and what else is known (`cause`, or `bytes`, `sha256`, `size`)."""
        entry = {"id": item_id, "status": status, "source": source, **more}
        self.entries[item_id] = entry
        self._file.write(json.dumps(entry).encode() + b"\n")

    def _read(self):
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.ftruncate(self._file.fileno(), whole)
        entries = {}
        for line in text[:whole].splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # damaged: the picture is looked for in the folder, and fetched if it is not there
                continue
            if isinstance(entry, dict) and "id" in entry and all(isinstance(entry.get(key, ""), str) for key in ("id", "status", "source", "cause")):
                entries[entry["id"]] = entry
        return entries
