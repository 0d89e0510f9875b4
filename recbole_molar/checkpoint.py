"""Checkpoints without pickle: one safetensors file whose JSON metadata travels inside it, written atomically."""

import json
import os
import random
import uuid
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recbole_molar.sharding import shard_as


def write_atomic(path, write):
    """Call `write(temporary_path)` and rename the result to `path`; a crash leaves the old file or none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path, text):
    """Write a text file, atomically."""
    write_atomic(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write_json(path, value):
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")


def read_json(path, *keys):
    """The object in a file of :func:`write_json`.

    Args:
        path: the file; keys (str): what it must hold.

    Raises:
        ValueError: the file is missing, no JSON object, or lacks a key.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}, not an object with named values.")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; it is not what a run writes.")
    return value


def _plain(value):
    """Numbers of NumPy and torch as Python's; anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


def save_tensors(path, tensors, meta=None):
    """Save tensors and JSON metadata in one file.

    Args:
        path: file to write, `.safetensors`.
        tensors (dict): name -> tensor, any device; tied tensors are stored once for each name.
        meta (dict): anything JSON can hold.
    """
    contiguous, storages = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        contiguous[name] = tensor.clone() if storage in storages else tensor  # a large model's weights need not be held twice
        storages.add(storage)
    metadata = {"meta": json.dumps(meta or {})}
    write_atomic(path, lambda temporary: save_file(contiguous, temporary, metadata=metadata))


def load_meta(path):
    """The metadata of what :func:`save_tensors` wrote; raises as :func:`load_tensors`."""
    return _read(path, lambda file: None)[1]


def load_tensors(path):
    """Read what :func:`save_tensors` wrote.

    Returns:
        tuple: (name -> tensor on the CPU, metadata dict).

    Raises:
        ValueError: the file is missing, cut short, not ours, or holds NaN.
    """
    tensors, meta = _read(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})
    broken = next((name for name, value in tensors.items() if value.is_floating_point() and value.isnan().any()), None)
    if broken:
        raise ValueError(f"{path}: not a usable checkpoint ({broken} holds NaN). Delete it, and it is made anew.")
    return tensors, meta


def _read(path, take):
    """(What `take(file)` gives, metadata) of one state of a file, which another process may replace."""
    try:
        with safe_open(str(path), framework="pt") as file:
            meta, taken = json.loads((file.metadata() or {})["meta"]), take(file)
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({error}). Delete it, and it is made anew.") from error
    if not isinstance(meta, dict):
        raise ValueError(f"{path}: not a readable checkpoint (its metadata is no object). Delete it, and it is made anew.")
    return taken, meta


def flatten_optimizer(optimizer, prefix="optimizer."):
    """Optimizer state as (tensors, JSON-able rest), so that it fits :func:`save_tensors`."""
    state = optimizer.state_dict()
    tensors, scalars = {}, {}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            if torch.is_tensor(value):
                tensors[f"{prefix}{index}.{slot}"] = value
            else:
                scalars[f"{index}.{slot}"] = value
    return tensors, {"param_groups": state["param_groups"], "scalars": scalars}


def restore_optimizer(optimizer, tensors, rest, prefix="optimizer."):
    """Inverse of :func:`flatten_optimizer`.

    Raises:
        ValueError: the state is of other groups of parameters, as another version of the code may have made them.
    """
    found, own = ([len(group["params"]) for group in groups] for groups in (rest["param_groups"], optimizer.param_groups))
    if found != own:
        raise ValueError(f"the optimizer of this checkpoint has groups of {found} parameters, here {own}: another model's, or another version's.")
    state = {}
    entries = [(name[len(prefix):], value) for name, value in tensors.items() if name.startswith(prefix)]
    for name, value in entries + list(rest["scalars"].items()):
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, slots in state.items():
        slots.update({slot: shard_as(value, parameters[index]) for slot, value in slots.items() if torch.is_tensor(value) and value.dim()})
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})


def rng_state():
    """State of Python's, NumPy's and torch's generators as (tensors, JSON-able rest)."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {"rng.torch": torch.get_rng_state(), "rng.numpy": torch.from_numpy(keys.astype(np.int64))}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors, {"python": [version, list(internal), gauss], "numpy": [name, position, has_gauss, cached]}


def restore_rng(tensors, rest):
    """Inverse of :func:`rng_state`."""
    version, internal, gauss = rest["python"]
    random.setstate((version, tuple(internal), gauss))
    name, position, has_gauss, cached = rest["numpy"]
    np.random.set_state((name, tensors["rng.numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["rng.torch"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
