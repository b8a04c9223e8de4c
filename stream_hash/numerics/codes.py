"""Codes: the bits of one table as an integer, the first hyperplane its most significant bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack_bits(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Bits as big-endian integers.

    bits : bool array of shape (n, n_bits), 1 ≤ n_bits ≤ 64. Returns uint64 of shape (n,).
    """
    count, width = bits.shape
    padded = np.zeros((count, 64), dtype=np.bool_)
    padded[:, 64 - width :] = bits
    return np.packbits(padded, axis=1).view(">u8").reshape(count).astype(np.uint64)


def unpack_bits(codes: NDArray[np.uint64], width: int) -> NDArray[np.bool_]:
    """The bits of codes, most significant first: the inverse of `pack_bits`.

    codes : uint64 of shape (n,). Returns bool of shape (n, width).
    """
    raw = np.ascontiguousarray(codes, dtype=">u8").view(np.uint8).reshape(len(codes), 8)
    return np.unpackbits(raw, axis=1)[:, 64 - width :].astype(np.bool_)


def hamming_distances(codes: NDArray[np.uint64], code: int) -> NDArray[np.uint8]:
    """How many bits of each code differ from `code`. codes : uint64 of any shape; returns that shape."""
    return np.asarray(np.bitwise_count(codes ^ np.uint64(code)))
