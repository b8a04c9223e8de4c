"""Vectors as the nearest of a few hundred centroids in each of five subspaces: 39 bits that estimate distances.

Source: H. Jégou, M. Douze & C. Schmid, "Product quantization for nearest neighbor search", PAMI 2011; its asymmetric
distance, equation 13: ‖q − x‖² ≈ Σ_g ‖q_g − c_g(x)‖², the query as it is and the item as its centroids. Which
directions make a subspace: T. Ge, K. He, Q. Ke & J. Sun, "Optimized product quantization", PAMI 2014, section 4.2: the
largest variances are dealt out so that the subspaces' products of variances come out alike.

Our departures:
1. Only the WIDTH · 5 directions of the largest variance are looked at; what lies across them is left out.
2. 39 bits are one number of 7 bits and four of 8: the first subspace has half as many centroids.
3. A share of ‖c‖² is taken, 0 to 1, which is chosen by what finds most (learned_signature.py). Centroids are shorter
   than what they stand for: where all items lie about as far out, a smaller share is better.
4. k-means begins with centroids drawn at random, and stops after ten turns: neither cost recall.

Why not the signs of hyperplanes: a sign says nothing of how far off an item lies.
"""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import UnlearnableError

CELLS: Final = (128, 256, 256, 256, 256)
"""Centroids of each subspace. Together 39 bits; the first number is the most significant."""

GROUPS: Final = len(CELLS)
WIDTH: Final = 8
"""Directions of a subspace."""

ROWS: Final = GROUPS * WIDTH
TOTAL: Final = sum(CELLS)
_STARTS: Final = tuple(int(start) for start in np.cumsum((0, *CELLS)))
TURNS: Final = 10
"""Of k-means, at most."""

LEARNED_FROM: Final = 10_000
"""Vectors that centroids are learned from, at most: from 20,000 they were no better than from 5,000."""


def learned_directions(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal directions of the subspaces, eight each. centred : (n, dimension), about their mean.

    Returns (40, dimension). Directions without variance, of which there are some when there are fewer dimensions or
    items, are rows of zeros. Raises UnlearnableError for vectors that are all equal.
    """
    _, sizes, directions = np.linalg.svd(_spread(centred), full_matrices=False)
    if not sizes[0] > 0:
        raise UnlearnableError("all vectors are equal", remedy="check the vectors: two or more must differ")
    kept = sizes[:ROWS] > 1e-12 * sizes[0]
    variances, directions = np.square(sizes[:ROWS][kept]), directions[:ROWS][kept]
    found = np.zeros((ROWS, centred.shape[1]))
    taken, load = np.zeros(GROUPS, dtype=np.intp), np.zeros(GROUPS)
    for size, direction in zip(np.log(variances / variances[-1]) + 1, directions, strict=True):
        group = int(np.argmin(np.where(taken < WIDTH, load, np.inf)))
        found[group * WIDTH + taken[group]] = direction
        taken[group] += 1
        load[group] += size
    return found


def learned_centroids(projected: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """By k-means in each subspace. projected : (n, 40). Returns float32 (1152, 8), subspace after subspace.

    With fewer different vectors than centroids, the last ones repeat the first. Imports scikit-learn.
    """
    from sklearn.cluster import KMeans

    found = np.zeros((_STARTS[-1], WIDTH), dtype=np.float32)
    for group, cells in enumerate(CELLS):
        own = projected[:, _columns(group)]
        different = min(cells, len(np.unique(own, axis=0)))
        centres = (
            KMeans(different, init="random", n_init=1, max_iter=TURNS, random_state=seed).fit(own).cluster_centers_
        )
        of_group = found[_STARTS[group] : _STARTS[group + 1]]
        of_group[:different], of_group[different:] = centres, centres[0]
    return found


def nearest_cells(
    projected: NDArray[np.float64], slack: NDArray[np.float64], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The code of each vector, and the rows of those whose code rounding may have decided.

    projected : (n, 40). slack : the same shape, how far each may be off. Returns uint64 (n,) and rows.
    """
    codes = np.zeros(len(projected), dtype=np.uint64)
    doubtful = np.zeros(len(projected), dtype=np.bool_)
    rows = np.arange(len(projected))
    for group, (start, end) in enumerate(itertools.pairwise(_STARTS)):
        own = centroids[start:end].astype(np.float64)
        z, off = projected[:, _columns(group)], slack[:, _columns(group)]
        distances = np.square(own).sum(axis=1) - 2 * z @ own.T
        # of centroids that repeat the first it does not matter which is taken: the first always is
        distances[:, 1 + np.flatnonzero((own[1:] == own[0]).all(axis=1))] = np.inf
        first = distances.argmin(axis=1)
        least = distances[rows, first]
        distances[rows, first] = np.inf
        # what a difference of two distances may be off by: the projections' errors, and this product's own
        reach = np.abs(z) + off + np.abs(own).max()
        error = 2 * off @ np.ptp(own, axis=0) + 1e-13 * np.square(reach).sum(axis=1)
        doubtful |= distances.min(axis=1) - least <= error
        codes = codes * np.uint64(len(own)) + first.astype(np.uint64)
    return codes, np.flatnonzero(doubtful)


def nearest_cells_exactly(projected: NDArray[np.float64], centroids: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The codes again, each by sums along its own row, whatever else is asked for. projected : (n, 40)."""
    codes = np.zeros(len(projected), dtype=np.uint64)
    for group, (start, end) in enumerate(itertools.pairwise(_STARTS)):
        own = centroids[start:end].astype(np.float64)
        away = projected[:, None, _columns(group)] - own
        codes = codes * np.uint64(len(own)) + np.vecdot(away, away).argmin(axis=1).astype(np.uint64)
    return codes


def squared_lengths(centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (1152,)."""
    lengths = np.square(centroids.astype(np.float64)).sum(axis=1)
    return np.asarray(lengths, dtype=np.float32)


def by_byte(
    centroids: NDArray[np.float32], taken_off: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What `score_tables` multiplies queries by, and takes off, for each value of each byte.

    taken_off : (1152,), from each centroid's twice the inner product with the query.
    Returns (5, 8, 256) and (5, 256).
    """
    twice, less = np.empty((GROUPS, WIDTH, 256)), np.empty((GROUPS, 256))
    for group, (start, end) in enumerate(itertools.pairwise(_STARTS)):
        times = 256 // (end - start)  # the first byte's highest bit is never set
        twice[group] = np.tile(2 * centroids[start:end].T.astype(np.float64), times)
        less[group] = np.tile(taken_off[start:end], times)
    return twice, less


def score_tables(
    projected: NDArray[np.float64], twice: NDArray[np.float64], less: NDArray[np.float64]
) -> NDArray[np.float32]:
    """What each byte of a code adds to a query's score, as `table_scores` takes it (asymmetric.py).

    projected : (n, 40), queries. twice, less : of `by_byte`. Returns float32 (n, 5, 256); no entry depends on the other
    queries.
    """
    # a product for each query and subspace, all of one shape
    scores = np.matmul(projected.reshape(-1, GROUPS, 1, WIDTH), twice)[:, :, 0]
    return np.asarray(scores - less, dtype=np.float32)


def _columns(group: int) -> slice:
    return slice(group * WIDTH, (group + 1) * WIDTH)


def _spread(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smaller matrix of the same principal directions and, but for their sum, variances."""
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred
