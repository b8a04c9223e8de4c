"""Query-directed probing over a directory that is kept: the cheapest buckets until they hold the budget.

The rule is that of `probing.directed`: the cost of a bucket is the sum of the query's margins over the bits in which
their codes differ. Here a directory is kept between queries as a matrix of ±1, and costs are products with it: with
s the signs of a code and m the margins of a query, twice its cost is Σ|m| − s·m.

Margins become whole numbers of at most 2^17 before they are multiplied, at most 62 of them a code: float32 holds every
such sum exactly, so that the order of buckets depends neither on how many queries are planned together, nor on where in
the matrix a code stands. A bit's margin is thereby rounded to a part in 131,072 of the query's largest, never to zero:
the query's own bucket is cheaper than any other, unless it lies on all hyperplanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.codes import unpack_bits

_UNITS: Final = 2.0**17
_SAMPLE: Final = 1_024
"""Buckets whose costs tell how dear the dearest may be: a few microseconds, where ordering all takes hundreds."""

_SCATTER: Final = np.uint64(0x9E3779B97F4A7C15)
"""Odd: codes multiplied by it stay different, and their order has nothing to do with theirs (D. Knuth, "The art of
computer programming", volume 3, section 6.4)."""


class KeptDirectory:
    """The non-empty codes of one table, in an order that is as good as random, and how many members each holds."""

    def __init__(self, codes: NDArray[np.uint64], counts: NDArray[np.int64], bits: int) -> None:
        """codes : (n_buckets,) uint64, different ones. counts : (n_buckets,) int64."""
        order = np.argsort(codes * _SCATTER)
        self.bits = bits
        self._codes, self._counts = codes[order], counts[order]
        self._signs = _signs(self._codes, bits)
        self._size = len(codes)
        self.members = int(counts.sum())
        self._present: set[int] | None = None

    def __len__(self) -> int:
        return self._size

    @property
    def codes(self) -> NDArray[np.uint64]:
        """(n_buckets,) uint64."""
        return self._codes[: self._size]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(n_buckets,) int64."""
        return self._counts[: self._size]

    @property
    def signs(self) -> NDArray[np.float32]:
        """±1, most significant bit first. (bits, n_buckets): a row a bit, so that a product reads it in order."""
        return self._signs[:, : self._size]

    def add(self, codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Take in codes of buckets with one member each; returns those that were not there."""
        if self._present is None:
            self._present = set(self.codes.tolist())
        new = [code for code in dict.fromkeys(codes.tolist()) if code not in self._present]
        self._present.update(new)
        added = np.array(new, dtype=np.uint64)
        end = self._size + len(added)
        if end > len(self._codes):  # twice the room: a column more at a time would copy all for each
            room = 2 * end - self._size
            self._codes = np.concatenate([self.codes, np.zeros(room, dtype=np.uint64)])
            self._counts = np.concatenate([self.counts, np.ones(room, dtype=np.int64)])
            self._signs = np.concatenate([self.signs, np.zeros((self.bits, room), dtype=np.float32)], axis=1)
        if len(added):
            self._codes[self._size : end] = added
            self._signs[:, self._size : end] = _signs(added, self.bits)
        self._size = end
        self.members += len(added)
        return added


def cheapest(
    directories: Sequence[KeptDirectory], margins: NDArray[np.float32], budget: int
) -> list[list[NDArray[np.uint64]]]:
    """For each query the cheapest buckets over all tables until they hold `budget` members.

    margins : (n_queries, tables, bits) float32. Returns, for each query and table, uint64 codes, cheapest first. Ties
    are broken by table, then code. Members found through several tables count once for each.
    """
    members = sum(directory.members for directory in directories)
    if members <= budget:
        return [[directory.codes for directory in directories] for _ in margins]
    counts = _joined([directory.counts for directory in directories])
    codes = _joined([directory.codes for directory in directories])
    ends = np.cumsum([len(directory) for directory in directories])
    found = []
    for row in _costs(directories, margins):
        taken = _first(row, counts, members, budget)
        keys = [codes[taken], row[taken]]
        table = np.empty(0, np.intp)
        if len(directories) > 1:
            table = np.searchsorted(ends, taken, side="right")
            keys.insert(1, table)
        order = np.lexsort(keys)
        order = order[: int(counts[taken[order]].cumsum().searchsorted(budget)) + 1]
        chosen = keys[0][order]
        if len(directories) > 1:
            table = table[order]
            found.append([chosen[table == one] for one in range(len(directories))])
        else:
            found.append([chosen])
    return found


def _costs(directories: Sequence[KeptDirectory], margins: NDArray[np.float32]) -> NDArray[np.float32]:
    """Twice the cost of each bucket, in units of each query's own, all tables side by side; of a single table less what
    all its buckets have in common. (n_queries, n_buckets).
    """
    sizes = np.abs(margins)
    largest = sizes.max(axis=(1, 2), keepdims=True)
    units = np.rint(margins * (np.float32(_UNITS) / np.where(largest > 0, largest, np.float32(1))))
    # at least one: else a full bucket on the other side of a margin of next to nothing could come before its own
    nothing = (units == 0) & (largest > 0)
    if nothing.any():
        units[nothing] = np.where(margins[nothing] >= 0, np.float32(1), np.float32(-1))
    if len(directories) == 1:  # Σ|m| is the same for all buckets of a table
        return np.asarray(-units[:, 0] @ directories[0].signs)
    return _joined(
        [
            np.abs(units[:, table]).sum(axis=1, keepdims=True) - units[:, table] @ directory.signs
            for table, directory in enumerate(directories)
        ]
    )


def _first(costs: NDArray[np.float32], counts: NDArray[np.int64], members: int, budget: int) -> NDArray[np.intp]:
    """Positions of all buckets up to some cost, in no order, which hold the budget: few more than that, most often.

    members : the sum of the counts.
    """
    sample = costs[:: max(1, len(costs) // _SAMPLE)].copy()  # partitioned in half the time of a stride
    share = min(1.0, 1.5 * budget / max(1, members))
    while share < 1.0:
        rank = int(share * len(sample)) + 4
        if rank >= len(sample):
            break
        near = np.flatnonzero(costs <= np.partition(sample, rank)[rank])
        if int(counts[near].sum()) >= budget:
            return near
        share *= 4
    return np.arange(len(costs))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Side by side; a single table, as most indexes have, is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _signs(codes: NDArray[np.uint64], bits: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(unpack_bits(codes, bits).T.astype(np.float32) * np.float32(2) - np.float32(1))
