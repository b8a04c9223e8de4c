"""What all hashers share: bits are the signs of margins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin


class SignBits(TransformerMixin):  # type: ignore[misc]  # scikit-learn ships no types
    """`transform` for estimators with `decision_function`."""

    def transform(self, X: ArrayLike) -> NDArray[np.uint8]:
        """Bits, 1 where the margin is 0 or more. X : (n, n_features). Returns uint8 of shape (n, n_bits)."""
        margins: NDArray[Any] = self.decision_function(X)
        return np.asarray(margins >= 0).astype(np.uint8)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # bits are uint8, whatever the vectors were
        return tags
