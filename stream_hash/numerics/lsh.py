"""Locality-sensitive hashing as an estimator: what learned hyperplanes are compared with.

Source: see hyperplanes.py. Nothing is learned but the mean, which the hyperplanes pass through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.hyperplanes import gaussian_hyperplanes
from stream_hash.numerics.sign_bits import SignBits
from stream_hash.numerics.whole_numbers import check_whole


class LSH(SignBits, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Gaussian hyperplanes through the mean of the training vectors.

    n_bits : how many hyperplanes, 1 or more. random_state : a generator, or the seed of one.

    After `fit`:
    hyperplanes_ : float32 of shape (n_bits, n_features). offsets_ : float32 of shape (n_bits,).
    """

    def __init__(self, n_bits: int = 16, random_state: int | np.random.Generator = 0) -> None:
        self.n_bits = n_bits
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> LSH:  # noqa: ARG002 - the estimators' signature
        """Draw the hyperplanes. X : float of shape (n_samples, n_features), finite, in two different rows or more.

        Raises UnlearnableError, a ValueError, for vectors that are all the same or that float32 cannot hold, and for
        n_bits that is no count.
        """
        check_whole("n_bits", self.n_bits)
        x = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        hyperplanes = gaussian_hyperplanes(np.random.default_rng(self.random_state), self.n_bits, x.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large is found, and named, below
            offsets = -hyperplanes @ x.mean(axis=0).astype(np.float32)
            spread = (x.max(axis=0) - x.min(axis=0)).max()
        largest = max(x.max(), -x.min())
        if not np.isfinite(offsets).all():
            raise UnlearnableError(
                f"coordinates of up to {largest:.3g} are too large",
                why="hyperplanes through the mean are stored as float32",
                remedy="divide the vectors by a constant, or scale each to length 1",
            )
        if not spread > np.finfo(np.float32).eps * largest:
            raise UnlearnableError(
                f"all {len(x)} vectors are the same (n_features = {x.shape[1]})",
                why="they lie on the mean, which all hyperplanes go through",
                remedy="check the vectors: two or more must differ",
            )
        self.hyperplanes_ = hyperplanes
        self.offsets_ = offsets
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """The margins. X : (n_samples, n_features). Returns (n_samples, n_bits)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return np.asarray(x @ self.hyperplanes_.T + self.offsets_)
