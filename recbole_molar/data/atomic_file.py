"""An atomic file as it stands, checked before and beside RecBole's reader, which passes over much of what is wrong in one."""

import contextlib
import csv

MAX_HEADER = 1 << 20  # characters


class AtomicFile:
    """A table of RecBole's: a header of `name:type`, then rows.

    Args:
        path (str or Path): the file. separator (str): between cells. encoding (str, optional): default UTF-8.
    """

    def __init__(self, path, separator, encoding=None):
        self.path, self.separator, self.encoding = path, separator, encoding or "utf-8"

    def types(self):
        """Column -> type, from the header.

        Raises:
            ValueError: no such header, or not text.
        """
        try:
            with open(self.path, encoding=self.encoding) as file:
                line = file.readline(MAX_HEADER)
        except UnicodeError as error:
            raise ValueError(f"{self.path}: not {self.encoding} ({error}). Set --encoding, for example latin-1, or convert it.") from error
        if line.startswith("\ufeff"):
            raise ValueError(f"{self.path}: begins with a byte-order mark. Set --encoding=utf-8-sig, or save it without one.")
        header = line.rstrip("\r\n").split(self.separator)
        if not all(column.count(":") == 1 for column in header):
            raise ValueError(f"{self.path}, line 1: found {str(header[:5])[:200]}; write name:type for each column, for example user_id:token.")
        types = dict(column.split(":") for column in header)
        if len(types) < len(header):
            raise ValueError(f"{self.path}, line 1: a column stands there twice: {', '.join(header)}.")
        return types

    def _lines(self):
        """(number, cells) of each line that is not empty; the first is the header."""
        with open(self.path, encoding=self.encoding) as file:
            for number, line in enumerate(file, start=1):
                cells = line.rstrip("\n").split(self.separator)
                if len(cells) > 1 or line.strip():  # as RecBole's reader does: a line of separators alone is a row
                    yield number, cells

    def check_rows(self, n_read, ids):
        """Raise ValueError for what RecBole's reader passes over: a row longer than the header (it drops what stands beyond, but the row has slipped),
        and lines that a quotation mark has joined.

        Args:
            n_read (int): rows that RecBole has read. ids (list of str): columns of one word each; any other may hold a quoted line break.
        """
        if len(self.separator) > 1:  # a regular expression, to RecBole
            return
        lines = self._lines()
        width, n_lines = len(next(lines)[1]), 0
        for number, cells in lines:
            if len(cells) > width:
                raise ValueError(f"{self.path}, line {number}: {len(cells)} columns, but the header has {width}.")
            n_lines += 1
        if n_lines != n_read and not self._is_csv(n_read, ids):
            opened = (number for number, cells in self._lines() if any(cell.startswith('"') and cell.count('"') % 2 for cell in cells))
            line = next(opened, 0)
            cause = f", line {line}: a cell begins with a quotation mark, and RecBole reads all up to the next one as its text" if line else ""
            raise ValueError(f"{self.path}{cause}. It has {n_lines:,} rows, of which RecBole reads {n_read:,}. Remove quotation marks from ids.")

    def _is_csv(self, n_read, ids):
        """Whether quotation marks join lines as they should: all rows are whole, and no id or time spans lines."""
        with open(self.path, encoding=self.encoding, newline="") as file, contextlib.suppress(csv.Error):
            header, *rows = (row for row in csv.reader(file, delimiter=self.separator, strict=True) if row)
            places = [place for place, column in enumerate(header) if column.split(":")[0] in ids]
            whole = all(len(row) == len(header) and not any("\n" in row[place] or self.separator in row[place] for place in places) for row in rows)
            return len(rows) == n_read and whole
        return False

    def bad_number(self):
        """`, line 7: 'soon' is no number` for the first such cell of a column of numbers; "" where there is none."""
        with contextlib.suppress(UnicodeError):
            lines = self._lines()
            places = [place for place, name in enumerate(next(lines)[1]) if name.endswith(":float")]
            for number, cells in lines:
                for place in places:
                    if place < len(cells) and cells[place] and not _is_number(cells[place]):
                        return f", line {number}: {cells[place][:40]!r} is no number"
        return ""


def _is_number(text):
    try:
        return float(text) is not None
    except ValueError:
        return False
