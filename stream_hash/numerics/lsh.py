"""Locality-sensitive hashing as an estimator: what learned hyperplanes are compared with.

Source: see hyperplanes.py. Nothing is learned but the mean, which the hyperplanes pass through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.hyperplanes import gaussian_hyperplanes


class LSH:
    """Gaussian hyperplanes through the mean of the training vectors.

    n_bits : how many hyperplanes. random_state : a generator, or the seed of one.

    After `fit`:
    hyperplanes_ : float32 of shape (n_bits, n_features). offsets_ : float32 of shape (n_bits,).
    """

    def __init__(self, n_bits: int = 16, random_state: int | np.random.Generator = 0) -> None:
        self.n_bits = n_bits
        self.random_state = random_state

    def fit(self, X: NDArray[np.floating[Any]], y: object = None) -> LSH:  # noqa: ARG002 - the estimators' signature
        """Draw the hyperplanes. X : (n_samples, n_features)."""
        rng = np.random.default_rng(self.random_state)
        self.hyperplanes_ = gaussian_hyperplanes(rng, self.n_bits, X.shape[1])
        self.offsets_ = -self.hyperplanes_ @ X.mean(axis=0).astype(np.float32)
        return self

    def decision_function(self, X: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """The margins. X : (n_samples, n_features). Returns (n_samples, n_bits)."""
        return np.asarray(X @ self.hyperplanes_.T + self.offsets_)
