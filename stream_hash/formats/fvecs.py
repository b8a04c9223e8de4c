"""fvecs: for each vector its dimension as little-endian int32, then as many float32.

Format: http://corpus-texmex.irisa.fr. Row numbers are the ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from stream_hash.errors import FormatError
from stream_hash.formats.opening import read_exactly, rewindable
from stream_hash.formats.records import Chunk, Rejected
from stream_hash.formats.tables import Table, chunks
from stream_hash.settings import MAX_DIMENSION

_COUNT: Final = np.dtype("<i4")


def read(
    file: BinaryIO,
    name: str,
    *,
    labels: bool,  # noqa: ARG001 - an fvecs file has none; all formats are called alike
    chunk_items: int,
    limit: int | None,
    dimension: int | None,
) -> Iterator[Chunk | Rejected]:
    """The rows of an fvecs file. Raises FormatError when its vectors do not fill it, or differ in length."""
    with rewindable(file, name) as (whole, size):
        whole.seek(0)
        if size == 0:
            raise FormatError(f"{name} is empty", why="it holds no vector", remedy="check what writes it")
        stored = int.from_bytes(read_exactly(whole, 4, name), "little", signed=True)
        if not 1 <= stored <= MAX_DIMENSION:
            raise FormatError(
                f"the first vector of {name} has {stored:,} coordinates",
                why=f"it must have 1 to {MAX_DIMENSION:,}",
                remedy="check that the file is fvecs, not bvecs or ivecs",
            )
        record_bytes = 4 + 4 * stored
        if size % record_bytes:
            raise FormatError(
                f"{name} is truncated, or its vectors differ in length",
                why=f"{size:,} bytes are not a multiple of {record_bytes:,}, the first vector's length",
                remedy="write or copy the file again",
            )
        whole.seek(0)
        vectors = _Records(whole, (size // record_bytes, stored), name)
        table = Table(name, vectors)
        yield from chunks(table, chunk_items=chunk_items, limit=limit, dimension=dimension)


class _Records:
    """The float32 rows between the counts, each of which is checked."""

    def __init__(self, file: BinaryIO, shape: tuple[int, int], name: str) -> None:
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype("<f4")
        self._file = file
        self._name = name
        self._taken = 0

    def take(self, count: int) -> npt.NDArray[Any]:
        dimension = self.shape[1]
        data = read_exactly(self._file, count * (4 + 4 * dimension), self._name)
        words = np.frombuffer(data, _COUNT).reshape(count, 1 + dimension)
        other = np.flatnonzero(words[:, 0] != dimension)
        if other.size:
            at = int(other[0])
            raise FormatError(
                f"vector {self._taken + at} of {self._name} has {int(words[at, 0]):,} coordinates",
                why=f"the first has {dimension:,}, and where the next one begins is no longer known",
                remedy="write the file again, with vectors of one length",
            )
        self._taken += count
        return words[:, 1:].view(self.dtype)
