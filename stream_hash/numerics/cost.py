"""What a search costs by what it does: seconds = c₀ + c₁·probes + c₂·candidates + c₃·vectors, all c ≥ 0.

Fitted to measured searches by non-negative least squares of relative errors, so that a search of half a millisecond
counts as much as one of twenty. Measured times of neighbouring settings differ by noise; fitted ones do not, and they
can be asked about searches that were not made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SearchCost:
    """coefficients : (4,) seconds: of a search, and more for each probe, candidate and vector.

    error : the mean relative error of the searches it was fitted to.
    """

    coefficients: NDArray[np.float64]
    error: float

    @classmethod
    def fit(cls, work: NDArray[np.float64], seconds: NDArray[np.float64]) -> SearchCost:
        """work : (n, 3), probes, candidates and vectors of each search. seconds : (n,), above 0."""
        # not `nnls`: SciPy 1.14's runs out of iterations on rows such as these
        from scipy.optimize import lsq_linear

        rows = np.column_stack([np.ones(len(work)), work])
        units = rows.max(axis=0)  # columns of one size: candidates come in thousands
        units[units == 0] = 1.0
        fitted = lsq_linear(rows / units / seconds[:, None], np.ones(len(rows)), bounds=(0.0, np.inf), method="bvls")
        coefficients = np.maximum(fitted.x, 0.0) / units  # a bound may be missed by rounding
        return cls(coefficients, float(np.mean(np.abs(rows @ coefficients / seconds - 1))))

    def seconds(self, probes: float, candidates: float, vectors: float) -> float:
        """What a search costs."""
        return float(self.coefficients @ np.array([1.0, probes, candidates, vectors]))
