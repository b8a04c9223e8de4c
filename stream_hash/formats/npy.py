"""npy: one array of shape (n, D), as `numpy.save` writes it; row numbers are the ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, cast

from stream_hash.errors import FormatError
from stream_hash.formats.columns import Column, ForwardRows, StridedRows
from stream_hash.formats.npy_header import Header, read_header
from stream_hash.formats.opening import rewindable
from stream_hash.formats.records import Chunk, Rejected
from stream_hash.formats.tables import Table, chunks
from stream_hash.formats.values import check_vectors


def read(
    file: BinaryIO,
    name: str,
    *,
    labels: bool,  # noqa: ARG001 - an npy file has none; all formats are called alike
    chunk_items: int,
    limit: int | None,
    dimension: int | None,
) -> Iterator[Chunk | Rejected]:
    """The rows of an npy file. Raises FormatError when it is none, or is not as long as its header says."""
    with rewindable(file, name) as (whole, size):
        whole.seek(0)
        header = read_header(whole, name)
        check_vectors(header.shape, header.dtype, name)
        if size != header.total_bytes:
            raise FormatError(
                f"{name} is {'truncated' if size < header.total_bytes else 'longer than its array'}",
                why=f"its header promises {header.total_bytes:,} bytes and there are {size:,}",
                remedy="write or copy the file again, with one array in it",
            )
        table = Table(name, rows_of(header, whole, name))
        yield from chunks(table, chunk_items=chunk_items, limit=limit, dimension=dimension)


def rows_of(header: Header, file: BinaryIO, name: str) -> Column:
    """The rows of a two-dimensional array whose header was just read from a file that can seek."""
    if header.fortran_order:
        shape = cast("tuple[int, int]", header.shape)
        return StridedRows(file, header.length, shape, header.dtype, name)
    return ForwardRows(file, header.shape, header.dtype, name)
