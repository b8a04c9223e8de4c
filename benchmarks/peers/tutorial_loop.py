"""The tutorial's own query: a dict of buckets, and a loop over every way to flip up to `radius` bits.

Written from the description of "Needles, Haystacks and Hashing" (learning2hash.github.io): ids of 16 bits by the signs
of hyperplanes, a Python dict from id to the rows that have it, for each distance up to the radius a loop over all
combinations of that many bits, and the rows found ranked by cosine distance. Its hyperplanes are those of our
generation 1, so that its candidates have to be ours. The tutorial ranks after each distance, since it measures each,
in a pandas table; here an array is sorted instead, which is faster.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import pairwise_distances

from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import K, Task
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.settings import IndexSettings

DISTRIBUTIONS = ("numpy", "scikit-learn")
NOTE = "In process, the tutorial's table and loop, ranked once. Bytes: its dict, lists and numbers, as Python counts."
RADII = (2, 3, 4, 6, 8)


class TutorialLoop:
    """A table, and the loop over it. model : of 16-bit hyperplanes, one table."""

    def __init__(self, model: Model, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors
        self._bits = model.bits
        self._hyperplanes = model.hyperplanes[: model.bits].astype(np.float64)
        self._mean = model.mean.astype(np.float64)
        self._powers = 1 << np.arange(model.bits - 1, -1, -1)
        self.table: dict[int, list[int]] = {}
        for row, code in enumerate(model.encode(vectors).codes[:, 0].tolist()):
            if code not in self.table:
                self.table[code] = []
            self.table[code].append(row)

    def candidates(self, query: NDArray[np.float32], radius: int) -> set[int]:
        """Rows of all buckets within `radius` of the query's id."""
        found: set[int] = set()
        for _ in self._growing(query, radius, found):
            pass
        return found

    def query(self, query: NDArray[np.float32], radius: int) -> list[int]:
        """The K nearest of them by cosine distance, best first, ranked once."""
        return self._ranked(query, self.candidates(query, radius))

    def query_as_printed(self, query: NDArray[np.float32], radius: int) -> list[int]:
        """The same, ranked after each radius up to the last, as the tutorial does."""
        found: set[int] = set()
        nearest: list[int] = []
        for _ in self._growing(query, radius, found):
            nearest = self._ranked(query, found)
        return nearest

    def _growing(self, query: NDArray[np.float32], radius: int, found: set[int]) -> Iterator[int]:
        """Add the rows at each distance to those found, and yield the distance."""
        unit = query / np.linalg.norm(query.astype(np.float64))
        bits = self._hyperplanes @ (unit - self._mean) >= 0
        for distance in range(radius + 1):
            for flipped in combinations(range(self._bits), distance):
                other = bits.copy()
                other[list(flipped)] ^= True
                bucket = int(other.dot(self._powers))
                if bucket in self.table:
                    found.update(self.table[bucket])
            yield distance

    def _ranked(self, query: NDArray[np.float32], found: set[int]) -> list[int]:
        rows = np.array(list(found), dtype=np.int64)
        if not len(rows):
            return []
        distances = pairwise_distances(self._vectors[rows], query[None, :], metric="cosine").ravel()
        return [int(row) for row in rows[np.argsort(distances, kind="stable")[:K]]]

    def size(self) -> int:
        """Bytes of the dict, its lists, its keys and the rows' numbers."""
        numbers = sum(sys.getsizeof(row) for rows in self.table.values() for row in rows)
        return (
            sys.getsizeof(self.table)
            + numbers
            + sum(sys.getsizeof(code) + sys.getsizeof(rows) for code, rows in self.table.items())
        )


def builds(task: Task, url: str) -> Iterator[Built]:  # noqa: ARG001  # needs no server
    """One table, over the radius."""
    start = time.perf_counter()
    loop = TutorialLoop(lsh_model(IndexSettings(task.items.shape[1]), task.training), task.items)
    seconds = time.perf_counter() - start
    searches = {f"radius {radius}": _opener(loop, radius) for radius in RADII}
    yield Built("16 bits", seconds, loop.size() / len(task.items), searches)


def _opener(loop: TutorialLoop, radius: int) -> Callable[[], Search]:
    return lambda: lambda query: loop.query(query, radius)
