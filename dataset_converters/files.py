"""Reading raw files by parts: plain or gzip, a folder or a zip as published, lines, JSON lines and delimited tables.

Nothing is ever extracted: a member of a zip is read as a stream, whatever its name.
"""

import csv
import gzip
import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from tqdm import tqdm

ROWS = 500_000  # of a chunk of a table
LINES = 16 << 20  # characters of lines read at once
MAX_LINE = 64  # MiB; more is no line of a table but a bomb, which would fill the memory
QUOTED = re.compile(r'"(?:[^"]|"")*"')
BROKEN = (csv.Error, EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)


class Plain:
    """One file by its own name, plain or gzip (told by its first bytes)."""

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.exists():
            raise ValueError(f"{self.path}: no such file.")
        if not self.path.is_file():
            raise ValueError(f"{self.path}: not a file.")
        if self.path.stat().st_size == 0:
            raise ValueError(f"{self.path}: empty.")

    def __str__(self):
        return str(self.path)

    @contextmanager
    def open(self):
        """Binary stream, with progress by bytes read from the disk."""
        with open(self.path, "rb") as raw, progress(self.path.stat().st_size, f"read {self.path.name}") as bar:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            counted = io.BufferedReader(_Counted(raw, bar), 1 << 20)
            with broken_file(self), gzip.GzipFile(fileobj=counted) if compressed else counted as stream:
                yield io.BufferedReader(_Bounded(stream, self), 1 << 20)


class Member:
    """One file inside a zip."""

    def __init__(self, archive, info):
        self.archive, self.info = archive, info

    def __str__(self):
        return f"{self.archive.filename}, {self.info.filename}"

    @contextmanager
    def open(self):
        """Binary stream, with progress by bytes."""
        with broken_file(self), self._start() as raw, progress(self.info.file_size, f"read {self.info.filename}") as bar:
            yield io.BufferedReader(_Bounded(_Counted(raw, bar), self), 1 << 20)

    def _start(self):
        try:
            return self.archive.open(self.info)
        except (OSError, ValueError, OverflowError) as error:  # offsets that lead out of the file
            raise zipfile.BadZipFile(str(error)) from error


class _Counted(io.RawIOBase):
    """A raw stream that tells a progress bar how far it is."""

    def __init__(self, raw, bar):
        self.raw_stream, self.bar = raw, bar

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.raw_stream.read(len(buffer))
        buffer[: len(data)] = data
        self.bar.update(len(data))
        return len(data)


class _Bounded(io.RawIOBase):
    """A raw stream of text that refuses a line beyond MAX_LINE."""

    def __init__(self, stream, file):
        self.stream, self.file, self.length = stream, file, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        end = data.rfind(b"\n")
        self.length = len(data) - end - 1 + (self.length if end < 0 else 0)
        if self.length > MAX_LINE << 20:
            raise ValueError(f"{self.file}: a line of more than {MAX_LINE} MiB. Is it a text file with one row on each line?")
        return len(data)


def progress(total, text, unit="B"):
    """A progress bar on stderr, gone once done; none for work of less than a second or two."""
    return tqdm(total=total, desc=text, unit=unit, unit_scale=True, leave=False, delay=1)


@contextmanager
def broken_file(file):
    """Turn what a damaged gzip, zip or text raises into one ValueError that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}). Convert it, for example with `iconv -f latin1 -t utf8`.") from error
    except BROKEN as error:
        raise ValueError(f"{file}: damaged or cut off ({error}). Fetch it again.") from error


def find_files(path, marks=()):
    """Files of a folder (and of those in it) or of a zip, by base name.

    Args:
        path (str): a folder or a zip as published.
        marks (tuple of str, optional): names that tell a release: where a folder holds one, the files of that folder alone are its files.

    Returns:
        dict: base name -> :class:`Plain` or :class:`Member`; the one nearest to the top wins.

    Raises:
        ValueError: there is none, it is no zip, or several folders hold a mark.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder.")
    folders = _of_zip(path) if path.is_file() else _of_folder(path)
    marked = [folder for folder in folders if set(marks) & set(folders[folder])]
    nearest = [folder for folder in marked if folder.count("/") == min(other.count("/") for other in marked)]
    if len(nearest) > 1:
        raise ValueError(f"{path}: holds several releases, in {', '.join(folder or '.' for folder in nearest)}. Give one of them as --input-path.")
    if nearest:
        return folders[nearest[0]]
    return {name: file for folder in sorted(folders, key=lambda folder: -folder.count("/")) for name, file in folders[folder].items()}


