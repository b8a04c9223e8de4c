"""A stored array read a block of rows at a time, so that its size never is the reader's memory.

Blocks are read, not mapped: when another process truncates a mapped file, its reader dies of SIGBUS.
"""

from __future__ import annotations

import math
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from stream_hash.errors import FormatError
from stream_hash.formats.opening import Readable, read_exactly


class Column(Protocol):
    """Rows of one array, taken in order from the first."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, D) for vectors; (n,) or (n, 1) for ids and labels."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values, in their stored byte order."""

    def take(self, count: int) -> npt.NDArray[Any]:
        """The next `count` rows; no more than are left. Raises FormatError when the file ends early."""


class ForwardRows:
    """Rows in C order, from a file that stands at the first and need not seek."""

    def __init__(self, file: Readable, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
        self.shape = shape
        self.dtype = dtype
        self._file = file
        self._name = name

    def take(self, count: int) -> npt.NDArray[Any]:
        shape = (count, *self.shape[1:])
        data = read_exactly(self._file, math.prod(shape) * self.dtype.itemsize, self._name)
        return np.frombuffer(data, self.dtype).reshape(shape)


class StridedRows:
    """Rows in Fortran order: the array stands at `offset` column after column; one read for each.

    Several may share a file, since each read seeks first.
    """

    def __init__(self, file: BinaryIO, offset: int, shape: tuple[int, int], dtype: np.dtype[Any], name: str) -> None:
        self.shape = shape
        self.dtype = dtype
        self._file = file
        self._offset = offset
        self._name = name
        self._taken = 0

    def take(self, count: int) -> npt.NDArray[Any]:
        rows, width = self.shape
        block = np.empty((count, width), self.dtype)
        for column in range(width):
            self._file.seek(self._offset + (column * rows + self._taken) * self.dtype.itemsize)
            data = read_exactly(self._file, count * self.dtype.itemsize, self._name)
            block[:, column] = np.frombuffer(data, self.dtype)
        self._taken += count
        return block


class TextRows:
    """Rows of characters, (n, width) code points, read as n texts without the blanks that pad them."""

    def __init__(self, characters: StridedRows) -> None:
        self.shape = characters.shape[:1]
        self.dtype = np.dtype(f"<U{characters.shape[1]}")
        self._characters = characters

    def take(self, count: int) -> npt.NDArray[Any]:
        codes = np.ascontiguousarray(self._characters.take(count), np.dtype("<u4"))
        return np.char.rstrip(codes.view(self.dtype).reshape(count), " ")


def flat_length(shape: tuple[int, ...], what: str, name: str) -> int:
    """n of an array of ids or labels: (n,), or (n, 1) and (1, n) as MATLAB has them.

    Raises FormatError on any other shape.
    """
    if len(shape) == 1 or (len(shape) == 2 and 1 in shape):
        return math.prod(shape)
    raise FormatError(
        f"the {what} in {name} have shape {shape}",
        why="there is one for each vector, in an array with one axis",
        remedy=f"save the {what} with shape (vectors,)",
    )
