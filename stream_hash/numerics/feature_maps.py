"""Feature maps: what stands before the hyperplanes. Vectors in, features out; then bit j is [w_j·f(x) + b_j ≥ 0].

Prepared   x ↦ scale·(x − mean), x raised to a power and brought to unit length first where asked for
Nystrom    the radial basis function kernel exp(−gamma·‖x − y‖²), approximated from a sample of landmarks:
           C. Williams & M. Seeger, "Using the Nyström method to speed up kernel machines", NIPS 2001.
           Departure: k(x)·R⁻¹ with RᵀR = K the Cholesky factor in place of K^(−1/2): a rotation of the same
           features, which no linear learner with a round penalty sees, at a tenth of the cost.
Hidden     max(0, V·f(x) + v): the hidden layer of a small neural network
Joined     the features of two maps, side by side
Posterior  softmax(t·(V·f(x) + v)) − mean: how likely each class is. The softmax saturates: bits of the ordering
           among the likely classes, not of how unlike the others an item is.

A map is arrays and numbers only: `map_to_arrays` names them, `map_from_arrays` is the way back; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError, UnlearnableError

Matrix: TypeAlias = NDArray[Any]
"""float32 or float64; what is computed from float32 vectors stays float32."""


@dataclass(frozen=True)
class Prepared:
    """mean : (dimension,) float64. scale : chosen so that ‖features‖² is 1 on the average."""

    mean: NDArray[np.float64]
    scale: float
    power: float
    unit_length: bool

    def features(self, x: Matrix) -> Matrix:
        """x : (n, dimension). Returns that shape."""
        centred = normalised(x, self.power, self.unit_length) - self.mean.astype(x.dtype)
        return np.asarray(_constant(self.scale, x) * centred)

    def margins(self, x: Matrix, weights: Matrix, offsets: Matrix) -> Matrix:
        """features · weightsᵀ + offsets, without the features. weights : (m, dimension). Returns (n, m)."""
        if self.power != 1.0:
            x = _powered(x, self.power)
        scaled = self.scale * weights
        result = x @ scaled.T.astype(x.dtype)
        if self.unit_length:
            result /= _lengths(x)[:, None]
        result += (offsets - scaled @ self.mean).astype(x.dtype)
        return np.asarray(result)


@dataclass(frozen=True)
class Nystrom:
    """landmarks : (m, dimension), prepared. whitening : (m, m), R⁻¹ above."""

    base: Prepared
    landmarks: NDArray[np.float64]
    gamma: float
    whitening: NDArray[np.float64]

    def features(self, x: Matrix) -> Matrix:
        return np.asarray(self._kernel(x) @ self.whitening.astype(x.dtype))

    def margins(self, x: Matrix, weights: Matrix, offsets: Matrix) -> Matrix:
        return np.asarray(self._kernel(x) @ (self.whitening @ weights.T).astype(x.dtype) + offsets.astype(x.dtype))

    def _kernel(self, x: Matrix) -> Matrix:
        return rbf_kernel(self.base.features(x), self.landmarks.astype(x.dtype), self.gamma)


@dataclass(frozen=True)
class Hidden:
    """weights : (n_hidden, n_features of base). offsets : (n_hidden,)."""

    base: Prepared | Nystrom
    weights: NDArray[np.float64]
    offsets: NDArray[np.float64]

    def features(self, x: Matrix) -> Matrix:
        return np.asarray(np.maximum(self.base.margins(x, self.weights, self.offsets), _constant(0.0, x)))

    def margins(self, x: Matrix, weights: Matrix, offsets: Matrix) -> Matrix:
        return np.asarray(self.features(x) @ weights.T.astype(x.dtype) + offsets.astype(x.dtype))


@dataclass(frozen=True)
class Posterior:
    """weights : (n_classes, n_features of base). offsets, mean : (n_classes,)."""

    base: Prepared | Nystrom | Hidden
    weights: NDArray[np.float64]
    offsets: NDArray[np.float64]
    temperature: float
    mean: NDArray[np.float64]

    def features(self, x: Matrix) -> Matrix:
        scores = _constant(self.temperature, x) * self.base.margins(x, self.weights, self.offsets)
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return np.asarray(scores - self.mean.astype(x.dtype))

    def margins(self, x: Matrix, weights: Matrix, offsets: Matrix) -> Matrix:
        return np.asarray(self.features(x) @ weights.T.astype(x.dtype) + offsets.astype(x.dtype))


SingleMap: TypeAlias = Prepared | Nystrom | Hidden | Posterior


@dataclass(frozen=True)
class Joined:
    """The features of a map, and after them those of the Prepared that it builds upon. width : how many its own are."""

    base: SingleMap
    width: int

    def features(self, x: Matrix) -> Matrix:
        return np.hstack([self.base.features(x), prepared_of(self.base).features(x)])

    def margins(self, x: Matrix, weights: Matrix, offsets: Matrix) -> Matrix:
        learned, plain = weights[:, : self.width], weights[:, self.width :]
        margins = self.base.margins(x, learned, offsets)
        used = plain.any(axis=1)
        margins[:, used] += prepared_of(self.base).margins(x, plain[used], np.zeros(int(used.sum())))
        return margins


FeatureMap: TypeAlias = SingleMap | Joined

KINDS: dict[str, type[FeatureMap]] = {
    "prepared": Prepared,
    "nystrom": Nystrom,
    "hidden": Hidden,
    "posterior": Posterior,
    "joined": Joined,
}


def first_map(feature_map: FeatureMap) -> Prepared | Nystrom:
    """The map that is fixed before anything is learned."""
    while not isinstance(feature_map, (Prepared, Nystrom)):
        feature_map = feature_map.base
    return feature_map


def prepared_of(feature_map: FeatureMap) -> Prepared:
    """What a map does to vectors before anything else."""
    base = first_map(feature_map)
    return base.base if isinstance(base, Nystrom) else base


def fit_prepared(x: Matrix, power: float, unit_length: bool) -> Prepared:
    """Raises UnlearnableError when all vectors are one point."""
    normal = normalised(x, power, unit_length).astype(np.float64)
    # what is not of unit length may be of any: its squares could overflow, or come to nothing
    size = 1.0
    if not unit_length:
        size = max(float(np.abs(normal).max()), 1e-290)
        normal /= size
    mean = normal.mean(axis=0)
    normal -= mean
    variance = float(np.einsum("ij,ij->", normal, normal)) / len(x)
    if not np.isfinite(variance):
        raise UnlearnableError(
            f"the vectors to the power of {power} are infinite",
            remedy="divide the vectors by a constant, or take a smaller power",
        )
    if not variance > 1e-20 * max(1.0, float(mean @ mean)):
        raise UnlearnableError(
            f"all {len(x)} vectors are the same, as they are hashed (n_features = {x.shape[1]})",
            why="a hyperplane cannot separate what is one point"
            + (" after scaling to unit length" if unit_length else ""),
            remedy="check the vectors; where length is what tells them apart, take unit_length=False",
        )
    return Prepared(size * mean, variance**-0.5 / size, power, unit_length)


def fit_nystrom(base: Prepared, x: Matrix, rng: np.random.Generator, n_components: int, gamma: float | None) -> Nystrom:
    """Landmarks are drawn from x without repeating; with fewer vectors than components, all are taken.

    gamma : None for 2 over the median squared distance within a sample of 1,000.
    """
    sample = base.features(x[rng.permutation(len(x))[: max(n_components, 1_000)]]).astype(np.float64)
    if gamma is None:
        distances = _squared_distances(sample[:1_000], sample[:1_000])
        apart = distances[np.triu_indices(len(distances), 1)]
        apart = apart[apart > 1e-12]
        gamma = 2.0 / float(np.median(apart)) if len(apart) else 1.0
    landmarks = sample[:n_components]
    # vectors that repeat make the kernel matrix singular; this much on its diagonal is beneath any noise
    factor = np.linalg.cholesky(rbf_kernel(landmarks, landmarks, gamma) + 1e-6 * np.eye(len(landmarks)))
    from scipy.linalg import solve_triangular

    whitening = solve_triangular(factor, np.eye(len(landmarks)), lower=True).T
    return Nystrom(base, landmarks, gamma, np.ascontiguousarray(whitening))


def rbf_kernel(x: Matrix, y: Matrix, gamma: float) -> Matrix:
    """exp(−gamma·‖x − y‖²) of all pairs: (n, m)."""
    kernel = _squared_distances(x, y)
    kernel *= _constant(-gamma, x)
    return np.asarray(np.exp(kernel, out=kernel))


def map_to_arrays(feature_map: FeatureMap, prefix: str = "map.") -> dict[str, NDArray[Any]]:
    """The map as named arrays; the names of the map it builds upon begin with 'map.base.'."""
    kind = next(name for name, cls in KINDS.items() if isinstance(feature_map, cls))
    arrays: dict[str, NDArray[Any]] = {prefix + "kind": np.array(kind)}
    for name, value in vars(feature_map).items():
        arrays |= map_to_arrays(value, f"{prefix}{name}.") if name == "base" else {prefix + name: np.asarray(value)}
    return arrays


def map_from_arrays(arrays: Mapping[str, NDArray[Any]], prefix: str = "map.") -> FeatureMap:
    """Raises IntegrityError when the arrays are not those of a map."""
    try:
        cls = KINDS[str(arrays[prefix + "kind"])]
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            if name == "base":
                values[name] = map_from_arrays(arrays, prefix + "base.")
            else:
                value = np.asarray(arrays[prefix + name])
                values[name] = value if value.ndim else value.item()
    except KeyError as error:
        raise IntegrityError("a feature map's arrays are not those of a feature map", why=f"no {error}") from error
    return cls(**values)


def _constant(value: float, like: Matrix) -> Any:
    """A number that does not turn float32 into float64."""
    return like.dtype.type(value)


def _powered(x: Matrix, power: float) -> Matrix:
    return np.asarray(np.sign(x) * np.abs(x) ** _constant(power, x))


def normalised(x: Matrix, power: float, unit_length: bool) -> Matrix:
    if power != 1.0:
        x = _powered(x, power)
    if not unit_length:
        return x
    lengths = _lengths(x)
    if not lengths.max(initial=0.0) < np.inf:
        # lengths that the type cannot hold; what is not finite stays so, for the caller to find
        x = np.where(np.isinf(lengths)[:, None], _constant(2.0**-32, x) * x, x)
        lengths = _lengths(x)
    return np.asarray(x / lengths[:, None])


def _lengths(x: Matrix) -> Matrix:
    """Without overflow or underflow of squares. Zero vectors count as of length 1: they have no direction, and stay
    where they are.
    """
    with np.errstate(over="ignore"):
        lengths = np.sqrt(np.vecdot(x, x))
    # beneath this, digits are lost with the squares that are too small
    least = 1e-15 if x.itemsize == 4 else 1e-145
    sure = (lengths > least) & (lengths < np.inf)
    if np.count_nonzero(sure) < len(sure):
        rows = x[~sure]
        largest = np.abs(rows).max(axis=1)
        scaled = rows / np.where(largest == 0, _constant(1.0, x), largest)[:, None]
        with np.errstate(over="ignore"):
            lengths[~sure] = largest * np.sqrt(np.vecdot(scaled, scaled))
        lengths[lengths == 0] = 1.0
    return np.asarray(lengths)


def _squared_distances(x: Matrix, y: Matrix) -> Matrix:
    distances = x @ y.T
    distances *= _constant(-2.0, x)
    distances += np.vecdot(x, x)[:, None]
    distances += np.vecdot(y, y)
    return np.asarray(np.maximum(distances, _constant(0.0, x), out=distances))
