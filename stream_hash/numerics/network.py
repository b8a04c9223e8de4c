"""A learned map from vectors to margins, as an index serves it: numpy alone, and signs that do not depend on the batch.

It is a radial basis function network (D. Broomhead & D. Lowe, "Multivariable functional interpolation and adaptive
networks", Complex Systems 1988), or one without the radial functions:

    y = x, coordinates raised to a power, signs kept, and brought to unit length, where asked for
    z = y − mean
    h_j = exp(−gamma·‖z − landmark_j‖²)          where there are landmarks; else h = z
    h ← max(0, W·h + b) or softmax(W·h + b)      for each layer but the last
    margins = W·h + b, and after them V·z + v       where some bits are plain hyperplanes

A bit must not depend on what else was in the batch. So all rows go through float32 matrix products; those with a margin
closer to zero than rounding can have moved it go through float64 ones; and what is doubtful still is computed one
row at a time, by operations of a shape that is always the same. This last defines the bit. A row that comes alone, as
a query does, is first tried in fewer calls: single_row.py.
How far rounding can have moved a margin: rounding.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError
from stream_hash.numerics.rounding import (
    EXP_ROUNDING,
    LAMBDA,
    PIECE,
    Floats,
    accumulated,
    dots,
    norms,
    powered,
    product,
    softmax,
)
from stream_hash.numerics.single_row import SingleRow
from stream_hash.numerics.stored import stored_array, stored_float32, stored_number

Activation: TypeAlias = Literal["none", "relu", "softmax"]
BLOCK_BYTES: Final = 4 * 1024 * 1024
"""What the widest layer of the rows that go through together takes: it stays in the cache between its steps."""


@dataclass(frozen=True)
class Layer:
    """weights : (n_out, n_in) float32. offsets : (n_out,) float32. then : what is made of W·h + b."""

    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]
    then: Activation = "none"


@dataclass(frozen=True)
class _Numbers:
    """The network's parameters in one precision, in the shapes that matrix products want."""

    mean: Floats
    twice: Floats  # 2·gamma·landmarks
    squares: Floats  # gamma·‖landmark‖²
    powers: Floats  # squares of the first layer's weights
    weights: list[Floats]  # of every layer, then of what is plain
    offsets: list[Floats]


