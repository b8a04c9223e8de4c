"""One hash table in memory: buckets as runs of one array. What the index keeps in Redis, for measuring without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.probing import Directory, ball, ball_size, within


class BucketTable:
    """The items of one table, by code.

    directory : the non-empty codes, ascending, and how many items each holds. bucket_of : (n_items,) the position
    in the directory of each item's bucket.
    """

    def __init__(self, codes: NDArray[np.uint64], bits: int) -> None:
        """codes : (n_items,) uint64 of `bits` bits each."""
        stored, self.bucket_of, counts = np.unique(codes, return_inverse=True, return_counts=True)
        self.bits = bits
        self.directory: Directory = (stored, counts)
        self._items = np.argsort(self.bucket_of, kind="stable")
        self._ends = np.cumsum(counts)

    def probe(self, code: int, radius: int) -> NDArray[np.intp]:
        """The items within Hamming distance `radius` of `code`, enumerating or walking as the index does."""
        stored, _ = self.directory
        if ball_size(self.bits, radius) > len(stored):
            return self.members(within(stored, code, radius))
        wanted = ball(code, self.bits, radius)
        at = np.minimum(np.searchsorted(stored, wanted), len(stored) - 1)
        return self.members(wanted[stored[at] == wanted])

    def members(self, codes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """The items of buckets that are in the directory, bucket after bucket."""
        stored, counts = self.directory
        buckets = np.searchsorted(stored, codes)
        sizes = counts[buckets]
        before = np.cumsum(sizes) - sizes
        starts = self._ends[buckets] - sizes
        return self._items[np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))]
