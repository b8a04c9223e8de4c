"""The file that an index is exported to: blocks with checksums, one after the other, in a single file.

    signature   8 bytes; the last one is the version
    block       head, text, data
    ...
    block       the last one, DONE, with the SHA-256 of every byte before it; the file ends with it

A block's head is 28 bytes, little-endian: kind (4 letters), number (uint32, from 0), length of text (uint32), length of
data (uint64), CRC-32 of text and data, CRC-32 of the head before this. Text is a JSON object, data are arrays as they
lie in memory. What the blocks of an index hold: archive_parts.py.

Nothing is compressed (a pipe through zstd or gzip is as good, and there is nothing to expand), nothing is pickled, and
there is no name of a file in it. Read in one go from front to back, so a pipe will do.

What a hostile file can say, and what holds against it:

1. A wrong length: a head has a checksum, so an accident is told from its first byte; and a length that was meant is
   compared with the bound of its kind before anything is read.
2. Lengths that the file does not have: memory is taken as bytes arrive, a piece at a time.
3. A block left out, repeated or moved: heads are numbered. A cut: there is no DONE, or it is not at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from stream_hash.errors import FormatError
from stream_hash.formats.opening import COPY_BYTES, Readable

VERSION: Final = 1
SIGNATURE: Final = b"\x89SHX\r\n\x1a"
"""As PNG's: not text, and damaged by whatever takes it for text."""

DONE: Final = b"DONE"

_HEAD: Final = struct.Struct("<4sIIQI")
_CHECK: Final = struct.Struct("<I")


class Writable(Protocol):
    """All that is asked of a file that is written from front to back."""

    def write(self, piece: bytes | memoryview, /) -> object:
        """Write all of it."""


class Bound(NamedTuple):
    """The most bytes that a block of a kind may have."""

    text: int
    data: int


@dataclass(frozen=True)
class Block:
    """kind : 4 letters. number : from 0. text : a JSON object. data : bytes of arrays."""

    kind: bytes
    number: int
    text: dict[str, Any]
    data: bytes | bytearray


@dataclass(frozen=True)
class Place:
    """An end of a block: how many bytes and blocks are before it. sha256 : of these bytes."""

    size: int
    blocks: int
    sha256: hashlib._Hash


