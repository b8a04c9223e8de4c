"""The margins of one vector under a network, in as few calls as there can be: what a query pays for its hash.

A batch's arithmetic (network.py) is some eighty numpy calls, each a microsecond and most of them on arrays of one
number when there is one row. Here all that depends on the network alone is made once, bounds are plain floats, and only
the product with the landmarks is in float32, since it alone is large enough for its bytes to count: for 1,000
landmarks of 512 coordinates 40 µs of 70. All else is in float64, whose rounding is nothing beside that product's; so
fewer rows are in doubt than in a batch.

The bits are those of the batch, because neither decides them: a margin closer to zero than its bound goes on to be
settled in finer ways, and so does every vector for which the bounds below are not small (`rounded` returns None).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.rounding import EXP_ROUNDING, LAMBDA, accumulated, powered

if TYPE_CHECKING:
    from stream_hash.numerics.network import Layer, Network

UNIT: Final = 2.0**-24
"""Of float32, in which landmarks are multiplied."""

FINE: Final = 3 * 2.0**-53
"""Of float64, and twice that more for the margins that are compared with, which are rounded as much."""

SMALL: Final = 0.1
"""Relative errors of the radial functions from which the bounds are left to the batch."""

LARGEST: Final = 1e15
"""Lengths whose squares float32 holds with room to spare."""


class _Step:
    """Rows of weights in float64. spreads : whether single errors of what comes in are bounded apart."""

    def __init__(self, layer: Layer, *, spreads: bool) -> None:
        self.then: Literal["none", "relu", "softmax"] = layer.then
        self.weights = layer.weights.astype(np.float64)
        self.offsets = layer.offsets.astype(np.float64)
        self.lengths = np.sqrt(np.square(self.weights).sum(axis=1))
        self.rounding = accumulated(self.weights.shape[1] + 4, FINE)
        self.fixed = 2 * FINE * np.abs(self.offsets)
        self.powers = np.square(self.weights) if spreads else None

    def __call__(self, h: NDArray[np.float64], length: float, error: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """W·h + b, and the error of each. length, error : of h, in Euclidean norm."""
        # not `@`: a BLAS's threads would spin for longer than they work
        raw = np.vecdot(self.weights, h)
        raw += self.offsets
        errors = self.lengths * (error + self.rounding * (length + error))
        errors += self.fixed
        return raw, errors


def _softmax_error(shares: NDArray[np.float64], error: float) -> float:
    """As `rounding.softmax` bounds it, in Euclidean norm. error : of the largest score; beyond 1 nothing is known."""
    moved = shares - shares * shares
    bound = math.expm1(2 * error) * math.exp(2 * error) * math.sqrt(float(moved.dot(moved))) if error < 1 else 2.0
    return min(bound, math.sqrt(2.0)) + (EXP_ROUNDING + len(shares) + 4) * FINE


class SingleRow:
    """A network, ready for one vector at a time."""

    def __init__(self, network: Network) -> None:
        landmarks = None if network.landmarks is None else network.landmarks.astype(np.float64)
        self._power, self._unit_length, self._gamma = network.power, network.unit_length, network.gamma
        self._mean = network.mean.astype(np.float64)
        self._mean_length = float(np.sqrt(np.square(self._mean).sum()))
        self._steps = [_Step(one, spreads=landmarks is not None and not at) for at, one in enumerate(network.layers)]
        self._plain = None if network.plain is None else _Step(network.plain, spreads=False)
        power = 0.0 if network.power == 1.0 else 2 * EXP_ROUNDING
        self._relative = (power + len(self._mean) + 8) * FINE
        self._twice: NDArray[np.float32] | None = None
        if landmarks is not None:
            squares = np.square(landmarks).sum(axis=1)
            self._twice = np.ascontiguousarray(2 * network.gamma * landmarks, dtype=np.float32)
            self._squares = (network.gamma * squares).astype(np.float32)
            self._reach = 1.001 * math.sqrt(squares.max())

    def rounded(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Margins, and how far they may be from the exact ones; None if this is no way to compute them.

        x : (dimension,). Returns two arrays of shape (n_out,).
        """
        if self._power > 1:
            return None
        z = powered(x.astype(np.float64), self._power)
        if self._unit_length:
            squares = float(z.dot(z))
            z = z * (1.0 / (math.sqrt(squares) or 1.0))
            z -= self._mean
        else:
            z = z - self._mean
        size = math.sqrt(float(z.dot(z)))
        if not size < LARGEST:
            return None
        error = self._relative * (size + self._mean_length)
        h, length, apart = z, size, 0.0
        beside = None if self._plain is None else self._plain(z, size, error)
        if self._twice is not None:
            radial = self._radial(z, size, error)
            if radial is None:
                return None
            h, length, error, apart = radial
        for step in self._steps:
            raw, errors = step(h, length, error)
            if step.powers is not None:
                errors += apart * np.sqrt(np.vecdot(step.powers, h * h))
            if step.then == "relu":
                h = np.maximum(raw, 0)
                length = math.sqrt(float(h.dot(h)))
                error = math.sqrt(float(errors.dot(errors)))
            elif step.then == "softmax":
                h = np.exp(raw - raw.max())
                h /= h.sum()
                length, error = 1.0, _softmax_error(h, float(errors.max()))
        if beside is not None:
            raw, errors = np.concatenate([raw, beside[0]]), np.concatenate([errors, beside[1]])
        errors *= 1.01
        return raw, errors

    def _radial(
        self, z: NDArray[np.float64], size: float, error: float
    ) -> tuple[NDArray[np.float64], float, float, float] | None:
        """h of the landmarks, its length, a bound in Euclidean norm on the errors that they share, and the factor by
        which each may be off on its own: the bounds of network.py, where only the product is in float32.
        """
        assert self._twice is not None  # noqa: S101 - or there are no landmarks
        gamma, most = self._gamma, self._reach
        count, dimension = self._twice.shape
        error += UNIT * size  # z as the product has it
        shared = gamma * (2 * (size + most + error) * error + 2 * UNIT * size**2)
        own = LAMBDA * gamma * UNIT * (2 * math.sqrt(dimension) * size * most + 4 * (size + most) ** 2)
        if not (shared < SMALL and own < SMALL):
            return None
        exponents = np.vecdot(self._twice, z.astype(np.float32))
        exponents -= self._squares
        exponents -= np.float32(gamma * size**2)
        np.minimum(exponents, 0, out=exponents)
        h = np.exp(exponents, out=exponents).astype(np.float64)
        length = math.sqrt(float(h.dot(h)))
        factor = math.expm1(shared) + EXP_ROUNDING * UNIT * math.exp(shared)
        hidden = math.sqrt(count) * float(np.finfo(np.float32).tiny)
        return h, length, factor * length + hidden, math.expm1(own)