@dataclass(frozen=True)
class Network:
    """mean : (dimension,) float32. landmarks : (n_landmarks, dimension) float32, about the mean, or None.

    gamma : of the radial functions; 0 without landmarks. layers : one or more, the last with then = "none".
    plain : hyperplanes in the space of z, whose margins come after those of the layers; then = "none".
    """

    power: float
    unit_length: bool
    mean: NDArray[np.float32]
    landmarks: NDArray[np.float32] | None
    gamma: float
    layers: tuple[Layer, ...]
    plain: Layer | None = None

    @property
    def dimension(self) -> int:
        return len(self.mean)

    @property
    def n_out(self) -> int:
        return len(self.layers[-1].offsets) + (0 if self.plain is None else len(self.plain.offsets))

    @property
    def _steps(self) -> tuple[Layer, ...]:
        return self.layers if self.plain is None else (*self.layers, self.plain)

    @cached_property
    def _single(self) -> _Numbers:
        return self._numbers(np.dtype(np.float32))

    @cached_property
    def _double(self) -> _Numbers:
        return self._numbers(np.dtype(np.float64))

    @cached_property
    def _alone(self) -> SingleRow:
        return SingleRow(self)

    @cached_property
    def _exact_landmarks(self) -> NDArray[np.float64]:
        return np.ascontiguousarray(self._landmarks, dtype=np.float64)

    @property
    def _landmarks(self) -> NDArray[np.float32]:
        return np.empty((0, self.dimension), np.float32) if self.landmarks is None else self.landmarks

    @cached_property
    def _lengths(self) -> list[NDArray[np.float64]]:
        """‖w‖ of every row of every layer, then of what is plain."""
        return [np.linalg.norm(layer.weights.astype(np.float64), axis=1) for layer in self._steps]

    @cached_property
    def _reach(self) -> float:
        """The largest ‖landmark‖."""
        return float(np.linalg.norm(self._landmarks.astype(np.float64), axis=1).max(initial=0.0))

    @cached_property
    def _mean_length(self) -> float:
        return float(np.linalg.norm(self.mean.astype(np.float64)))

    def _numbers(self, dtype: np.dtype[Any]) -> _Numbers:
        exact = self._landmarks.astype(np.float64)
        return _Numbers(
            self.mean.astype(dtype),
            (2 * self.gamma * exact).astype(dtype),
            (self.gamma * np.square(exact).sum(axis=1)).astype(dtype),
            np.square(self.layers[0].weights.astype(dtype)),
            [layer.weights.astype(dtype) for layer in self._steps],
            [layer.offsets.astype(dtype) for layer in self._steps],
        )

    def margins(self, vectors: Floats) -> NDArray[np.float64]:
        """Margins with their exact signs. vectors : (n, dimension) float32, finite. Returns (n, n_out)."""
        if len(vectors) == 1:
            with np.errstate(under="ignore"):
                alone = self._alone.rounded(vectors[0])
            if alone is not None and bool((np.abs(alone[0]) > alone[1]).all()):
                return alone[0][None]
        result = np.empty((len(vectors), self.n_out))
        widest = max(len(self._landmarks), *(len(layer.offsets) for layer in self.layers), self.dimension)
        step = max(1, BLOCK_BYTES // (4 * widest))
        # what overflows is not finite, and so in doubt, and so computed in a finer way
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            for start in range(0, len(vectors), step):
                result[start : start + step] = self._settled(vectors[start : start + step])
        return result

    def _settled(self, x: Floats) -> NDArray[np.float64]:
        margins, slack = self._rounded(x)
        rows = _doubtful(margins, slack)
        if len(rows):
            margins[rows], slack = self._rounded(x[rows].astype(np.float64))
            rows = rows[_doubtful(margins[rows], slack)]
        if len(rows):
            # an item that repeats need not be computed again, and those on a hyperplane may be many
            different, which = np.unique(x[rows], axis=0, return_inverse=True)
            margins[rows] = np.array([self._exact(row) for row in different.astype(np.float64)])[which.reshape(-1)]
        return margins

    def _exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The margins of one vector: the definition of what is served. x : (dimension,). Returns (n_out,)."""
        y = powered(x, self.power)
        if self.unit_length:
            y = y / (np.sqrt((y * y).sum()) or 1.0)
        z = h = y - self._double.mean
        if self.landmarks is not None:
            apart = self._exact_landmarks - h
            h = np.exp(-self.gamma * (apart * apart).sum(axis=1))
        # what is plain has numbers and is no layer
        for layer, weights, offsets in zip(self.layers, self._double.weights, self._double.offsets, strict=False):
            h = (weights * h).sum(axis=1) + offsets
            if layer.then == "relu":
                h = np.maximum(h, 0.0)
            elif layer.then == "softmax":
                h = np.exp(h - h.max())
                h = h / h.sum()
        if self.plain is not None:
            h = np.concatenate([h, (self._double.weights[-1] * z).sum(axis=1) + self._double.offsets[-1]])
        return np.asarray(h)

    def _rounded(self, x: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Margins by matrix products in the precision of x, and how far they may be from the exact ones."""
        numbers = self._single if x.dtype == np.float32 else self._double
        unit = float(np.finfo(x.dtype).eps) / 2
        h, error = self._centred(x, numbers, unit)
        plain = None if self.plain is None else self._affine(h, error, numbers, len(self.layers), unit)
        apart: NDArray[np.float64] | None = None
        if self.landmarks is not None:
            h, error, apart = self._radial(h, error, numbers, unit)
        for number, layer in enumerate(self.layers):
            raw, errors = self._affine(h, error, numbers, number, unit)
            if apart is not None:
                errors += apart
                apart = None
            if layer.then == "relu":
                h, error = np.maximum(raw, 0).astype(x.dtype), norms(errors) + unit * norms(raw)
            elif layer.then == "softmax":
                h, error = softmax(raw, errors.max(axis=1), x.dtype)
        if plain is not None:
            raw, errors = np.hstack([raw, plain[0]]), np.hstack([errors, plain[1]])
        # float64: the exact margins are themselves rounded as much
        return raw, errors * (1.01 if x.dtype == np.float32 else 3.0)

    def _affine(
        self, h: Floats, error: NDArray[np.float64], numbers: _Numbers, step: int, unit: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """W·h + b of a step, and a bound on the error of each. error : of h, in Euclidean norm."""
        raw = product(h, numbers.weights[step])
        raw += numbers.offsets[step]
        terms = min(PIECE, h.shape[1])
        reach = error + accumulated(terms + 4, unit) * (norms(h) + error) + h.shape[1] * np.finfo(h.dtype).tiny
        return raw, np.multiply.outer(reach, self._lengths[step]) + 2 * unit * np.abs(numbers.offsets[step])

    def _centred(self, x: Floats, numbers: _Numbers, unit: float) -> tuple[Floats, NDArray[np.float64]]:
        """z, and a bound on its error in Euclidean norm."""
        relative = 0.0 if self.power == 1.0 else EXP_ROUNDING * unit
        y = powered(x, self.power)
        if self.unit_length:
            lengths = np.sqrt(np.einsum("ij,ij->i", y, y, dtype=np.float64))
            z = y * (1.0 / np.where(lengths > 0, lengths, 1.0)).astype(x.dtype)[:, None]
            z -= numbers.mean
            # of a float64 length, its own sum's rounding counts
            summed = accumulated(x.shape[1], unit) if x.dtype == np.float64 else unit
            relative = 2 * relative + 2 * unit + summed
        else:
            z = y - numbers.mean
        size = norms(z)
        return z, relative * (size + self._mean_length) + unit * size

    def _radial(
        self, z: Floats, error: NDArray[np.float64], numbers: _Numbers, unit: float
    ) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64]]:
        """h of the landmarks; a bound, in Euclidean norm, on the errors that they share; and what their own errors
        come to in each output of the next layer.
        """
        count, dimension = self._landmarks.shape
        size, most = norms(z), self._reach
        h = dots(z, numbers.twice)
        h -= numbers.squares
        h -= (self.gamma * np.einsum("ij,ij->i", z, z, dtype=np.float64)).astype(z.dtype)[:, None]
        np.minimum(h, 0, out=h)
        np.exp(h, out=h)
        shared = self.gamma * (2 * (size + most + error) * error + 2 * unit * size**2)
        factor = np.expm1(shared) + EXP_ROUNDING * unit * np.exp(shared)
        own = self.gamma * unit * (2 * np.sqrt(dimension) * size * most + 4 * (size + most) ** 2)
        # far from all landmarks the argument's error is large, but there is nothing left for it to change
        nearest = np.maximum(0.0, 0.998 * size - error - most)
        root = np.sqrt(count)
        length = norms(h)
        bound = np.fmin(factor * length, length + root * np.exp(-self.gamma * nearest**2))
        bound += root * float(np.finfo(z.dtype).tiny)
        spread = np.sqrt(dots(np.square(h), numbers.powers).astype(np.float64))
        apart = np.expm1(LAMBDA * own)[:, None] * spread
        # nothing times infinity: so far away that no landmark is felt
        return h, bound, np.where(spread > 0, apart, 0.0)

    def to_arrays(self, prefix: str = "network.") -> dict[str, NDArray[Any]]:
        """The network as named arrays; `from_arrays` is the way back."""
        arrays: dict[str, NDArray[Any]] = {
            prefix + "layers": np.array([layer.then for layer in self.layers]),
            prefix + "power": np.array(self.power, dtype=np.float64),
            prefix + "unit_length": np.array(self.unit_length),
            prefix + "mean": self.mean,
            prefix + "gamma": np.array(self.gamma, dtype=np.float64),
        }
        if self.landmarks is not None:
            arrays[prefix + "landmarks"] = self.landmarks
        for number, layer in enumerate(self.layers):
            arrays |= _layer_arrays(f"{prefix}{number}.", layer)
        return arrays if self.plain is None else arrays | _layer_arrays(prefix + "plain.", self.plain)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str = "network.") -> Network:
        """Raises IntegrityError when the arrays are not those of a network."""
        steps = [str(step) for step in stored_array(arrays, prefix + "layers", "U", 1)]
        power, gamma = stored_number(arrays, prefix + "power"), stored_number(arrays, prefix + "gamma")
        known = steps and steps[-1] == "none" and set(steps) <= set(get_args(Activation)) and "none" not in steps[:-1]
        if not known or power <= 0 or gamma < 0:
            raise IntegrityError(f"a network's layers are {steps}, its power {power}, its gamma {gamma}")
        mean = stored_float32(arrays, prefix + "mean", (-1,))
        landmarks, width = None, len(mean)
        if prefix + "landmarks" in arrays:
            landmarks = stored_float32(arrays, prefix + "landmarks", (-1, len(mean)))
            width = len(landmarks)
        layers = []
        for number, step in enumerate(steps):
            layer = _stored_layer(arrays, f"{prefix}{number}.", width)
            width = len(layer.offsets)
            layers.append(replace(layer, then=step))  # type: ignore[arg-type]  # one of Activation, as seen above
        plain = None
        if any(name.startswith(prefix + "plain.") for name in arrays):
            plain = _stored_layer(arrays, prefix + "plain.", len(mean))
        unit_length = bool(stored_array(arrays, prefix + "unit_length", "b", 0))
        return cls(power, unit_length, mean, landmarks, gamma, tuple(layers), plain)


def _layer_arrays(prefix: str, layer: Layer) -> dict[str, NDArray[Any]]:
    return {prefix + "weights": layer.weights, prefix + "offsets": layer.offsets}


def _stored_layer(arrays: Mapping[str, NDArray[Any]], prefix: str, width: int) -> Layer:
    weights = stored_float32(arrays, prefix + "weights", (-1, width))
    return Layer(weights, stored_float32(arrays, prefix + "offsets", (len(weights),)))


def _doubtful(margins: NDArray[np.float64], slack: NDArray[np.float64]) -> NDArray[np.intp]:
    """The rows with a margin whose sign is not certain; one that is not a number is never certain."""
    return np.flatnonzero(~(np.abs(margins) > slack).all(axis=1))
