"""A run's folder: its name, log, configuration, seconds by stage and `result.json`."""

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import resource
import shutil
import sys
import time
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path

import torch
from tqdm import tqdm

from recbole_molar.checkpoint import read_json, write_json, write_text
from recbole_molar.command_line import dump_yaml, read_yaml
from recbole_molar.processes import n_processes
from recbole_molar.property_error import bad_value

CONFIG, RESULT, LOG, RANKS = "config.yaml", "result.json", "train.log", "ranks.npz"
# Runs that differ in these are still the same run: where it computes, what it prints, where it writes
NOT_IDENTITY = {"data_path", "output_dir", "debug", "show_progress", "state", "eval_batch_size", "worker", "gpu_id", "use_cpu", "use_gpu"}


def make_folder(output_dir, dataset, name):
    """Make a new folder `<output_dir>/<dataset>/<name>`, with the time where `name` has {}, and a number behind it where that exists.

    Raises:
        ValueError: it cannot be made.
    """
    stamp, parent = datetime.now().strftime("%Y%m%d-%H%M%S"), Path(output_dir) / str(dataset)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in count():
            with contextlib.suppress(FileExistsError):
                path = parent / (name.format(stamp) + (f"-{attempt}" if attempt else ""))
                path.mkdir()
                return path
    except OSError as error:
        raise bad_value("output_dir", output_dir, f"cannot be written to ({error.strerror}: {error.filename}). Set --output_dir.") from error


def part_cache(output_dir, kind, config, data, without=()):
    """Folder of a part of a run, trained with these properties on this split.

    Args:
        output_dir (str): the run's. kind (str): of part; config (Config): the part's. data: hashes of what it is trained on, such as the split's.
        without (iterable of str): properties that do not matter to it.
    """
    properties = {key: value for key, value in config.as_yaml().items() if key not in NOT_IDENTITY and key not in without}
    fingerprint = hashlib.sha256(json.dumps([properties, data], sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Path(output_dir) / "cache" / kind / f"{config['model']}-{fingerprint}"


def identity(properties):
    """What makes two runs the same, as text; a key without a value counts as absent, as in runs from before that property was there."""
    return json.dumps({key: value for key, value in properties.items() if key not in NOT_IDENTITY and value is not None}, sort_keys=True, default=str)


def runs_like(output_dir, properties):
    """Folders of runs with these properties, whatever `output_dir` they name, below this one: finished or cut, newest first. What cannot be read is none."""
    wanted = identity(properties)
    files = sorted((Path(output_dir) / str(properties["dataset"])).glob(f"*/{CONFIG}"), reverse=True)
    for file in files:
        with contextlib.suppress(ValueError):
            if identity(read_yaml(file)) == wanted:
                yield file.parent


class TqdmHandler(logging.StreamHandler):
    """Print log lines above a progress bar instead of through it."""

    def emit(self, record):
        """Write one record to standard output."""
        tqdm.write(self.format(record), file=sys.stdout)


class RunFolder:
    """`<output_dir>/<dataset>/<model>-<time>-<hash>/`, with everything that a run leaves behind.

    Args:
        path (Path): the folder, which exists.
        is_new (bool): this run made it; else it is somebody's, and nothing in it is ever removed.
        writes (bool): False for all but one of several processes.
    """

    def __init__(self, path, is_new=False, writes=True):
        self.path, self.is_new, self.writes = Path(path), is_new, writes
        self.seconds = {}
        self.running = None  # stage under way: name, start, seconds of earlier tries
        self.notes = {}  # what a stage wants to stand in result.json
        earlier = self.path / "seconds.json"
        if earlier.is_file():
            self.seconds = {name: value for name, value in read_json(earlier).items() if isinstance(value, (int, float))}

    @classmethod
    def create(cls, output_dir, dataset, model, properties):
        """Make a new folder and write `config.yaml`; the hash is that of the properties."""
        text = dump_yaml(properties)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        path = make_folder(output_dir, dataset, f"{model}-{{}}-{digest}")
        write_text(path / CONFIG, text)
        return cls(path, is_new=True)

    @contextlib.contextmanager
    def logging(self, level="INFO", quiet=False, to_terminal=True):
        """Log to the terminal and to `train.log`, and nowhere else, while inside; `quiet` logs errors to the terminal only."""
        root = logging.getLogger()
        before, before_level = root.handlers[:], root.level
        console, file = TqdmHandler(), logging.NullHandler() if quiet else logging.FileHandler(self.path / LOG, encoding="utf-8")
        level = "ERROR" if quiet else level
        console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.handlers = [console, file] if to_terminal else [file]
        root.setLevel(getattr(logging, str(level).upper(), logging.INFO))  # not root.level: loggers remember what they let through
        logging.captureWarnings(True)
        try:
            yield self
        finally:
            root.handlers = before
            root.setLevel(before_level)
            logging.captureWarnings(False)
            file.close()

    @contextlib.contextmanager
    def discarded_on_bad_input(self):
        """Remove the folder if bad input shows before there is anything to go on from: nothing half-written is left."""
        try:
            yield self
        except (ValueError, NotImplementedError):
            if self.is_new and self.writes and not any(self.path.rglob("*.safetensors")):
                shutil.rmtree(self.path)
            raise

    @contextlib.contextmanager
    def stage(self, name, about=""):
        """Time a stage; a stage that was cut adds to its earlier seconds."""
        logging.getLogger().info("== %s%s", name, f": {about}" if about else "")
        self.running = (name, time.time(), self.seconds.get(name, 0))
        try:
            yield
        finally:
            self.save_seconds()
            self.running = None

    def save_seconds(self):
        """Write the seconds of the stage under way, so that a run that is killed keeps them."""
        name, start, earlier = self.running
        self.seconds[name] = round(earlier + time.time() - start, 2)
        if self.writes:
            write_json(self.path / "seconds.json", self.seconds)

    def write_result(self, result):
        """Write `result.json` with what every run reports: seconds by stage, peak memory, machine, versions."""
        everything = {**result, "seconds": self.seconds, "total_seconds": round(sum(self.seconds.values()), 2)}
        everything.update(peak_memory=peak_memory(), machine=machine(), versions=versions(), finished=datetime.now().isoformat(timespec="seconds"))
        if self.writes:
            write_json(self.path / RESULT, everything)
        return everything


def peak_memory():
    """Highest memory use of this process so far, in GiB; of several processes, the main one's stands in `result.json`."""
    gib = {"cpu": round(peak_resident() / 2**30, 2)}
    if torch.cuda.is_available():
        gib["cuda"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return gib


def peak_resident():
    """Most bytes of this process in memory at once. On Linux `ru_maxrss` will not do: a process begins with that of the one that started it."""
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if peak:
        return int(peak[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine():
    """What a figure must be read with: processor, cores, threads, GPU."""
    return {
        "system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "processes": n_processes(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions():
    """Versions of Python and of the packages that a figure depends on."""
    found = {"python": platform.python_version()}
    for name in ("recbole_molar", "recbole", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "pandas"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
