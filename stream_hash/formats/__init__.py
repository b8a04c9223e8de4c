"""Items from files: npy, npz, mat, fvecs, jsonl and csv, as chunks of bounded size.

Read in this order: `records` (what comes out, and the bounds), `opening` and `detect` (from a source to
a format), `values` (from stored values to an item's parts); then for arrays `columns`, `tables` and the
formats `npy`, `npz`, `mat`, `fvecs`; for text `lines`, `gather` and the formats `jsonl`, `delimited`; and
`labels`, a file without vectors. Beside them: the file of an exported index, in `archive`, `archive_parts`,
`archive_reading` and `archive_partial`, and `replacing`, which puts it into its place.

A file is never trusted: nothing is unpickled or evaluated, what it declares is compared with what it has
before memory is taken, and what comes out are chunks, `Rejected` rows or a FormatError.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from stream_hash.errors import FormatError, UsageError
from stream_hash.formats.detect import FORMATS, HEAD_BYTES, Format, check_format, detect
from stream_hash.formats.labels import read_labels
from stream_hash.formats.opening import name_of, opened, peeked
from stream_hash.formats.records import Chunk, Rejected

__all__ = ["FORMATS", "Chunk", "Format", "Rejected", "detect", "read", "read_labels", "read_queries"]


class _Reader(Protocol):
    def __call__(
        self, file: BinaryIO, name: str, *, labels: bool, chunk_items: int, limit: int | None, dimension: int | None
    ) -> Iterator[Chunk | Rejected]: ...


_READERS: Final[dict[Format, str]] = {
    "npy": "npy",
    "npz": "npz",
    "mat": "mat",
    "fvecs": "fvecs",
    "jsonl": "jsonl",
    "csv": "delimited",
}
"""The modules that read them, each imported when such a file comes: a command reads one."""


def read(
    source: Path | BinaryIO,
    *,
    format: str = "auto",  # noqa: A002 - the word of the command line
    chunk_items: int = 4096,
    limit: int | None = None,
    labels: bool = True,
    dimension: int | None = None,
) -> Iterator[Chunk | Rejected]:
    """The items of a file or a binary stream, in order.

    Parameters
    ----------
    source : a path, or a binary stream such as `sys.stdin.buffer`, which need not seek and stays open.
        jsonl and csv are read line by line; other formats are first copied to a temporary file when the
        stream cannot seek.
    format : one of FORMATS, or `auto`: by suffix, else by the first bytes.
    chunk_items : items of a chunk at most; fewer when the vectors would pass 8 MiB.
    limit : rows to look at, good or not; all by default. Later rows are not read.
    labels : False leaves labels out, and does not look at them.
    dimension : coordinates that every vector must have; by default those of the first good one.

    Yields
    ------
    `Chunk` with vectors (n, D) float32, and `Rejected` for each row that is no item. A refused row comes
    before the chunk that its neighbours are in.

    Raises
    ------
    UsageError
        At the call, for an unknown format or a bound below 1; at the first item, when `auto` cannot tell.
    FormatError
        While iterating: the file cannot be read, is not what its format promises, or holds no vectors.
    """
    chosen = check_format(format)
    for what, value in (("chunk_items", chunk_items), ("limit", limit)):
        if value is not None and value < 1:
            raise UsageError(f"{what} is {value}", why="it must be at least 1", remedy=f"choose another {what}")
    return _read(source, chosen, chunk_items=chunk_items, limit=limit, labels=labels, dimension=dimension)


def read_queries(
    source: Path | BinaryIO,
    *,
    format: str = "auto",  # noqa: A002 - as in `read`
    limit: int | None = None,
    dimension: int | None = None,
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """All ids and vectors of a file: n texts (row numbers where it has none) and (n, D) float32.

    Raises UsageError and FormatError as `read` does, and FormatError for the first row that is no item:
    a query that is left out would shift the answers to all that follow.
    """
    ids: list[str] = []
    vectors = []
    for part in read(source, format=format, limit=limit, labels=False, dimension=dimension):
        if isinstance(part, Rejected):
            raise FormatError(
                f"{part.where} of {name_of(source)} is no vector", why=part.reason, remedy="mend or remove it"
            )
        ids += part.ids
        vectors.append(part.vectors)
    return ids, np.concatenate(vectors)


def _read(
    source: Path | BinaryIO,
    chosen: Format | Literal["auto"],
    *,
    chunk_items: int,
    limit: int | None,
    labels: bool,
    dimension: int | None,
) -> Iterator[Chunk | Rejected]:
    name = name_of(source)
    with opened(source) as file:
        head, whole = peeked(file, HEAD_BYTES)
        module = _READERS[detect(name, head) if chosen == "auto" else chosen]
        reader: _Reader = import_module(f"stream_hash.formats.{module}").read
        yield from reader(whole, name, labels=labels, chunk_items=chunk_items, limit=limit, dimension=dimension)
