"""Whether the bits of an index suit the items it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream_hash.settings import BUCKET_LEAST, BUCKET_MOST, MAX_BITS
from stream_hash.storage.buckets import Listing


def fitting_bits(tables: Sequence[Listing], bits: int) -> int | None:
    """`bits` while the mean bucket of these tables has 8 to 32 members, else how many would have 8 to 16.

    Of fewer bits that is counted: buckets whose codes begin alike would be one. Of more it is assumed: each divides
    every bucket. None without members; 1 when there are too few for any number of bits.
    """
    members = sum(int(one.counts.sum()) for one in tables)
    if not members:
        return None
    mean = members / sum(len(one.codes) for one in tables)
    if mean > BUCKET_MOST:
        return min(MAX_BITS, bits + int(np.log2(mean / BUCKET_LEAST)))
    fewer = 0
    while mean < BUCKET_LEAST and fewer < bits - 1:
        fewer += 1
        mean = members / sum(_prefixes(one, fewer) for one in tables)
    return bits - fewer


def _prefixes(table: Listing, without: int) -> int:
    """How many different codes are left when the last bits are taken off. Codes are ascending, and stay so."""
    codes = table.codes >> np.uint64(without)
    return int(np.count_nonzero(codes[1:] != codes[:-1])) + 1 if len(codes) else 0
