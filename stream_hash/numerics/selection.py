"""Choosing GRH's parameters inside the training items: cross-validation at a fixed budget of candidates.

A copy is fitted without a fold; the items of the fold are hashed and each is searched for among the others. Measured
are two things, both without the vectors, since in a fold the nearest items are far away and say little:

precision      the share of an item's own class among the first candidates in query-directed order, as many of them as
               the budget would be of so few items; a bucket that the budget cuts counts by its mean
bucket_share   the share of the other items in an item's own bucket: the mean bucket that a query meets

With measure="bucket", precision is that of an item's own bucket alone, none where nobody shares it: for searches at
radius 0. fill=1 lets such a bucket take the whole budget.

With measure="ranking", precision is the mean average precision of ranking the others by Hamming distance instead: for
codes that are compared and not looked up. Buckets do not matter then.

Of two models with equal precision the one with smaller buckets is better, since exact rank then chooses among nearer
items, and the last bucket of a search overshoots its budget by less. So taken is the best precision among those whose
mean bucket is at most `fill` of the budget.

Parameters are chosen one after another, each with the best of those before it: a grid of all would take their product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.evaluation import expected_average_precisions
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.labels import read_labels
from stream_hash.numerics.sign_bits import SignBits

LEAST = 5
"""Candidates a fold is judged by at least: fewer are mostly chance."""

MOST_ITEMS = 5_000
"""Labelled items that are looked at; more would only cost time."""


class GRHCV(SignBits, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """GRH with parameters chosen by cross-validation among the labelled training items.

    estimator : what to begin from; None for GRH(n_bits). n_bits : of that. grid : values to try by parameter, in the
    order in which they are chosen; None for C, power, n_learned and temperature. budget_share : the candidates of a
    search, as a share of all items; 0.005 is 300 of 60,000. fill : how much of the budget the mean bucket may be.
    measure : "budget", "bucket" or "ranking".
    n_splits : folds, 2 or more. random_state : an int, or None for other folds every time.

    After `fit`:
    estimator_ : the chosen one, fitted to all items. params_ : what was chosen, by name.
    trials_ : a dict for each that was tried, in order: its parameters, "precision" and "bucket_share".
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_bits: int = 16,
        grid: Mapping[str, Sequence[Any]] | None = None,
        budget_share: float = 0.005,
        fill: float = 1 / 3,
        measure: str = "budget",
        n_splits: int = 5,
        random_state: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_bits = n_bits
        self.grid = grid
        self.budget_share = budget_share
        self.fill = fill
        self.measure = measure
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any) -> GRHCV:
        """X : float (n_samples, n_features), finite. y : labels as in labels.py, −1 or None where unknown.

        Raises UnlearnableError, a ValueError, for parameters outside their range, too few labels for the folds, and
        whatever the estimator cannot be fitted to.
        """
        if not 0 < self.budget_share <= 1 or not self.fill > 0:
            raise UnlearnableError(
                f"budget_share={self.budget_share}, fill={self.fill}",
                remedy="take shares above 0, and of all at most 1",
            )
        if self.measure not in ("budget", "bucket", "ranking"):
            raise UnlearnableError(f"measure is {self.measure!r}", remedy="take 'budget', 'bucket' or 'ranking'")
        x = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if y is None:
            raise UnlearnableError("requires y to be passed, but the target y is None", remedy="give labels")
        if isinstance(y, (list, tuple)):  # of labels, or of lists of labels
            y = np.array([*y, None], dtype=object)[:-1]
        elif not hasattr(y, "tocsr"):
            y = np.asarray(y)
        member = read_labels(y, len(x))[1]
        labelled = np.flatnonzero(np.diff(member.indptr))
        if self.n_splits < 2 or len(labelled) < 2 * self.n_splits:
            raise UnlearnableError(
                f"{len(labelled)} labelled items do not make {self.n_splits} folds",
                remedy="take 2 folds or more, of 2 items or more; or GRH, which needs none",
            )
        chosen = GRH(self.n_bits, random_state=self.random_state) if self.estimator is None else clone(self.estimator)
        self.trials_: list[dict[str, Any]] = []
        self.params_: dict[str, Any] = {}
        for name, values in (default_grid(chosen) if self.grid is None else self.grid).items():
            trials = [
                self._trial(clone(chosen).set_params(**{name: value}), x, y, member, labelled) | {"value": value}
                for value in values
            ]
            value = self._best(trials)
            chosen.set_params(**{name: value})
            self.trials_ += [{**self.params_, name: t.pop("value"), **t} for t in trials]
            self.params_[name] = value
        self.estimator_ = chosen.fit(x, y)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Margins of the chosen estimator."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.decision_function(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _trial(
        self, model: Any, x: NDArray[Any], y: NDArray[Any], member: sp.csr_array, labelled: NDArray[np.intp]
    ) -> dict[str, float]:
        looked_at = np.random.default_rng(self.random_state).permutation(labelled)[:MOST_ITEMS]
        # dealt out class by class, so that no fold takes a whole class away
        looked_at = looked_at[np.argsort(member.indices[member.indptr[looked_at]], kind="stable")]
        unlabelled = np.setdiff1d(np.arange(len(x)), labelled)
        found = []
        for fold in range(self.n_splits):
            held_out = looked_at[fold :: self.n_splits]
            training = np.concatenate([np.setdiff1d(looked_at, held_out), unlabelled])
            margins = clone(model).fit(x[training], y[training]).decision_function(x[held_out])
            relevant = (member[held_out] @ member[held_out].T).toarray() > 0
            if self.measure == "ranking":
                found.append((mean_average_precision(margins, relevant), 0.0))
            else:
                precision, share = leave_one_out(margins, relevant, self.budget_share)
                found.append((bucket_precision(margins, relevant) if self.measure == "bucket" else precision, share))
        precision, bucket_share = np.mean(found, axis=0)
        return {"precision": float(precision), "bucket_share": float(bucket_share)}

    def _best(self, trials: list[dict[str, Any]]) -> Any:
        most = self.fill * self.budget_share
        fitting = [t for t in trials if t["bucket_share"] <= most]
        if fitting:
            return max(fitting, key=lambda t: t["precision"])["value"]
        return min(trials, key=lambda t: t["bucket_share"])["value"]


