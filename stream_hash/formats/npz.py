"""npz: a zip of npy arrays, as `numpy.savez` writes it: X or vectors, and perhaps y or labels, and ids.

What a hostile archive can say, and what holds against it:

1. A long directory: the zip directory is read by one call, which is bounded (`_BoundedReads`).
2. Sizes that lie: a member's declared size must be what its npy header promises, no more than deflate
   can expand it to, and in sum no more than MAX_EXPANDED_BYTES; no more than the declared size is ever
   inflated, a block of rows at a time, and the checksum is compared at its end.
3. Other members: they are never opened, so it does not matter what they hold.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, BinaryIO, Final, cast

from stream_hash.errors import FormatError
from stream_hash.formats.columns import Column, ForwardRows, flat_length
from stream_hash.formats.inflated import MAX_RATIO
from stream_hash.formats.npy import rows_of
from stream_hash.formats.npy_header import Header, read_header
from stream_hash.formats.opening import COPY_BYTES, rewindable, spool
from stream_hash.formats.records import MAX_EXPANDED_BYTES, Chunk, Rejected, shown
from stream_hash.formats.tables import Table, chunks
from stream_hash.formats.values import check_vectors

MAX_DIRECTORY_BYTES: Final = 2**20

VECTORS: Final = ("X", "vectors")
LABELS: Final = ("y", "labels")
IDS: Final = ("ids",)

_BROKEN_ZIP: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,  # names and offsets
    OverflowError,  # offsets of 64 bits
    RuntimeError,  # flags and methods that are not supported
)
"""What zipfile raises on broken archives."""


def read(
    file: BinaryIO, name: str, *, labels: bool, chunk_items: int, limit: int | None, dimension: int | None
) -> Iterator[Chunk | Rejected]:
    """The rows of an npz file. Raises FormatError when it is none, or lies about its sizes."""
    with rewindable(file, name) as (whole, _size), ExitStack() as stack:
        table = _Archive(whole, name, stack).table(labels=labels)
        yield from chunks(table, chunk_items=chunk_items, limit=limit, dimension=dimension)


class _Archive:
    """The arrays of one npz file; `stack` closes what is opened."""

    def __init__(self, file: BinaryIO, name: str, stack: ExitStack) -> None:
        self._name = name
        self._stack = stack
        guard = _BoundedReads(file, name)
        with _translated(name):
            self._zip = stack.enter_context(zipfile.ZipFile(cast("IO[bytes]", guard)))
        guard.bound = None
        self._expanded = 0

    def table(self, *, labels: bool) -> Table:
        vectors = self._find(VECTORS)
        if vectors is None:
            held = [info.filename.removesuffix(".npy") for info in self._zip.infolist()]
            raise FormatError(
                f"{self._name} has no array of vectors",
                why=f"it holds {shown(held)}",
                remedy="save them as X or vectors: numpy.savez(file, X=vectors, y=labels, ids=ids)",
            )
        return Table(
            self._name,
            self._vectors(vectors),
            ids=self._beside(self._find(IDS), "ids"),
            labels=self._beside(self._find(LABELS), "labels") if labels else None,
        )

    def _find(self, names: tuple[str, ...]) -> zipfile.ZipInfo | None:
        wanted = {f"{array}.npy" for array in names}
        found = [info for info in self._zip.infolist() if info.filename in wanted]
        if len(found) > 1:
            raise FormatError(
                f"{self._name} holds {' and '.join(info.filename for info in found)}",
                why="one of them would be ignored",
                remedy="keep one",
            )
        return found[0] if found else None

    def _vectors(self, info: zipfile.ZipInfo) -> Column:
        member, header = self._open(info)
        what = f"{info.filename} of {self._name}"
        check_vectors(header.shape, header.dtype, what)
        if not header.fortran_order:
            return ForwardRows(member, header.shape, header.dtype, what)
        # A member cannot go back, and rows of a Fortran array lie all over it.
        copy = self._stack.enter_context(spool())
        copy.write(bytes(header.length))
        while piece := member.read(COPY_BYTES):
            copy.write(piece)
        return rows_of(header, copy, what)

    def _beside(self, info: zipfile.ZipInfo | None, what: str) -> Column | None:
        if info is None:
            return None
        member, header = self._open(info)
        return ForwardRows(member, (flat_length(header.shape, what, self._name),), header.dtype, self._name)

    def _open(self, info: zipfile.ZipInfo) -> tuple[_Member, Header]:
        what = f"{info.filename} of {self._name}"
        self._check(info, what)
        with _translated(what):
            member = _Member(self._stack.enter_context(self._zip.open(info)), what)
        header = read_header(member, what)
        if header.total_bytes != info.file_size:
            raise FormatError(
                f"{what} is not as long as its header says",
                why=f"it promises {header.total_bytes:,} bytes, and the archive {info.file_size:,}",
                remedy="write the file again",
            )
        return member, header

    def _check(self, info: zipfile.ZipInfo, what: str) -> None:
        if info.flag_bits & 1:
            raise FormatError(
                f"{what} is encrypted", why="no password is asked for", remedy="save it without encryption"
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(
                f"{what} is compressed by method {info.compress_type}",
                why="stored (0) and deflated (8) members are read",
                remedy="write it with numpy.savez or numpy.savez_compressed",
            )
        if info.file_size > MAX_RATIO * info.compress_size:
            raise FormatError(
                f"{what} claims {info.file_size:,} bytes",
                why=f"{info.compress_size:,} compressed bytes cannot hold as much",
                remedy="write the file again",
            )
        self._expanded += info.file_size
        if self._expanded > MAX_EXPANDED_BYTES:
            raise FormatError(
                f"{self._name} expands to {self._expanded:,} bytes or more",
                why=f"the limit is {MAX_EXPANDED_BYTES:,}",
                remedy="split it, or save the vectors as npy",
            )


class _Member:
    """A member read from front to back, with zipfile's errors translated."""

    def __init__(self, member: IO[bytes], name: str) -> None:
        self._member = member
        self._name = name

    def read(self, count: int, /) -> bytes:
        with _translated(self._name):
            return self._member.read(count)


class _BoundedReads:
    """The file behind an archive; a read beyond `bound` is refused before it allocates anything.

    zipfile reads a directory of the length that the archive declares, and keeps ten times that in memory.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self.bound: int | None = MAX_DIRECTORY_BYTES

    def read(self, size: int = -1, /) -> bytes:
        if self.bound is not None and size > self.bound:
            raise FormatError(
                f"{self._name} has a directory of {size:,} bytes",
                why=f"the limit is {self.bound:,}",
                remedy="write the file again with numpy.savez",
            )
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN_ZIP as error:
        # zipfile quotes names of up to 64 KiB from the file.
        why = f"{str(error) or type(error).__name__:.200}"
        raise FormatError(f"{name} is no readable npz", why=why, remedy="write or copy it again") from error
