"""Places: what a generation stores of an item, beside its buckets, so that it can be taken out of them again.

A place is 5 bytes of signature, then ceil(bits / 8) bytes of code for each table, all big-endian. The first bit of
all says that the place is occupied; a free one is all zero. The places of BLOCK consecutive item numbers are one
string, so an item costs its bytes and no key of its own. scripts/partition.lua reads and writes them on the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.settings import SIGNATURE_BITS, IndexSettings

BLOCK: Final = 512
"""Item numbers a string of places: 3.5 KB at 16 bits and one table."""

SIGNATURE_BYTES: Final = 5

_OCCUPIED: Final = np.uint64(1 << SIGNATURE_BITS)


def code_bytes(settings: IndexSettings) -> int:
    """Bytes of a table's code in a place."""
    return -(-settings.bits // 8)


def place_bytes(settings: IndexSettings) -> int:
    """Bytes of a place."""
    return SIGNATURE_BYTES + settings.tables * code_bytes(settings)


def encode_places(
    codes: NDArray[np.uint64], signatures: NDArray[np.uint64], settings: IndexSettings
) -> NDArray[np.uint8]:
    """The places of hashed items: (n, place_bytes).

    codes : (n, tables) uint64. signatures : (n,) uint64 below 2^39.
    """
    count, size = len(signatures), code_bytes(settings)
    places = np.empty((count, place_bytes(settings)), dtype=np.uint8)
    places[:, :SIGNATURE_BYTES] = _big_endian(signatures | _OCCUPIED)[:, -SIGNATURE_BYTES:]
    places[:, SIGNATURE_BYTES:] = _big_endian(codes.ravel())[:, -size:].reshape(count, settings.tables * size)
    return places


def _big_endian(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """(n, 8) bytes, the most significant first."""
    return np.ascontiguousarray(numbers, dtype=">u8").view(np.uint8).reshape(-1, 8)


@dataclass(frozen=True)
class Placed:
    """Decoded places. occupied : (n,) bool. codes : (n, tables) uint64. signatures : (n,) uint64."""

    occupied: NDArray[np.bool_]
    codes: NDArray[np.uint64]
    signatures: NDArray[np.uint64]


def decode_places(places: NDArray[np.uint8], settings: IndexSettings) -> Placed:
    """What `encode_places` wrote; free places decode to zeros. places : (n, place_bytes)."""
    signatures = _numbers(places[:, :SIGNATURE_BYTES], SIGNATURE_BYTES)
    codes = _numbers(places[:, SIGNATURE_BYTES:], code_bytes(settings)).reshape(len(places), settings.tables)
    return Placed(signatures & _OCCUPIED != 0, codes, signatures & ~_OCCUPIED)


def _numbers(raw: NDArray[np.uint8], size: int) -> NDArray[np.uint64]:
    """Big-endian numbers of `size` bytes each, one after the other."""
    padded = np.zeros((raw.size // size, 8), dtype=np.uint8)
    padded[:, -size:] = raw.reshape(-1, size)
    return padded.view(">u8").ravel().astype(np.uint64)


def split_block(block: bytes | None, settings: IndexSettings) -> NDArray[np.uint8]:
    """A string of places as (BLOCK, place_bytes); one that is not there, or cut short, reads as free places."""
    size = BLOCK * place_bytes(settings)
    raw = (block or b"")[:size].ljust(size, b"\0")
    return np.frombuffer(raw, dtype=np.uint8).reshape(BLOCK, -1)
