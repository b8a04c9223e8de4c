"""Learners: hyperplanes w·f + b whose margins come close to targets of ±1, all outputs at once.

Ridge               min Σ(w·f + b − t)² + penalty·‖w‖²: one solve for all outputs. It keeps the sums that it solves
                    from, so feeding it in pieces gives what feeding it at once gives.
PassiveAggressive   PA-I: K. Crammer et al., "Online passive-aggressive algorithms", JMLR 2006, figure 1: the least
                    step that brings the margin to 1, at most C long. Departures: (1) b is the weight of a constant
                    coordinate 1 and counts in the norm; (2) what is handed out is about the mean of the last
                    `WINDOW` iterates, for a single one follows the last items' noise; (3) steps are taken in blocks:
                    within one, w is w₀ + Σ τⱼtⱼxⱼ, so its margins come from the block's Gram matrix: the same steps.
svm_hyperplanes     LIBLINEAR's linear support vector machine, an output after another: the tutorial's learner.
hidden_layer        a network of one hidden layer: the "deep" option. Its output layer are the hyperplanes.

PassiveAggressive centres its features and scales them to ‖f‖² = 1 on the average: of a step on smaller ones the
constant coordinate takes most, and what all features share, as those of a kernel do, is a second constant.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError, UnlearnableError

Floats: TypeAlias = NDArray[np.float64]
Hyperplanes: TypeAlias = tuple[Floats, Floats]
"""weights of shape (n_outputs, n_features) and offsets of shape (n_outputs,)."""

BLOCK = 256
WINDOW = 2_000
MAX_RIDGE_FEATURES = 8_192


class Ridge:
    """Least squares with a penalty. Memory: n_features² numbers, however many items it is fed."""

    def __init__(self, n_features: int, n_outputs: int, penalty: float) -> None:
        if n_features > MAX_RIDGE_FEATURES:
            raise UnlearnableError(
                f"ridge on {n_features} features would hold a matrix of {n_features}² numbers",
                remedy="take feature_map='rbf' with fewer n_components, or learner='pa'",
            )
        self.penalty = penalty
        self.gram = np.zeros((n_features, n_features))
        self.cross = np.zeros((n_outputs, n_features))
        self.feature_sum = np.zeros(n_features)
        self.target_sum = np.zeros(n_outputs)
        self.count = 0

    def add(self, features: Floats, targets: Floats) -> None:
        """features : (n, n_features). targets : (n, n_outputs), ±1."""
        self.gram += features.T @ features
        self.cross += targets.T @ features
        self.feature_sum += features.sum(axis=0)
        self.target_sum += targets.sum(axis=0)
        self.count += len(features)

    def grow(self, count: int) -> None:
        """More outputs, whose target has been −1 for all items so far."""
        self.cross = np.vstack([self.cross, np.tile(-self.feature_sum, (count, 1))])
        self.target_sum = np.concatenate([self.target_sum, np.full(count, -float(self.count))])

    def hyperplanes(self) -> Hyperplanes:
        from scipy.linalg import cho_factor, cho_solve

        mean = self.feature_sum / max(1, self.count)
        centred = self.gram - self.count * np.outer(mean, mean)
        centred[np.diag_indices_from(centred)] += self.penalty
        cross = self.cross - np.outer(self.target_sum, mean)
        weights = cho_solve(cho_factor(centred, overwrite_a=True, check_finite=False), cross.T, check_finite=False).T
        return np.ascontiguousarray(weights), self.target_sum / max(1, self.count) - weights @ mean

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Ridge:
        """Raises IntegrityError when the arrays are not those of a Ridge."""
        learner = cls(1, 1, 1.0)
        check_names(arrays, vars(learner))
        for name, value in arrays.items():
            setattr(learner, name, value.copy() if value.ndim else value.item())
        return learner


class PassiveAggressive:
    """The online learner. Memory: n_outputs · n_features, twice."""

    def __init__(self, n_features: int, n_outputs: int, aggressiveness: float) -> None:
        self.aggressiveness = aggressiveness
        self.middle = np.zeros(n_features)
        self.scale = 1.0
        self.weights = np.zeros((n_outputs, n_features + 1))
        self.averaged = np.zeros_like(self.weights)
        self.count = 0

    def add(self, features: Floats, targets: Floats) -> None:
        """One pass, in the order given. features : (n, n_features). targets : (n, n_outputs), ±1.

        The first items fix what features are centred by and scaled with.
        """
        if self.count == 0 and len(features) > 1:
            self.middle = features.mean(axis=0)
            self.scale = 1.0 / max(1e-12, float(np.square(features - self.middle).sum(axis=1).mean()) ** 0.5)
        for start in range(0, len(features), BLOCK):
            block = self.scale * (features[start : start + BLOCK] - self.middle)
            self._step(np.hstack([block, np.ones((len(block), 1))]), targets[start : start + BLOCK])

    def grow(self, count: int) -> None:
        """More outputs, whose target has been −1 for all items so far."""
        fresh = np.zeros((count, self.weights.shape[1]))
        fresh[:, -1] = -1.0
        self.weights = np.vstack([self.weights, fresh])
        self.averaged = np.vstack([self.averaged, fresh])

    def hyperplanes(self) -> Hyperplanes:
        weights = self.scale * self.averaged[:, :-1]
        return weights, self.averaged[:, -1] - weights @ self.middle

    def _step(self, x: Floats, targets: Floats) -> None:
        size = len(x)
        before = x @ self.weights.T
        gram = x @ x.T
        steps = np.zeros_like(before)
        for i in range(size):
            lacking = 1.0 - targets[i] * (before[i] + gram[i, :i] @ steps[:i])
            steps[i] = targets[i] * np.clip(lacking / gram[i, i], 0.0, self.aggressiveness)
        # the mean of the block's iterates holds step j in those from j on
        share = 1.0 - np.arange(size) / size
        mean = self.weights + (share[:, None] * steps).T @ x
        self.weights = self.weights + steps.T @ x
        self.count += size
        self.averaged += min(1.0, size / min(self.count, WINDOW)) * (mean - self.averaged)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PassiveAggressive:
        """Raises IntegrityError when the arrays are not those of a PassiveAggressive."""
        learner = cls(1, 1, 1.0)
        check_names(arrays, vars(learner))
        for name, value in arrays.items():
            setattr(learner, name, value.copy() if value.ndim else value.item())
        return learner


def check_names(arrays: Mapping[str, NDArray[Any]], wanted: Iterable[str]) -> None:
    """Raises IntegrityError when arrays are missing, or there are others."""
    differing = set(arrays) ^ set(wanted)
    if differing:
        raise IntegrityError(
            "a stored learner's arrays are not those of one", why=f"missing or unknown: {', '.join(sorted(differing))}"
        )


def svm_hyperplanes(
    features: Floats, targets: Floats, cost: float, seed: int, *, intercept: bool = True
) -> Hyperplanes:
    """One support vector machine an output. Every output must take both values.

    features : (n, n_features). targets : (n, n_outputs), ±1. intercept : without, all offsets are 0.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    weights = np.zeros((targets.shape[1], features.shape[1]))
    offsets = np.zeros(targets.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hyperplane short of the optimum hashes as well
        for output, target in enumerate(targets.T):
            machine = LinearSVC(C=cost, fit_intercept=intercept, random_state=seed).fit(features, target)
            weights[output] = machine.coef_[0]
            offsets[output] = float(np.ravel(machine.intercept_)[0]) if intercept else 0.0
    return weights, offsets


def hidden_layer(
    features: Floats, targets: Floats, penalty: float, n_hidden: int, seed: int
) -> tuple[Hyperplanes, Hyperplanes]:
    """A network features → max(0, ·) of n_hidden units → targets, least squares. Returns both its layers."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    network = MLPRegressor(
        hidden_layer_sizes=(n_hidden,),
        alpha=penalty,
        learning_rate_init=3e-3,
        max_iter=60,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is its regularisation
        network.fit(features, targets if targets.shape[1] > 1 else targets.ravel())
    (inner, outer), (inner_offsets, outer_offsets) = network.coefs_, network.intercepts_
    return (inner.T, inner_offsets), (outer.T, outer_offsets)
