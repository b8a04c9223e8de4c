"""What `scale` indexes: synthetic vectors in clusters, a chunk at a time, as many as are wanted.

1,000 Gaussian centres in 128 dimensions. Each has a share of the items, drawn once and uneven, and about it a Gaussian
cloud in 16 directions of its own, with a little noise in all others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIMENSION = 128
CENTRES, CLOUD_DIRECTIONS = 1_000, 16
SPREAD, NOISE = 1.0, 0.15
CHUNK_ITEMS = 10_000
QUERY_CHUNK = 1_000_000
"""No items come from so late a chunk."""


class Clusters:
    """What the items are drawn from. seed : of centres, directions and shares."""

    def __init__(self, seed: int = 42) -> None:
        rng = np.random.default_rng(seed)
        self._seed = seed
        self._centres = rng.standard_normal((CENTRES, DIMENSION), dtype=np.float32)
        self._directions = rng.standard_normal((CENTRES, CLOUD_DIRECTIONS, DIMENSION), dtype=np.float32) / np.sqrt(
            np.float32(CLOUD_DIRECTIONS)
        )
        self._shares = rng.dirichlet(np.full(CENTRES, 2.0))

    def chunk(self, number: int, count: int = CHUNK_ITEMS) -> NDArray[np.float32]:
        """The first `count` items of a chunk, the same each time. Returns (count, 128)."""
        rng = np.random.default_rng((self._seed, number))
        clusters = rng.choice(CENTRES, CHUNK_ITEMS, p=self._shares)
        cloud = SPREAD * rng.standard_normal((CHUNK_ITEMS, CLOUD_DIRECTIONS), dtype=np.float32)
        vectors = NOISE * rng.standard_normal((CHUNK_ITEMS, DIMENSION), dtype=np.float32)
        vectors += self._centres[clusters]
        order = np.argsort(clusters, kind="stable")  # directions are looked up once a cluster, not once an item
        for rows in np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1):
            vectors[rows] += cloud[rows] @ self._directions[clusters[rows[0]]]
        return vectors[:count]

    def queries(self, count: int) -> NDArray[np.float32]:
        """Vectors of the same kind that are no items, up to 10,000."""
        return self.chunk(QUERY_CHUNK, count)