def default_grid(model: Any) -> dict[str, list[Any]]:
    """What is tried for a GRH, in the order in which it is chosen."""
    bits = model.n_bits
    return {
        "C": [1.0, 3.0, 10.0],
        "power": [1.0, 0.5],
        "n_learned": sorted({max(1, round(share * bits)) for share in (0.625, 0.75, 1.0)}),
        "temperature": [4.0, 8.0, 16.0],
    }


def mean_average_precision(margins: NDArray[np.floating[Any]], relevant: NDArray[np.bool_]) -> float:
    """Of ranking the others by Hamming distance, ties in random order. Shapes as in `leave_one_out`."""
    n, bits = margins.shape
    signs = np.where(margins >= 0, 1.0, -1.0)
    distances = np.rint((bits - signs @ signs.T) / 2).astype(np.int64)
    np.fill_diagonal(distances, bits + 1)  # a level of its own, left out
    flat = distances + (bits + 2) * np.arange(n)[:, None]
    totals = np.bincount(flat.ravel(), minlength=n * (bits + 2)).reshape(n, -1)[:, :-1]
    hits = np.bincount(flat[relevant], minlength=n * (bits + 2)).reshape(n, -1)[:, :-1]
    return float(expected_average_precisions(totals, hits).mean())


def bucket_precision(margins: NDArray[np.floating[Any]], relevant: NDArray[np.bool_]) -> float:
    """The mean share of relevant ones among those in an item's own bucket. Shapes as in `leave_one_out`."""
    signs = np.where(margins >= 0, 1.0, -1.0)
    own = signs @ signs.T == signs.shape[1]
    np.fill_diagonal(own, False)
    return float(((own & relevant).sum(axis=1) / np.maximum(own.sum(axis=1), 1)).mean())


def leave_one_out(
    margins: NDArray[np.floating[Any]], relevant: NDArray[np.bool_], budget_share: float
) -> tuple[float, float]:
    """Each item searched for among the others. Returns (precision, bucket_share) as above.

    margins : (n, n_bits), n ≥ 2. relevant : (n, n).
    """
    m = margins.astype(np.float64)
    signs = np.where(m >= 0, 1.0, -1.0)
    # the cost of a candidate, the |margins| of the bits where it differs, is (Σ|m| − m·s)/2; rounded, so that items of
    # one bucket cost the same
    costs = np.round((np.abs(m).sum(axis=1)[:, None] - m @ signs.T) / np.abs(m).mean(), 9)
    own = signs @ signs.T == m.shape[1]
    np.fill_diagonal(costs, np.inf)
    np.fill_diagonal(own, False)
    others = len(m) - 1
    wanted = min(max(budget_share * others, LEAST), others)
    last = np.sort(costs, axis=1)[:, int(np.ceil(wanted)) - 1, None]
    before, cut = costs < last, costs == last
    taken = before.sum(axis=1)
    hits = (before & relevant).sum(axis=1) + (wanted - taken) * (cut & relevant).sum(axis=1) / cut.sum(axis=1)
    return float((hits / wanted).mean()), float(own.sum() / (len(m) * others))
