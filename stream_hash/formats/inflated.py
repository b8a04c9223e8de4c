"""A zlib stream inside a file, expanded no further than it is read."""

from __future__ import annotations

import zlib
from typing import BinaryIO, Final

from stream_hash.errors import FormatError
from stream_hash.formats.opening import COPY_BYTES

MAX_RATIO: Final = 1_032
"""What deflate can expand: 258 bytes from two bits (RFC 1951). A larger claim is a lie."""


class Inflated:
    """The expanded bytes of `length` compressed ones from `start`, from front to back.

    The checksum is compared when the end is read. Raises FormatError on what is no zlib stream.
    """

    def __init__(self, file: BinaryIO, start: int, length: int, name: str) -> None:
        self._file = file
        self._position = start
        self._end = start + length
        self._name = name
        self._zlib = zlib.decompressobj()

    def read(self, count: int, /) -> bytes:
        out = b""
        while len(out) < count and not self._zlib.eof:
            fresh = self._zlib.unconsumed_tail or self._next()
            try:
                piece = self._zlib.decompress(fresh, count - len(out))
            except zlib.error as error:
                raise FormatError(
                    f"{self._name} is broken", why=f"a part does not expand: {error}", remedy="write it again"
                ) from error
            if not piece and not fresh:
                break
            out += piece
        return out

    def _next(self) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(min(COPY_BYTES, self._end - self._position))
        self._position += len(data)
        return data
