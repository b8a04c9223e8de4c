"""Graph regularised hashing as the tutorial on learning2hash.github.io does it, to compare with.

It differs from the paper and from `GRH`:
1. S·D⁻¹·L is thresholded before it is blended with L, so that with alpha = 0.5 a disagreement is a tie, and a tie
   is +1; above 0.5 only the graph counts, below it only L.
2. L is the last codes, not the first.
3. The support vector machines fit an intercept that is then dropped: all hyperplanes pass through the mean.
4. A bit that is the same for all items gets a random hyperplane.
Vectors are scaled to unit length and centred, as it does; it starts from Gaussian hyperplanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.graph import LabelGraph
from stream_hash.numerics.labels import read_labels
from stream_hash.numerics.learners import svm_hyperplanes
from stream_hash.numerics.sign_bits import SignBits
from stream_hash.numerics.whole_numbers import check_whole


class TutorialGRH(SignBits, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """n_bits : hyperplanes. n_iter : rounds. alpha : weight of the graph. C : of the support vector machines.

    After `fit`: mean_ : (n_features,), hyperplanes_ : (n_bits, n_features), offsets_ : zeros (n_bits,), codes_ : int8
    (n_samples, n_bits), the targets of the last round, ±1.
    """

    def __init__(
        self, n_bits: int = 16, n_iter: int = 2, alpha: float = 0.5, C: float = 1.0, random_state: Any = None
    ) -> None:
        self.n_bits = n_bits
        self.n_iter = n_iter
        self.alpha = alpha
        self.C = C
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any) -> TutorialGRH:
        """X : (n_samples, n_features). y : labels, as `read_labels` takes them.

        Raises UnlearnableError, a ValueError, for labels of fewer than two classes, for vectors that all point the
        same way, and for n_bits that is no count.
        """
        check_whole("n_bits", self.n_bits)
        if y is None:
            raise UnlearnableError(
                "the tutorial requires y to be passed, but the target y is None",
                remedy="give labels; -1 or None where unknown",
            )
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        classes, member = read_labels(y, len(x))
        if not len(classes):
            raise UnlearnableError("no item has a label", remedy="label items of two classes or more")
        if len(classes) == 1:
            raise UnlearnableError(
                f"all labelled items are of 1 class, {classes.tolist()[0]!r}",
                remedy="give items of two classes or more",
            )
        rng = np.random.default_rng(self.random_state)
        graph = LabelGraph(member)
        x = _unit(x)
        self.mean_ = x.mean(axis=0)
        x -= self.mean_
        if not np.square(x).sum(axis=1).mean() > 1e-20:
            raise UnlearnableError(
                f"all {len(x)} vectors are the same, as they are hashed (n_features = {x.shape[1]})",
                why="a hyperplane cannot separate what is one point after scaling to unit length",
                remedy="check the vectors: two or more must point different ways",
            )
        self.hyperplanes_ = rng.standard_normal((self.n_bits, x.shape[1]))
        self.offsets_ = np.zeros(self.n_bits)
        for _ in range(self.n_iter):
            codes = _signs(x @ self.hyperplanes_.T)
            codes = _signs(self.alpha * _signs(graph.smooth(codes)) + (1.0 - self.alpha) * codes)
            mixed = np.abs(codes.sum(axis=0)) < len(codes)
            self.hyperplanes_ = rng.standard_normal(self.hyperplanes_.shape)
            if mixed.any():
                seed = int(rng.integers(2**31))
                self.hyperplanes_[mixed] = svm_hyperplanes(x, codes[:, mixed], self.C, seed)[0]
            self.codes_ = codes.astype(np.int8)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Margins: float64 of shape (n, n_bits)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray((_unit(x) - self.mean_) @ self.hyperplanes_.T)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []  # bits are uint8, whatever the vectors were
        return tags


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # by a power of two, which changes no digit: squares then neither overflow nor come to nothing
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(lengths > 0, lengths, 1.0))


def _signs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values >= 0, 1.0, -1.0)
