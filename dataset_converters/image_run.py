"""One run over the pictures that are missing: each is read, decoded, stored and recorded before its worker takes the next."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from dataset_converters.causes import NotTried, Refused
from dataset_converters.manifest import FAILED, STORED
from dataset_converters.pace import by_turns
from dataset_converters.picture import EXTENSIONS, PARTIAL

DECODERS = 2  # threads; each may hold a picture of max_pixels, some 8 bytes a pixel
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{rate_fmt}, {remaining} left, until {eta:%H:%M}{postfix}]"


class FileReader:
    """Reads a :class:`Folder` or :class:`Archive` as a Fetcher reads URLs."""

    def __init__(self, files, max_bytes):
        self._files, self._max_bytes = files, max_bytes

    async def read(self, name):
        """Bytes of a file; raises Refused."""
        return self._files.read(name, self._max_bytes)  # one at a time: a zip is one file, and the decoder is slower anyway

    async def aclose(self):
        """Close the archive."""
        self._files.close()

    def group(self, name):
        """All files are in one group."""
        return ""


def tidy(folder):
    """Remove what a killed run left half-written, and list the ids that have a picture (a file that is not empty)."""
    present = set()
    with os.scandir(folder) as files:
        for file in files:
            stem, extension = os.path.splitext(file.name)
            if file.name.startswith(".") and extension == PARTIAL:
                os.unlink(file.path)
            elif extension.lower() in EXTENSIONS and file.is_file() and file.stat().st_size:
                present.add(stem)
    return present


def ignores_case(file):
    """Whether the file system finds an existing file by its name in capitals too, as those of macOS and Windows do."""
    return file.with_name(file.name.upper()).exists()


def is_missing(item, entries, present, retry_failed):
    """Whether a run should see to an item: it has no picture, and was not tried before with the source that it has now."""
    entry = entries.get(item.id, {})
    if item.id in present:
        return False
    if entry.get("status") != FAILED or entry.get("source") != item.source:
        return True
    return entry.get("cause") != item.cause if item.cause else retry_failed


async def store_all(todo, reader, store, manifest, present, concurrency):
    """Store the pictures of `todo`, record each in the manifest and in `present`.

    Args:
        todo (list of Wanted)
        reader: has `async read(source) -> bytes`, `group(source)`, `async aclose()`.
        store (callable): (bytes, path) -> what the manifest shall say of it.
        manifest (Manifest)
        present (set): ids that have a picture; added to.
        concurrency (int): pictures at once.

    Returns:
        dict: item id -> cause, of those that were left for another run.

    Raises:
        OSError: a picture cannot be written.
    """
    queue = iter(by_turns(todo, key=lambda item: reader.group(item.source)))
    left, failed = {}, 0
    folder = manifest.path.parent
    with ThreadPoolExecutor(DECODERS) as decoders, tqdm(total=len(todo), unit=" pictures", bar_format=BAR, file=sys.stderr) as bar:

        async def work():
            nonlocal failed
            for item in queue:
                try:
                    if item.cause:
                        raise Refused(item.cause)
                    data = await reader.read(item.source)
                    stored = await asyncio.get_running_loop().run_in_executor(decoders, store, data, Path(folder, f"{item.id}.jpg"))
                    manifest.record(item.id, STORED, item.source, **stored)
                    present.add(item.id)
                except NotTried as error:
                    left[item.id] = error.cause
                except Refused as error:
                    manifest.record(item.id, FAILED, item.source, cause=error.cause)
                failed += item.id not in present
                bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
                bar.update()

        try:
            await asyncio.gather(*(work() for _ in range(concurrency)))
        finally:
            await reader.aclose()
    return left
