"""Rows that come batch by batch, kept in one block of memory."""

import torch


class Rows:
    """A tensor on the CPU that grows at its end.

    A list of small tensors would do, but for memory: each stands between the large ones of two batches, whose place can then not be given back, so that a
    million users take tens of GiB.

    Args:
        parts (list): first rows, tensors [R, ...].
    """

    def __init__(self, parts=()):
        self._block, self._length = None, 0
        for part in parts:
            self.append(part)

    def __len__(self):
        return self._length

    def append(self, rows):
        """Add rows, [R, ...], all of one shape and dtype."""
        end = self._length + len(rows)
        if self._block is None or end > len(self._block):
            block = torch.empty(max(end, 2 * self._length, 4096), *rows.shape[1:], dtype=rows.dtype)
            block[: self._length] = block[:0] if self._block is None else self._block[: self._length]
            self._block = block
        self._block[self._length : end] = rows
        self._length = end

    def all(self):
        """All rows, [N, ...]; None where none came. A view: it is not to be changed."""
        return None if self._block is None else self._block[: self._length]
