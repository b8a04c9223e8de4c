"""What makes the 39 bits that each member of a bucket carries, by which candidates are pruned.

Either the sides of 39 hyperplanes, or the numbers of the nearest centroids in five subspaces (product_quantiser.py),
whose 40 directions then stand in the hyperplanes' place. Which of them: learned_signature.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics import product_quantiser
from stream_hash.numerics.asymmetric import byte_tables
from stream_hash.numerics.codes import pack_bits
from stream_hash.numerics.embedded import EmbeddedHyperplanes
from stream_hash.settings import SIGNATURE_BITS


@dataclass(frozen=True)
class Centroids:
    """places : float32 (1152, 8), subspace after subspace. taken_off : float32 (1152,), as `by_byte` takes them."""

    places: NDArray[np.float32]
    taken_off: NDArray[np.float32]


@dataclass(frozen=True)
class Signature(EmbeddedHyperplanes):
    """centroids : None for the signs of 39 hyperplanes."""

    centroids: Centroids | None = None

    def codes(self, vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
        """The bits of items. vectors : (n, dimension). Returns uint64 (n,); none depends on the others."""
        if self.centroids is None:
            return pack_bits(self.margins(vectors) >= 0)
        projected, slack = self.rounded(vectors)
        codes, doubtful = product_quantiser.nearest_cells(projected, slack, self.centroids.places)
        if len(doubtful):
            exact = self.exact(vectors, doubtful)
            codes[doubtful] = product_quantiser.nearest_cells_exactly(exact, self.centroids.places)
        return codes

    def tables(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """What each byte of a signature adds to a query's score. queries : (n, dimension).

        Returns float32 (n, 5, 256); no entry depends on the other queries.
        """
        projected = self.projected(queries)
        if self._by_byte is None:
            return byte_tables(projected)
        return product_quantiser.score_tables(projected, *self._by_byte)

    @cached_property
    def _by_byte(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        if self.centroids is None:
            return None
        return product_quantiser.by_byte(self.centroids.places, self.centroids.taken_off)


def rows_of(centroids: Centroids | None) -> int:
    """How many hyperplanes a signature has."""
    return SIGNATURE_BITS if centroids is None else product_quantiser.ROWS
