"""The update of graph regularised hashing: codes drawn towards those of their neighbours.

    L ← sgn(alpha·S·D⁻¹·L + (1 − alpha)·L₀)

S. Moran & V. Lavrenko, "Graph Regularised Hashing", ECIR 2015, equation 2. Departure: a tie keeps L₀.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.code_words import distinct_columns
from stream_hash.numerics.feature_maps import FeatureMap, Matrix
from stream_hash.numerics.graph import Graph

REDRAWS = 10


def signs(margins: NDArray[np.floating]) -> NDArray[np.float64]:
    """±1, a zero counting as +1."""
    return np.where(margins >= 0, 1.0, -1.0)


def smoothed(codes: NDArray[np.float64], start: NDArray[np.float64], graph: Graph, alpha: float) -> NDArray[np.float64]:
    """The update. codes, start : ±1 of shape (n, n_bits), L and L₀. Returns ±1 of that shape."""
    blend = alpha * graph.smooth(codes) + (1.0 - alpha) * start
    # sums of ±1 shares that cancel leave rounding errors behind
    return np.where(np.abs(blend) < 1e-12, start, np.sign(blend))


def two_sided(codes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which bits take both values: (n_bits,)."""
    return np.asarray(np.abs(codes.sum(axis=0)) < len(codes))


def draw_apart(
    rng: np.random.Generator,
    features: Matrix,
    weights: NDArray[np.float64],
    offsets: NDArray[np.float64],
    graph: Graph,
    alpha: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hyperplanes to start from, drawn again while their smoothed bit is constant or repeats an earlier one.

    features : (n, n_features). weights : (n_bits, n_features). offsets : (n_bits,). Returns both.
    After REDRAWS attempts what still repeats is left: few classes have few ways to be split.
    """
    weights, offsets = weights.copy(), offsets.copy()
    middle = features.mean(axis=0)
    for _ in range(REDRAWS):
        start = signs(features @ weights.T + offsets)
        again = ~distinct_columns(smoothed(start, start, graph, alpha).astype(np.int8))
        if not again.any():
            break
        weights[again] = rng.standard_normal((int(again.sum()), weights.shape[1]))
        offsets[again] = -weights[again] @ middle
    return weights, offsets


def in_rows(feature_map: FeatureMap, x: Matrix, weights: Matrix, offsets: Matrix, rows: int = 1_024) -> Matrix:
    """The map's margins, a few rows at a time: what lies between stays in the processor's cache."""
    result = np.empty((len(x), len(weights)), dtype=x.dtype)
    for first in range(0, len(x), rows):
        result[first : first + rows] = feature_map.margins(x[first : first + rows], weights, offsets)
    return result