def _of_zip(path):
    """Folder inside a zip, ending in "/" -> base name -> :class:`Member`."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: neither a folder nor a zip.")
    with broken_file(path):
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, ValueError, OverflowError, struct.error) as error:
            raise zipfile.BadZipFile(str(error)) from error
        members = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    folders = {}
    for info in members:
        folder, slash, name = info.filename.rpartition("/")
        folders.setdefault(folder + slash, {})[name] = Member(archive, info)
    return folders


def _of_folder(path):
    """The same for a folder, "" being itself."""
    inside = {"": path} | {f"{entry.name}/": entry for entry in sorted(path.iterdir(), reverse=True) if entry.is_dir() and not entry.name.startswith(".")}
    return {name: {entry.name: _Lazy(entry) for entry in sorted(folder.iterdir()) if entry.is_file()} for name, folder in inside.items()}


class _Lazy(Plain):
    """A file of a folder; checked when opened, since most are never read."""

    def __init__(self, path):
        self.path = path

    @contextmanager
    def open(self):
        with Plain(self.path).open() as stream:
            yield stream


def lines(file, encoding="utf-8-sig"):
    """Yield (number from 1, line) of a file; only \\n ends a line."""
    with file.open() as stream, broken_file(file):
        text, number = io.TextIOWrapper(stream, encoding, newline="\n"), 0
        while chunk := text.readlines(LINES):
            for number, line in enumerate(chunk, start=number + 1):  # noqa: B020
                yield number, line.rstrip("\r\n")


def json_rows(file, parse=json.loads):
    """Yield (line number, object) of a file with one object a line.

    Raises:
        ValueError: a line is no object; names the file and the line.
    """
    for number, line in lines(file):
        if not line.strip():
            continue
        try:
            row = parse(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number}: not a JSON object ({error}). Is the file cut off?") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number}: holds {str(row)[:40]!r}, not an object with named fields.")
        yield number, row


def read_header(file, separator):
    """Column names of a delimited file."""
    with file.open() as stream, broken_file(file):
        header = next(csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), delimiter=separator), [])
    if not header:
        raise ValueError(f"{file}: empty, or its first line is.")
    return header


def quotes_are_text(file, separator):
    """Whether a table's quotation marks cannot be CSV's: all its lines are whole rows, and a cell begins with one that does not end it.

    Raises:
        ValueError: other cells are quoted as in CSV; names the line.
    """
    width, found, quoted = None, 0, False
    for number, line in lines(file):
        cells = line.split(separator)
        width = width or len(cells)
        if line and len(cells) != width:
            return False
        for cell in cells if '"' in line else ():
            whole = cell.startswith('"') and QUOTED.fullmatch(cell)
            quoted = quoted or bool(whole)
            found = found or (number if cell.startswith('"') and not whole else 0)
    if found and quoted:
        raise ValueError(f"{file}, line {found}: a cell begins with a quotation mark that does not end it, and others are quoted. Quote all, or none.")
    return bool(found)


def table_chunks(file, separator, columns=None, names=None, encoding="utf-8-sig", quoted=True):
    """Yield (number of the first row, DataFrame of strings) of a delimited file.

    Args:
        file (Plain or Member): the file.
        separator (str): one character.
        columns (list, optional): those wanted, in any order; default all.
        names (list, optional): names, where the file has no header.
        encoding (str); quoted (bool): whether quotes hold cells together.

    Raises:
        ValueError: the file is empty or ragged, or lacks a column.
    """
    options = {"names": names, "header": None} if names else {}
    first = 1
    with file.open() as stream, broken_file(file):
        try:
            reader = pd.read_csv(  # without usecols, which would let rows pass that are too long
                stream, sep=separator, dtype=str, keep_default_na=False, na_filter=False, encoding=encoding, chunksize=ROWS,
                index_col=False, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, on_bad_lines="error", low_memory=False, **options,
            )  # fmt: skip
            for chunk in _strictly(reader):
                missing = [name for name in columns or () if name not in chunk]
                if missing:
                    raise ValueError(f"{file}: the header must have {', '.join(columns)}. Found: {', '.join(map(str, chunk.columns))[:200]}.")
                yield first, chunk[columns] if columns else chunk
                first += len(chunk)
        except pd.errors.ParserWarning as error:
            raise ValueError(f"{file}: its rows have more cells than its header. Put quotes around cells that hold {separator!r}.") from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"{file}: not a table separated by {separator!r} ({str(error).strip()}).") from error
    if first == 1:
        raise ValueError(f"{file}: has a header at most, and no row.")


def _strictly(reader):
    """Parts of a table; what pandas only warns of (all rows longer than the header: cells would be lost) is raised."""
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            part = next(reader, None)
        if part is None:
            return
        yield part
