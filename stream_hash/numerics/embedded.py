"""Hyperplanes among embedded vectors: their margins, with signs that do not depend on the batch.

Vectors are first embedded so that the angle of what is embedded follows the metric:

cosine  x ↦ x/‖x‖ − mean                              items and queries alike
l2      x ↦ x − mean                                  items and queries alike
inner   x ↦ (y, √(1 − ‖y‖²)), y = (x − mean)/scale    items; scaled down further if ‖y‖ > 1
        q ↦ (q/‖q‖, 0)                                queries

The last is SIMPLE-LSH (B. Neyshabur & N. Srebro, "On symmetric and asymmetric LSHs for inner product
search", ICML 2015, section 4); taking the mean off the items lowers every inner product with a query by
the same amount, and so leaves their order.

A bit must not depend on what else was in the batch, or a stored code would not be the hash of its vector
for ever. Float32 matrix products do depend on it, in the last digits. So a margin closer to zero than
their rounding error is computed again, row by row, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_hash.settings import Metric

MANY_DOUBTS = 0.05
"""The share of margins within rounding error from which a second product, in float64, costs less than single sums."""

EXACT_BYTES = 8 * 1024 * 1024
"""Memory for the rows of single sums that are computed together."""


@dataclass(frozen=True)
class EmbeddedHyperplanes:
    """hyperplanes : (n_hyperplanes, embedded dimension) float32. offsets : (n_hyperplanes,) float32.

    mean : (dimension,) float32. scale : largest norm of an item about the mean, used by `inner` only.
    """

    metric: Metric
    hyperplanes: NDArray[np.float32]
    offsets: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: float = 1.0

    @property
    def dimension(self) -> int:
        return len(self.mean)

    @cached_property
    def _normals(self) -> NDArray[np.float32]:
        """The hyperplanes' normals in the coordinates of vectors, without SIMPLE-LSH's extra coordinate."""
        return self.hyperplanes[:, : self.dimension]

    @cached_property
    def _lift(self) -> NDArray[np.float64]:
        """The hyperplanes' weights of SIMPLE-LSH's extra coordinate."""
        return np.asarray(self.hyperplanes[:, self.dimension :].sum(axis=1, dtype=np.float64))

    @cached_property
    def _at_mean(self) -> NDArray[np.float64]:
        return np.asarray(self._normals.astype(np.float64) @ self.mean.astype(np.float64))

    @cached_property
    def _lengths(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(self.hyperplanes.astype(np.float64), axis=1))

    @cached_property
    def _fine_normals(self) -> NDArray[np.float64]:
        return np.ascontiguousarray(self._normals, dtype=np.float64)

    @cached_property
    def _fine_offsets(self) -> NDArray[np.float64]:
        return np.asarray(self.offsets - self._at_mean)

    @cached_property
    def _fine_slack(self) -> NDArray[np.float64]:
        return np.asarray(4 * (self.dimension + 4) * 2.0**-53 * np.abs(self.offsets))

    @cached_property
    def _mean_length(self) -> float:
        return float(np.linalg.norm(self.mean))

    def margins(self, vectors: NDArray[np.float32], *, query: bool = False) -> NDArray[np.float64]:
        """w·z + b for every hyperplane, with its exact sign. vectors : (n, dimension). Returns (n, n_hyperplanes)."""
        if len(vectors) == 1 and (query or self.metric != "inner"):
            margins, slack = self._fine_margins(vectors.astype(np.float64), query)
        else:
            margins, slack = self._rounded_margins(vectors, query)
        doubtful = np.abs(margins) < slack
        if np.count_nonzero(doubtful) > MANY_DOUBTS * doubtful.size:  # a finer product settles nearly all
            margins, slack = self._rounded_margins(vectors.astype(np.float64), query)
            doubtful = np.abs(margins) < slack
        rows, columns = np.nonzero(doubtful)
        if len(rows):
            margins[rows, columns] = self._exact_margins(vectors, rows, columns, query)
        return margins

    def rounded(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Margins of items by a product in float64, and how far each may be off. Both (n, n_hyperplanes)."""
        return self._rounded_margins(vectors.astype(np.float64), query=False)

    def projected(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """Margins of queries up to rounding; none depends on the other queries. Returns (n, n_hyperplanes)."""
        return self._fine_margins(queries.astype(np.float64), self.metric == "inner")[0]

    def exact(self, vectors: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """All margins of some items, each summed along its own row. Returns (len(rows), n_hyperplanes)."""
        count = len(self.offsets)
        columns = np.tile(np.arange(count), len(rows))
        return self._exact_margins(vectors, np.repeat(rows, count), columns, query=False).reshape(-1, count)

    def _rounded_margins(self, vectors: NDArray[Any], query: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Margins by one matrix product in the vectors' own precision, and how far they may be off."""
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        factor, lift = self._embedding(vectors, lengths, query)
        margins = (vectors @ self._normals.T).astype(np.float64)
        if not query and self.metric != "cosine":
            margins -= self._at_mean
        margins *= factor[:, None]
        if self.metric == "cosine":
            margins -= self._at_mean
        margins += lift[:, None] * self._lift + self.offsets
        # |rounded dot product − exact| ≤ dimension · unit · ‖w‖‖x‖ (N. Higham, "Accuracy and stability of
        # numerical algorithms", equation 3.5); four times that covers the embedding's own rounding.
        unit = float(np.finfo(vectors.dtype).eps) / 2
        reach = (lengths + self._mean_length) * factor + 1.0
        slack = reach[:, None] * self._lengths + np.abs(self.offsets)
        return margins, 4 * (self.dimension + 4) * unit * slack

    def _fine_margins(self, x: NDArray[np.float64], query: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As `_rounded_margins`, in float64 and each a sum along rows of its own: for queries, which are few."""
        lengths = np.sqrt(np.vecdot(x, x))
        factor = 1.0 / np.where(lengths > 0, lengths, 1.0) if query or self.metric == "cosine" else np.ones(len(x))
        margins = np.vecdot(self._fine_normals, x[:, None])
        margins *= factor[:, None]
        margins += self.offsets if query else self._fine_offsets
        # the bound of `_rounded_margins`
        reach = (lengths + self._mean_length) * factor + 1.0
        slack = self._lengths * (4 * (self.dimension + 4) * 2.0**-53 * reach)[:, None]
        slack += self._fine_slack
        return margins, slack

    def _embedding(
        self, vectors: NDArray[Any], lengths: NDArray[np.float64], query: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What a vector is multiplied by, and its extra coordinate: two arrays of shape (n,)."""
        none = np.zeros(len(vectors))
        if self.metric == "cosine" or query:
            return 1.0 / np.where(lengths > 0, lengths, 1.0), none
        if self.metric == "l2":
            return np.ones(len(vectors)), none
        centred = vectors - self.mean
        norms = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64)) / self.scale
        inside = np.maximum(norms, 1.0)
        return 1.0 / (self.scale * inside), np.sqrt(np.maximum(0.0, 1.0 - (norms / inside) ** 2))

    def _exact_margins(
        self, vectors: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp], query: bool
    ) -> NDArray[np.float64]:
        """Single margins in float64. Each is a sum along its own row, whatever else is asked for."""
        exact = np.empty(len(rows))
        step = max(1, EXACT_BYTES // (8 * self.dimension))
        for start in range(0, len(rows), step):
            piece = slice(start, start + step)
            x = vectors[rows[piece]].astype(np.float64, order="C")  # a sum's order follows how its row lies
            w = self.hyperplanes[columns[piece]].astype(np.float64, order="C")
            if self.metric == "cosine" or query:
                lengths = np.sqrt((x * x).sum(axis=1))
                x /= np.where(lengths > 0, lengths, 1.0)[:, None]
            if not query:
                x -= self.mean
            lifted = (x * w[:, : self.dimension]).sum(axis=1)
            if self.metric == "inner" and not query:
                norms = np.sqrt((x * x).sum(axis=1)) / self.scale
                inside = np.maximum(norms, 1.0)
                extra = np.sqrt(np.maximum(0.0, 1.0 - (norms / inside) ** 2))
                lifted = lifted / (self.scale * inside) + extra * w[:, self.dimension :].sum(axis=1)
            exact[piece] = lifted + self.offsets[columns[piece]]
        return exact
