"""Which vectors can be hashed and ranked, and what is wrong with the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_hash.settings import Metric

LARGEST_NORM = 1e18
SMALLEST_NORM = 1e-18
"""Norms whose squares float32 can still hold, with room for a sum over 16,384 coordinates."""


def vector_faults(vectors: NDArray[np.float32], metric: Metric) -> dict[int, str]:
    """What is wrong with which rows, as a sentence each; empty when all can be stored.

    vectors : (n, dimension) float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    faults: dict[int, str] = {}
    for row in np.flatnonzero(~np.isfinite(norms)).tolist():
        column = int(np.flatnonzero(~np.isfinite(vectors[row]))[0])
        faults[row] = f"coordinate {column} is {vectors[row, column]}; every coordinate must be finite"
    for row in np.flatnonzero(norms > LARGEST_NORM).tolist():
        faults.setdefault(row, f"the vector's norm is {norms[row]:.3g}; the limit is {LARGEST_NORM:.0g}")
    if metric == "cosine":
        for row in np.flatnonzero(norms < SMALLEST_NORM).tolist():
            faults[row] = f"the vector's norm is {norms[row]:.3g}; under cosine it has no direction"
    return faults
