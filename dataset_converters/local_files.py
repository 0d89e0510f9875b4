"""Pictures that already lie on this machine: a folder or a zip, read by relative name and within bounds; nothing is unpacked."""

import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from dataset_converters.causes import Refused

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


class Folder:
    """All pictures below a folder; `names` are relative, with forward slashes. Links that lead out of it are not followed."""

    def __init__(self, path):
        self._path = Path(path)
        self._real = os.path.realpath(path)
        self.names = [
            (Path(where) / name).relative_to(self._path).as_posix() for where, _, files in os.walk(self._path) for name in files if is_picture(name)
        ]

    def close(self):
        """Nothing to close."""

    def read(self, name, max_bytes):
        """Bytes of one file.

        Raises:
            Refused: no such file there, too many bytes, cannot be read.
        """
        try:
            real = os.path.realpath(self._path / name)
            if not Path(real).is_relative_to(self._real) or not os.path.isfile(real):
                raise Refused("no such file")
            with open(real, "rb") as file:
                return _bounded(file, max_bytes)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            raise Refused("cannot be read") from None


class Archive:
    """All pictures in a zip file; its names are only ever looked up, never written to.

    Raises:
        ValueError: no zip file, a broken or an encrypted one.
    """

    def __init__(self, path):
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a zip file that can be read ({error}). Fetch it again, or unpack it and give the folder.") from None
        members = [info for info in self._zip.infolist() if not info.is_dir()]
        if any(info.flag_bits & 1 for info in members):
            self._zip.close()
            raise ValueError(f"{path}: encrypted. Unpack it with its password and give the folder.")
        self._members = {info.filename: info for info in members}
        self.names = [name for name in self._members if is_picture(name)]

    def close(self):
        """Close the file."""
        self._zip.close()

    def read(self, name, max_bytes):
        """Bytes of one member; raises as :meth:`Folder.read`. What the archive says of its size is not believed."""
        if name not in self._members:
            raise Refused("no such file")
        try:
            with self._zip.open(self._members[name]) as file:
                return _bounded(file, max_bytes)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError):
            raise Refused("cannot be read") from None


def open_files(path):
    """The :class:`Folder` or :class:`Archive` at `path`.

    Raises:
        ValueError: neither.
    """
    if os.path.isdir(path):
        return Folder(path)
    if os.path.isfile(path):
        return Archive(path)
    raise ValueError(f"--from={path}: no such folder or zip file.")


def is_picture(name):
    """Whether a name looks like a picture's; the hidden ones, such as macOS's `._x.jpg`, are not."""
    path = PurePosixPath(name)
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith("._")


def by_stem(names):
    """Name without folder and extension -> name; of several, the usual extension and the shallower folder win."""
    def rank(name):
        path = PurePosixPath(name)
        return EXTENSIONS.index(path.suffix.lower()), len(path.parts), name

    found = {}
    for name in sorted(names, key=rank):
        found.setdefault(PurePosixPath(name).stem, name)
    return found


def _bounded(file, max_bytes):
    data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise Refused("too many bytes")
    return data
