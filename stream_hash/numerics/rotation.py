"""A rotation learned without labels, so that the signs of the coordinates lose little: ITQ.

Source: Y. Gong & S. Lazebnik, "Iterative quantization: a Procrustean approach to learning binary codes",
CVPR 2011, section 3. With V the centred vectors on their principal directions and R orthogonal, minimise

    Q(B, R) = ‖B − V·R‖²                                                            (equation 2)

in turns: B = sgn(V·R) for a fixed R; for a fixed B, R = Ŝ·Sᵀ from the singular vectors of Vᵀ·B = Ŝ·Ω·Sᵀ.
Neither step can raise Q, so the losses never rise.

Our departures:
1. More bits than principal directions: V is filled up with columns of zeros and R starts as a random orthogonal
   matrix of n_bits × n_bits, so that its rows on the true directions are a random orthonormal frame that the
   turns then improve. The paper stops at n_bits = rank.
2. More principal directions than bits (n_components): R has orthonormal columns, and what the turns lower is
   ‖V − B·Rᵀ‖², which is the same as Q where R is square. The bits then see variance the paper throws away.
3. whitening: V's columns are divided by their variances, as shares of the largest, to that power, 0 to 1/2. A little
   of it makes bits less alike.
4. The loss is reported divided by the count of items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.sign_bits import SignBits
from stream_hash.numerics.whole_numbers import check_whole


class ITQ(SignBits, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Hyperplanes through the mean of the training vectors, by iterative quantisation.

    n_bits : how many hyperplanes, 1 or more. n_components : principal directions to rotate; None for n_bits; no more
    than there are is taken. whitening : 0 for the paper, up to 0.5; for signatures of 39 bits take 96 components and
    0.1, which did well on CIFAR-10's GIST. n_iter : turns, 0 or more; 0 is PCA under a random rotation.
    random_state : seeds the first rotation: None, an int, or a numpy RandomState or Generator.

    After `fit`:
    hyperplanes_ : float64 of shape (n_bits, n_features), their normals. offsets_ : float64 of shape (n_bits,).
    quantisation_losses_ : float64 of shape (n_iter + 1,), Q divided by the count of items, before the first turn
    and after each; infinite for vectors so large that their squares are.
    """

    def __init__(
        self,
        n_bits: int = 16,
        *,
        n_components: int | None = None,
        whitening: float = 0.0,
        n_iter: int = 50,
        random_state: Any = None,
    ) -> None:
        self.n_bits = n_bits
        self.n_components = n_components
        self.whitening = whitening
        self.n_iter = n_iter
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> ITQ:  # noqa: ARG002  # scikit-learn's signature
        """X : float of shape (n_samples, n_features), finite, in two different rows or more.

        Raises UnlearnableError, a ValueError, for vectors that are all equal and parameters outside their range.
        """
        wanted = self.n_bits if self.n_components is None else self.n_components
        check_whole("n_bits", self.n_bits)
        check_whole("n_components", wanted)
        check_whole("n_iter", self.n_iter, least=0)
        if not 0 <= self.whitening <= 0.5:
            raise UnlearnableError(f"whitening is {self.whitening}", remedy="take 0 to 0.5")
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        # a power of two, so that no digit changes; without it squares overflow, or come to nothing
        unit = np.ldexp(1.0, int(np.frexp(np.abs(x).max())[1]) - 1)
        x = x / unit
        mean = x.mean(axis=0)
        size = np.square(x).sum(axis=1).mean()
        # here already: the solver subtracts the mean's square from a large matrix, and little would be left of either
        x -= mean
        count, dimension = x.shape
        # beneath this, a variance is what rounding left of a constant
        least = 1e-24 * size
        if not np.square(x).sum(axis=1).mean() > least:
            raise UnlearnableError(
                f"all {count} training vectors are equal",
                why="there is no direction to cut across",
                remedy="check the vectors: two or more must differ",
            )
        solver = "covariance_eigh" if count > dimension else "full"
        pca = PCA(min(wanted, count, dimension), svd_solver=solver).fit(x)
        used = pca.explained_variance_ > least
        directions = np.zeros((max(self.n_bits, int(used.sum())), dimension))
        scale = (pca.explained_variance_[used] / pca.explained_variance_[0]) ** -self.whitening
        directions[: len(scale)] = pca.components_[used] * scale[:, None]
        rotation = self._rotation(x @ directions.T, unit)
        self.hyperplanes_ = rotation.T @ directions
        self.offsets_ = -self.hyperplanes_ @ mean * unit
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Margins w·x + b. X : float of shape (n, n_features). Returns float64 of shape (n, n_bits)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return np.asarray(x @ self.hyperplanes_.T + self.offsets_)

    def _rotation(self, v: NDArray[np.float64], unit: np.float64) -> NDArray[np.float64]:
        """R, and the losses on the way. V = unit·v. v : (n, m), m ≥ n_bits. Returns (m, n_bits)."""
        width = v.shape[1]
        draw = check_random_state(self.random_state).standard_normal((width, width))
        rotation = np.linalg.qr(draw)[0][:, : self.n_bits]
        size = np.square(v).sum()
        losses = []
        for turn in range(self.n_iter + 1):
            rotated = v @ rotation
            # ‖V − B·Rᵀ‖², written out: RᵀR is the identity
            with np.errstate(over="ignore"):
                losses.append(self.n_bits + unit * (unit * size - 2 * np.abs(rotated).sum()) / len(v))
            if turn < self.n_iter:
                left, _, right = np.linalg.svd(v.T @ np.where(rotated >= 0, 1.0, -1.0), full_matrices=False)
                rotation = left @ right
        self.quantisation_losses_ = np.array(losses)
        return np.asarray(rotation)