class ArchiveWriter:
    """Writes blocks, from the front or from a place in a file on; `size` is how many bytes there are so far."""

    def __init__(self, file: Writable, place: Place | None = None) -> None:
        self._file = file
        self._sha256 = hashlib.sha256() if place is None else place.sha256.copy()
        self._number = 0 if place is None else place.blocks
        self.size = 0 if place is None else place.size
        if place is None:
            self._put(SIGNATURE + bytes([VERSION]))

    def write(self, kind: bytes, text: Mapping[str, Any], data: Sequence[bytes | memoryview] = ()) -> None:
        """Append a block; `data` are pieces that follow each other. memoryviews are of bytes."""
        raw = json.dumps(text, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        check = zlib.crc32(raw)
        for piece in data:
            check = zlib.crc32(piece, check)
        head = _HEAD.pack(kind, self._number, len(raw), sum(map(len, data)), check)
        self._number += 1
        self._put(head + _CHECK.pack(zlib.crc32(head)))
        self._put(raw)
        for piece in data:
            self._put(piece)

    def finish(self, text: Mapping[str, Any]) -> str:
        """Append DONE; returns the SHA-256 that it carries."""
        digest = self._sha256.hexdigest()
        self.write(DONE, {**text, "sha256": digest})
        return digest

    def place(self) -> Place:
        """Behind the last block that was written."""
        return Place(self.size, self._number, self._sha256.copy())

    def _put(self, piece: bytes | memoryview) -> None:
        self._sha256.update(piece)
        self._file.write(piece)
        self.size += len(piece)


class ArchiveReader:
    """Reads blocks. bounds : of each kind there may be."""

    def __init__(self, file: Readable, name: str, bounds: Mapping[bytes, Bound]) -> None:
        self._file, self._name, self._bounds = file, name, bounds
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._blocks = 0

    def place(self) -> Place:
        """Behind the last block that came."""
        return Place(self._size, self._blocks, self._sha256.copy())

    def blocks(self) -> Iterator[Block]:
        """The blocks of an archive, DONE as the last.

        Raises FormatError when the file is none, is damaged (it names the block), or does not end where it should. What
        came before is good as far as its checksums go.
        """
        self._begin()
        block = None
        while block is None or block.kind != DONE:
            before = self._sha256.hexdigest()
            block = self._block(self._blocks)
            if block.kind == DONE and block.text.get("sha256") != before:
                self._damaged("its blocks are not those that were written", f"SHA-256 {before}")
            if block.kind == DONE and self._file.read(1):
                self._damaged("more bytes follow its last block", f"that was block {self._blocks}")
            self._blocks += 1
            yield block

    def _begin(self) -> None:
        signature = self._take(len(SIGNATURE) + 1, "its signature")
        if signature[:-1] != SIGNATURE:
            raise FormatError(
                f"{self._name} is no export of an index",
                why=f"it begins with {bytes(signature)!r}",
                remedy="name a file that stream-hash export wrote; one that was compressed is expanded first",
            )
        if signature[-1] != VERSION:
            raise FormatError(
                f"{self._name} has version {signature[-1]}",
                why=f"this stream-hash reads version {VERSION}",
                remedy="import it with the stream-hash that wrote it, or a newer one",
            )

    def _block(self, number: int) -> Block:
        what = f"block {number}"
        raw = self._take(_HEAD.size, what)
        (check,) = _CHECK.unpack(self._take(_CHECK.size, what))
        kind, found, text_bytes, data_bytes, body_check = _HEAD.unpack(raw)
        if zlib.crc32(raw) != check:
            self._damaged(f"the head of {what} has changed", "its checksum is another")
        if found != number:
            self._damaged(f"{what} is missing", f"block {found} stands in its place")
        bound = self._bounds.get(kind)
        if bound is None:
            self._damaged(f"{what} is of kind {kind!r}", f"known are {b', '.join(self._bounds).decode()}")
        if text_bytes > bound.text or data_bytes > bound.data:
            self._damaged(
                f"{what} claims {text_bytes:,} bytes of text and {data_bytes:,} of data",
                f"a block {kind.decode()} has {bound.text:,} and {bound.data:,} at the most",
            )
        text, data = self._take(text_bytes, what), self._take(data_bytes, what)
        if zlib.crc32(data, zlib.crc32(text)) != body_check:
            self._damaged(f"{what} has changed", "its checksum is another")
        return Block(kind, number, self._object(text, what), data)

    def _take(self, count: int, what: str) -> bytearray:
        """The next `count` bytes, in pieces: what a file claims and does not have is never allocated."""
        taken = bytearray()
        while len(taken) < count:
            piece = self._file.read(min(COPY_BYTES, count - len(taken)))
            if not piece:
                self._damaged(f"it ends within {what}", "it was cut, or not written to its end")
            taken += piece
        self._sha256.update(taken)
        self._size += count
        return taken

    def _object(self, text: bytearray, what: str) -> dict[str, Any]:
        try:
            found = json.loads(text.decode(), parse_constant=_no_number, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            self._damaged(f"the text of {what} is no JSON", f"{error!s:.200}")
        if not isinstance(found, dict):
            self._damaged(f"the text of {what} is no JSON object", f"it is a {type(found).__name__}")
        return found

    def _damaged(self, what: str, why: str) -> NoReturn:
        raise damaged(self._name, what, why)


def damaged(name: str, what: str, why: str) -> FormatError:
    """The error of an archive that is not what was written."""
    return FormatError(f"{name} is damaged: {what}", why=why, remedy="copy it again, or take another backup")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
