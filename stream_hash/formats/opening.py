"""Opening what is read: a path, or a stream that may not be able to go back.

Errors of the operating system become FormatErrors here. A stream is never closed, only what was
opened here is.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from stream_hash.errors import FormatError
from stream_hash.formats.records import MAX_EXPANDED_BYTES, MAX_MEMORY_SPOOL_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COPY_BYTES: Final = 2**20

STDIN: Final = 0
"""The file descriptor of standard input."""


class Readable(Protocol):
    """All that is asked of a file that is read from front to back."""

    def read(self, count: int, /) -> bytes:
        """At most `count` bytes; none at the end."""


def name_of(source: Path | BinaryIO) -> str:
    """What messages call `source`: its path, `standard input`, or `the stream`."""
    if isinstance(source, Path):
        return str(source)
    name = getattr(source, "name", None)
    if name in ("<stdin>", STDIN):
        return "standard input"
    return name if isinstance(name, str) else "the stream"


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """`source` as a binary file. Raises FormatError when it cannot be opened, or fails while it is read."""
    name = name_of(source)
    try:
        if isinstance(source, Path):
            with _open(source) as file:
                yield file
        else:
            yield source
    except OSError as error:
        raise FormatError(
            f"{name} cannot be read", why=str(error), remedy="check the file, the disk and its free space"
        ) from error


def peeked(file: BinaryIO, count: int) -> tuple[bytes, BinaryIO]:
    """The first `count` bytes, fewer when there are fewer, and a file that still begins with them."""
    head = b""
    while len(head) < count and (piece := file.read(count - len(head))):
        head += piece
    if file.seekable() and file.tell() == len(head):
        file.seek(0)
        return head, file
    return head, cast("BinaryIO", io.BufferedReader(_Replayed(head, file)))


@contextmanager
def rewindable(file: BinaryIO, name: str) -> Iterator[tuple[BinaryIO, int]]:
    """`file` itself when it can seek, else a temporary copy of it; and its size in bytes.

    Raises FormatError when the copy would pass MAX_EXPANDED_BYTES.
    """
    if file.seekable():
        yield file, file.seek(0, io.SEEK_END)
        return
    with spool() as copy:
        size = 0
        while piece := file.read(COPY_BYTES):
            size += len(piece)
            if size > MAX_EXPANDED_BYTES:
                raise FormatError(
                    f"{name} is longer than {MAX_EXPANDED_BYTES:,} bytes",
                    why="this format needs the whole of it before the first vector can be read",
                    remedy="save it to a file and name the file, or send jsonl or csv",
                )
            copy.write(piece)
        yield copy, size


@contextmanager
def spool() -> Iterator[BinaryIO]:
    """An empty file in memory that moves to the temporary folder when it grows, and then vanishes."""
    with tempfile.SpooledTemporaryFile(max_size=MAX_MEMORY_SPOOL_BYTES) as file:
        yield cast("BinaryIO", file)


def read_exactly(file: Readable, count: int, name: str) -> bytes:
    """The next `count` bytes. Raises FormatError when the file ends before; keep `count` bounded."""
    data = file.read(count)
    while len(data) < count and (piece := file.read(count - len(data))):
        data += piece
    if len(data) != count:
        raise FormatError(
            f"{name} is truncated",
            why=f"{count:,} bytes were to follow and {len(data):,} did",
            remedy="write or copy the file again",
        )
    return data


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist", why=str(error), remedy="check the path") from error
    except IsADirectoryError as error:
        raise FormatError(f"{path} is a directory", why=str(error), remedy="name a file in it") from error
    except PermissionError as error:
        raise FormatError(
            f"{path} may not be read", why=str(error), remedy="give yourself read permission on it"
        ) from error
    except ValueError as error:
        raise FormatError(f"{str(path)!r} is no path", why=str(error), remedy="check the path") from error


class _Replayed(io.RawIOBase):
    """A stream with the bytes that were peeked put back in front; closing it leaves the stream open."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        super().__init__()
        self._head = head
        # read1 hands on what has arrived: a line typed into a pipe is not held back for a full buffer.
        self._read = getattr(file, "read1", file.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        piece, self._head = self._head[: len(view)], self._head[len(view) :]
        piece = piece or self._read(len(view)) or b""
        view[: len(piece)] = piece
        return len(piece)
