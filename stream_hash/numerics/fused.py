"""Fused rank: the cosine plus a weighted score that a hasher learned, so that labels change the order of results.

    score(q, x) = cos(q, x) + weight · (m(q) · m(x)) / scale

m : the hasher's margins. items="bits": in place of m(x) the signs that are stored with an item anyway; the query's
margins stay real numbers, as in asymmetric distances (see asymmetric.py). scale : the mean over the training items of
the inner product's size, so that a weight means the same whatever the hasher's units.

Exact search knows nothing of labels; and exact ranks over the same candidates can never beat it. A fused rank can.
It is another order than the cosine's, so that a caller must ask for it.

The weight is chosen by cross-validation among labelled items alone: a copy of the hasher is fitted without a fold and
the items of that fold are ranked against one another. Within a fold, since margins of two models cannot be compared;
without it, since margins of items that a hasher was fitted to look surer than those of others. Taken is the smallest
weight whose mean precision@k is within one standard error, paired by query, of the best (the rule of L. Breiman,
J. Friedman, R. Olshen & C. Stone, "Classification and regression trees", 1984, section 3.4.3).

A fold is much sparser than an index: its ten nearest are far away, cosines say little, and every weight looks too
good. Hence k = 1 in the choice, few folds, and the smallest weight of those that do as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted, validate_data

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.feature_maps import normalised
from stream_hash.numerics.labels import read_labels

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)

_BLOCK = 1_000
"""Held-out items that are queries at a time: memory grows with the labels, not with their square."""


class FusedRank(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Cosine and a learned score in one number, larger is nearer.

    hasher : an estimator with fit(X, y) and decision_function(X) → (n, n_bits), such as GRH; it is copied, not changed.
    items : "margins" or "bits", what of an item goes into the learned score. centred : cosines about the training
    items' mean, as in the hashing; False for cosines of the vectors as they are. weights : what to choose from, each
    0 or more; a single one is taken without trying. k : of the precision that chooses. n_splits : folds, 2 or more.
    random_state : an int, or None for other folds every time.

    After `fit`:
    hasher_ : fitted to all items. weight_ : float. precisions_ : float64 (n_weights,), mean precision@k of each over
    the held-out items; NaN if none was tried. scale_ : float. mean_ : float64 (n_features,).
    """

    def __init__(
        self,
        hasher: Any,
        *,
        items: str = "margins",
        centred: bool = True,
        weights: Sequence[float] = WEIGHTS,
        k: int = 1,
        n_splits: int = 3,
        random_state: int | None = None,
    ) -> None:
        self.hasher = hasher
        self.items = items
        self.centred = centred
        self.weights = weights
        self.k = k
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any) -> FusedRank:
        """X : float of shape (n_samples, n_features), finite. y : labels as in labels.py, −1 or None where unknown.

        Raises UnlearnableError, a ValueError, for parameters outside their range, and when a fold would be left
        without the labels of more than k items.
        """
        self._check_parameters()
        x = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if y is None:
            raise UnlearnableError("fit requires y, but y is None", remedy="give labels; -1 or None where unknown")
        _, member = read_labels(y, len(x))
        self.mean_ = _unit(x).mean(axis=0, dtype=np.float64) if self.centred else np.zeros(x.shape[1])
        self.precisions_ = np.full(len(self.weights), np.nan)
        self.weight_ = float(self.weights[0])
        if len(self.weights) > 1:
            found = self._cross_validated(x, y, member)
            self.precisions_ = found.mean(axis=0)
            behind = found[:, [np.argmax(self.precisions_)]] - found
            as_good = behind.mean(axis=0) <= behind.std(axis=0) / np.sqrt(len(found))
            self.weight_ = float(np.asarray(self.weights)[as_good].min())
        self.hasher_ = clone(self.hasher).fit(x, y)
        self.scale_ = self._scale(self.hasher_.decision_function(x))
        return self

    def scores(self, queries: ArrayLike, vectors: ArrayLike) -> NDArray[Any]:
        """Fused scores of all pairs. queries : (n_queries, n_features). vectors : (n, n_features), the items'.

        Returns (n_queries, n), float32 if both are, and else float64.
        """
        check_is_fitted(self)
        q = validate_data(self, queries, dtype=[np.float64, np.float32], reset=False)
        x = validate_data(self, vectors, dtype=[np.float64, np.float32], reset=False)
        return self.fuse(self._cosines(q, x), self.hasher_.decision_function(q), self.hasher_.decision_function(x))

    def fuse(self, cosines: NDArray[Any], query_margins: NDArray[Any], item_margins: NDArray[Any]) -> NDArray[Any]:
        """The same from what is known already.

        cosines : (n_queries, n). query_margins : (n_queries, n_bits). item_margins : (n, n_bits); with items="bits"
        only their signs matter, so that ±1 will do. Returns (n_queries, n).
        """
        check_is_fitted(self)
        factor = query_margins.dtype.type(self.weight_ / self.scale_)
        return np.asarray(cosines + (factor * query_margins) @ self._of_items(item_margins).T)

    def _check_parameters(self) -> None:
        if self.items not in ("margins", "bits"):
            raise UnlearnableError(f"items is {self.items!r}", remedy="take 'margins' or 'bits'")
        weights = np.asarray(self.weights, dtype=np.float64)
        if weights.ndim != 1 or not len(weights) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise UnlearnableError(f"weights are {self.weights!r}", remedy="give one or more, each 0 or more")
        if self.k < 1 or self.n_splits < 2:
            raise UnlearnableError(f"k={self.k}, n_splits={self.n_splits}", remedy="give 1 and 2 at the least")

    def _cross_validated(self, x: NDArray[Any], y: Any, member: sp.csr_array) -> NDArray[np.float64]:
        """Precision@k of each labelled item as a query, by weight: (n_labelled, n_weights)."""
        labelled = np.flatnonzero(np.diff(member.indptr))
        if len(labelled) < self.n_splits * (self.k + 1):
            raise UnlearnableError(
                f"{len(labelled)} labelled items in {self.n_splits} folds",
                why=f"each fold must hold more than k = {self.k} items to rank",
                remedy="give more labels, fewer folds, a smaller k, or a single weight",
            )
        folds = KFold(self.n_splits, shuffle=True, random_state=self.random_state)
        found = np.zeros((len(labelled), len(self.weights)))
        for _, positions in folds.split(labelled):
            held_out = labelled[positions]
            rest = np.delete(np.arange(len(x)), held_out)
            hasher = clone(self.hasher).fit(x[rest], _rows(y, rest))
            margins = hasher.decision_function(x[held_out])
            of_items = self._of_items(margins) / self._scale(margins)
            of_class = np.asarray(member[held_out].todense())
            for start in range(0, len(held_out), _BLOCK):
                block = np.arange(start, min(start + _BLOCK, len(held_out)))
                cosines = self._cosines(x[held_out[block]], x[held_out])
                learned = margins[block] @ of_items.T
                cosines[np.arange(len(block)), block] = -np.inf  # an item is no answer to itself
                same = of_class[block] @ of_class.T > 0
                for number, weight in enumerate(self.weights):
                    scores = cosines + learned.dtype.type(weight) * learned
                    top = np.argpartition(-scores, self.k - 1, axis=1)[:, : self.k]
                    found[positions[block], number] = np.take_along_axis(same, top, axis=1).mean(axis=1)
        return found

    def _scale(self, margins: NDArray[Any]) -> float:
        """The typical size of a learned score: query's norm times item's. 1 where all margins are 0."""
        sizes = np.linalg.norm(margins, axis=1).mean() * np.linalg.norm(self._of_items(margins), axis=1).mean()
        return float(sizes) or 1.0

    def _of_items(self, margins: NDArray[Any]) -> NDArray[Any]:
        if self.items == "margins":
            return np.asarray(margins)
        one = margins.dtype.type(1)
        return np.asarray(np.where(margins >= 0, one, -one))

    def _cosines(self, queries: NDArray[Any], vectors: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self._embedded(queries) @ self._embedded(vectors).T)

    def _embedded(self, x: NDArray[Any]) -> NDArray[Any]:
        return _unit(_unit(x) - self.mean_.astype(x.dtype)) if self.centred else _unit(x)


def _unit(x: NDArray[Any]) -> NDArray[Any]:
    """Zero vectors stay: their cosine with anything is 0."""
    return normalised(x, 1.0, unit_length=True)


def _rows(y: Any, positions: NDArray[np.intp]) -> Any:
    """Labels of some items, of the kind they were: a matrix of classes stays one."""
    if hasattr(y, "tocsr"):
        return y.tocsr()[positions]
    return y[positions] if isinstance(y, np.ndarray) else [y[i] for i in positions.tolist()]
