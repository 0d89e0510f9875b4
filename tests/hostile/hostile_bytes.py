"""Files made to do harm: pickles that run code, pictures and archives that unpack to far more than they are."""

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib

import torch
import yaml


class _Call:
    """Pickled, it calls a function when it is read."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def pickled(marker):
    """A pickle that makes the folder `marker` when it is loaded."""
    return pickle.dumps({"model": _Call(marker)})


def torch_pickled(marker):
    """The same as torch.save writes it."""
    buffer = io.BytesIO()
    torch.save({"state_dict": _Call(marker)}, buffer)
    return buffer.getvalue()


def numpy_pickled(marker):
    """An .npz of an object array."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, user=np.array([_Call(marker)], dtype=object))
    return buffer.getvalue()


def yaml_call(marker):
    """A YAML value that makes the folder `marker` where tags of Python are obeyed."""
    return f'!!python/object/apply:os.mkdir ["{marker}"]'


def python_call(marker):
    """A Python expression that does the same."""
    return f"__import__('os').mkdir('{marker}')"


def all_run_code(marker):
    """Whether the means above would work at all where they are obeyed; leaves no marker."""
    loads = (
        lambda: pickle.loads(pickled(marker)), lambda: torch.load(io.BytesIO(torch_pickled(marker)), weights_only=False),
        lambda: __import__("numpy").load(io.BytesIO(numpy_pickled(marker)), allow_pickle=True)["user"],
        lambda: yaml.load(yaml_call(marker), Loader=yaml.UnsafeLoader), lambda: eval(python_call(marker)),
    )
    for load in loads:
        load()
        if not marker.exists():
            return False
        marker.rmdir()
    return True


def zip_of(path, members):
    """A zip with these members, name -> bytes or text."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def line_without_end(path, mebibytes):
    """A gzip of a few KB that unpacks to one endless line."""
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(mebibytes):
            file.write(b"1" * 2**20)
    return path


def png(width, height, row=b""):
    """A PNG that claims a size, with one row of pixels at most."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


def yaml_bomb(key="topk"):
    """Anchors that unfold to ten thousand million values in a few hundred bytes."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    return "\n".join([*lines, f"{key}: *a9"]) + "\n"
