"""Graph regularised hashing: hyperplanes that put items which belong together into the same buckets.

Source: S. Moran & V. Lavrenko, "Graph Regularised Hashing", ECIR 2015. In turns, for codes L of ±1:

    L ← sgn(alpha·S·D⁻¹·L + (1 − alpha)·L₀)          (equation 2; the graph S is that of graph.py)
    for each bit, a linear learner fits hyperplane to code; L becomes the side that each item is on

Our departures:
1. A tie keeps L₀ (the paper: +1), and a bit that comes out the same for all items keeps its hyperplane.
2. A bit that splits the training items as an earlier one does starts again from a fresh random hyperplane.
3. targets="code_words": with classes known, each has a code word far from the others', and the learner fits these
   directly. Smoothing ends with one code a class anyway, but with codes that chance put close together.
4. feature_map="posterior": learners fit the classes; bits are directions among the class posteriors (directions.py).
5. Only n_learned bits are learned from classes. The others are ITQ's: they divide what classes leave together, so that
   buckets stay small and the budget of a search goes to the nearer items of the classes that are likely.

Labels y as in labels.py: −1 or None where unknown. Which graph smooths: that of the labels; without any label that of
the nearest neighbours, or the affinity given; and a mixture of both when only some items are labelled or an affinity
is given as well. Under "code_words" and "frames", items without labels shape only the feature map and ITQ's bits; with
no label at all, or with an affinity, targets are smoothed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from stream_hash.errors import IntegrityError, UnlearnableError
from stream_hash.numerics.class_book import ClassBook
from stream_hash.numerics.feature_maps import (
    FeatureMap,
    Hidden,
    Joined,
    Matrix,
    Nystrom,
    Posterior,
    Prepared,
    SingleMap,
    first_map,
    fit_nystrom,
    fit_prepared,
    map_from_arrays,
    map_to_arrays,
    prepared_of,
)
from stream_hash.numerics.graph import AffinityGraph, Graph, LabelGraph, MixedGraph, neighbour_graph
from stream_hash.numerics.grh_parameters import ONLINE, TEMPERATURE, C, check_parameters, learned_bits, resolved
from stream_hash.numerics.labels import read_labels
from stream_hash.numerics.learners import WINDOW, PassiveAggressive, Ridge, hidden_layer, svm_hyperplanes
from stream_hash.numerics.rest_bits import put_beside, rest_hyperplanes, sample
from stream_hash.numerics.sign_bits import SignBits
from stream_hash.numerics.smoothing import draw_apart, in_rows, signs, smoothed, two_sided
from stream_hash.numerics.starts import first_hyperplanes

EPOCHS = 10
"""Passes of the passive-aggressive learner over the items of a batch fit."""

REPEATS = 3
"""Passes of that learner over the items of one `partial_fit`: one leaves a twentieth of the precision behind."""

MANY = 1_000
"""Classes to expect of a stream that does not say which."""


def _learns_online(model: GRH) -> bool:
    if model.learner not in ONLINE or model.targets == "smoothed":
        raise AttributeError(
            f"learner={model.learner!r} with targets={model.targets!r} cannot learn online; "
            "take learner='pa' or 'ridge' with targets='code_words' or 'frames'"
        )
    return True


class GRH(ClassNamePrefixFeaturesOutMixin, SignBits, BaseEstimator):  # type: ignore[misc]  # untyped
    """Vectors to bits, learned from labels or a graph.

    n_bits : bits of a code. learner : "ridge", "svm", "pa" (passive-aggressive) or "mlp"; the first and third learn
    online. targets : "code_words", "smoothed", "frames" (posterior only: random orthogonal directions), or "auto":
    "smoothed" if there is no class, else "frames" over posteriors and "code_words" over other maps.
    n_learned : bits learned from classes, the first ones. None for three quarters of them, and no more than there are
    pairs of classes, under "frames"; else for all.
    alpha : weight of the graph, 0 to 1; a bit flips where |S·D⁻¹·L| > (1 − alpha)/alpha. n_iter : turns of smoothing.
    feature_map : None (hyperplanes in the space of the vectors), "rbf", "posterior" (over rbf), or "auto": "posterior"
    for "frames", else "rbf".
    n_components : landmarks of rbf. gamma : of rbf; None for 2 over the median squared distance.
    C : how closely to fit. ridge: 1/penalty; svm: its C; pa: the longest step; mlp: 1/penalty. None for a fair value.
    temperature : sharpening of posteriors; None for 4 (code words) or 8 (frames).
    init : where to start from, and what bits keep that nothing is learned for: "lsh", "itq", or a fitted object whose
    decision_function returns (n, n_learned) margins, such as another GRH. Posteriors start from nothing and ignore it.
    power : of coordinates, signs kept; 0.5 suits histograms. unit_length : scale vectors to length 1, as for cosine.
    n_neighbors : of the neighbour graph. graph_weight : its weight where an item also has labels.
    n_hidden : units of "mlp". random_state : None, an int, or a numpy Generator.

    After `fit` or `partial_fit`:
    hyperplanes_ : float64 (n_bits, n_map_features), in the space of feature_map_. offsets_ : float64 (n_bits,).
    feature_map_ : of feature_maps.py. classes_ : (n_classes,), in order of arrival.
    words_ : int8 (n_classes, n_learned).
    codes_ : int8 (n, n_learned), the targets of the items of the last call, ±1, 0 where there was none.
    """

    def __init__(
        self,
        n_bits: int = 16,
        *,
        learner: str = "ridge",
        targets: str = "auto",
        n_learned: int | None = None,
        alpha: float = 0.9,
        n_iter: int = 2,
        feature_map: str | None = "auto",
        n_components: int = 1_000,
        gamma: float | None = None,
        C: float | None = None,
        temperature: float | None = None,
        init: Any = "lsh",
        power: float = 1.0,
        unit_length: bool = True,
        n_neighbors: int = 10,
        graph_weight: float = 0.5,
        n_hidden: int = 128,
        random_state: Any = None,
    ) -> None:
        self.n_bits = n_bits
        self.learner = learner
        self.targets = targets
        self.n_learned = n_learned
        self.alpha = alpha
        self.n_iter = n_iter
        self.feature_map = feature_map
        self.n_components = n_components
        self.gamma = gamma
        self.C = C
        self.temperature = temperature
        self.init = init
        self.power = power
        self.unit_length = unit_length
        self.n_neighbors = n_neighbors
        self.graph_weight = graph_weight
        self.n_hidden = n_hidden
        self.random_state = random_state

    # ---- learning

    def fit(self, X: ArrayLike, y: Any = None, affinity: Any = None) -> GRH:
        """Learn from all items at once.

        X : (n_samples, n_features), finite. y : labels or None. affinity : sparse (n_samples, n_samples) or None.
        Raises UnlearnableError, a ValueError, for parameters and data that nothing can be learned from.
        """
        check_parameters(self.get_params(deep=False))
        x = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        classes, member = read_labels([None] * len(x) if y is None else y, len(x))
        if len(classes) == 1:
            raise UnlearnableError(
                f"all labelled items are of 1 class, {classes.tolist()[0]!r}",
                why="hyperplanes are learned from what tells classes apart",
                remedy="give items of two classes or more, or no labels",
            )
        self._begin(x, len(classes) if affinity is None else 0)
        if affinity is None and len(classes) and self._targets != "smoothed":
            self._learn_words(x, classes, member, EPOCHS)
        elif self._kind == "posterior":
            raise UnlearnableError("feature_map is 'posterior' without classes", remedy="give labels, or take 'rbf'")
        else:
            self.classes_ = classes
            self._learn_smoothed(x, self._graph(x, member, affinity))
        return self

    @available_if(_learns_online)  # type: ignore[untyped-decorator]  # scikit-learn ships no types
    def partial_fit(self, X: ArrayLike, y: Any, classes: Any = None) -> GRH:
        """Learn from more items, each given once; nothing of them is kept but sums or weights.

        The first call fixes the feature map: pass items without labels along to give it more to choose from.
        classes : labels to expect, for the first call; others may come at any time. A new class gets a code word or
        directions of its own, and those of the others stay. How many bits are learned follows from classes, if they are
        given, and stays, too: name those to come, or set n_learned.
        There is no such method for learners 'svm' and 'mlp', nor for targets='smoothed'.
        """
        check_parameters(self.get_params(deep=False))
        first = not hasattr(self, "feature_map_")
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=first)
        if y is None:
            raise UnlearnableError("partial_fit requires y, but y is None", remedy="give labels; -1 where unknown")
        found, member = read_labels(y, len(x))
        if first:
            expected = found[:0] if classes is None else read_labels(classes, len(classes))[0]
            self._begin(x, len(expected) or MANY)
            if classes is not None:
                self._book.meet(expected, sp.csr_array((0, len(expected))))
        elif not hasattr(self, "words_"):
            raise UnlearnableError("a model fitted to a graph cannot learn online", remedy="fit it with labels")
        self._learn_words(x, found, member, REPEATS)
        return self

    def _begin(self, x: Matrix, n_classes: int) -> None:
        """Forget everything; fix the feature map, and the hyperplanes to start from and to put beside."""
        for name in ("words_", "classes_"):
            if hasattr(self, name):
                delattr(self, name)
        self._rng = np.random.default_rng(self.random_state)
        self._seed = int(self._rng.integers(2**31))
        self._online: Ridge | PassiveAggressive | None = None
        self._resolve(n_classes)
        width = learned_bits(self.n_bits, self.n_learned, self._targets, n_classes)
        self._book = ClassBook(width, self._seed, frames=self._targets == "frames")
        prepared = fit_prepared(x, self.power, self.unit_length)
        self._base: Prepared | Nystrom = prepared
        if self._kind is not None:
            self._base = fit_nystrom(prepared, x, self._rng, self.n_components, self.gamma)
        self._first = (np.zeros((width, 0)), np.zeros(width))
        if self._kind != "posterior":
            self._first = first_hyperplanes(self.init, self._base, x, width, self._rng)
        self._rest = rest_hyperplanes(prepared, sample(x, self._seed), self.n_bits - width, self._seed)

    def _resolve(self, n_classes: int) -> None:
        """What "auto" stands for."""
        self._kind, self._targets = resolved(self.feature_map, self.targets, n_classes > 0)

    def _learn_words(self, x: Matrix, found: NDArray[Any], member: sp.csr_array, passes: int) -> None:
        """Fit codes or classes that are given by labels."""
        member, new = self._book.meet(found, member)
        labelled = np.flatnonzero(np.diff(member.indptr))
        own = member[labelled]
        codes = self._book.targets(own)
        features = self._base.features(x[labelled]).astype(np.float64)
        if self._kind == "posterior":
            if not len(self._book.classes):
                raise UnlearnableError("no item has a label, and classes is None", remedy="label some, or give classes")
            if self._online is not None:
                self._online.grow(new)
            base, weights, offsets = self._fit(features, 2.0 * own.toarray() - 1.0, passes)
            self._set_posterior(x, base, weights, offsets)
        else:
            active = self._book.active_bits()
            kept = signs(features @ self._first[0].T + self._first[1])
            base, weights, offsets = self._fit(features, np.where(active, codes, kept), passes)
            if base is self._base:
                weights = np.where(active[:, None], weights, self._first[0])
                offsets = np.where(active, offsets, self._first[1])
            self._set(x, base, weights, offsets)
        self.classes_ = self._book.classes
        self.words_ = self._book.words
        self.codes_ = np.zeros((len(x), codes.shape[1]), dtype=np.int8)
        self.codes_[labelled] = codes

    def _learn_smoothed(self, x: Matrix, graph: Graph) -> None:
        """The paper's turns: smooth the codes, fit hyperplanes, take the sides that items are on."""
        features = self._base.features(x).astype(np.float64)
        first = self._first
        if isinstance(self.init, str):
            first = draw_apart(self._rng, features, *first, graph, self.alpha)
        base: Prepared | Nystrom | Hidden = self._base
        weights, offsets = first
        start = now = signs(features @ weights.T + offsets)
        for _ in range(self.n_iter):
            codes = smoothed(now, start, graph, self.alpha)
            mixed = two_sided(codes)
            self._online = None
            fitted, new, new_offsets = self._fit(features, np.where(mixed, codes, now), EPOCHS)
            if fitted is base:
                new, new_offsets = np.where(mixed[:, None], new, weights), np.where(mixed, new_offsets, offsets)
            base, weights, offsets = fitted, new, new_offsets
            now = signs(in_rows(base, x, weights, offsets))
        self._online = None
        self._set(x, base, weights, offsets)
        self.codes_ = codes.astype(np.int8)

    def _graph(self, x: Matrix, member: sp.csr_array, affinity: Any) -> Graph:
        given = None if affinity is None else AffinityGraph(affinity)
        if given is not None and given.size != len(x):
            raise UnlearnableError(f"the affinity joins {given.size} items of {len(x)}", remedy="give a row an item")
        labels = LabelGraph(member)
        if given is None and labels.labelled.all():
            return labels
        base = self._base.base if isinstance(self._base, Nystrom) else self._base
        neighbours = given or neighbour_graph(base.features(x), self.n_neighbors)
        return MixedGraph(labels, neighbours, self.graph_weight) if labels.labelled.any() else neighbours

    def _fit(
        self, features: NDArray[np.float64], wanted: NDArray[np.float64], passes: int
    ) -> tuple[Prepared | Nystrom | Hidden, NDArray[np.float64], NDArray[np.float64]]:
        """Hyperplanes for the targets wanted, and the map they stand behind. Online learners go on from before."""
        cost = C[self.learner] if self.C is None else self.C
        if self.learner == "mlp":
            (inner, shifts), (weights, offsets) = hidden_layer(features, wanted, 1.0 / cost, self.n_hidden, self._seed)
            return Hidden(self._base, inner, shifts), weights, offsets
        if self.learner == "svm":
            mixed = two_sided(wanted)
            weights = np.zeros((wanted.shape[1], features.shape[1]))
            offsets = signs(wanted.sum(axis=0))
            weights[mixed], offsets[mixed] = svm_hyperplanes(features, wanted[:, mixed], cost, self._seed)
            return self._base, weights, offsets
        if self._online is None:
            shape = features.shape[1], wanted.shape[1]
            self._online = Ridge(*shape, 1.0 / cost) if self.learner == "ridge" else PassiveAggressive(*shape, cost)
        for _ in range(passes if isinstance(self._online, PassiveAggressive) else 1):
            # the order follows from what was learned before, so that a stored model goes on as this one would
            order = np.random.default_rng([self._seed, self._online.count]).permutation(len(features))
            self._online.add(features[order], wanted[order])
        return self._base, *self._online.hyperplanes()

    def _set_posterior(
        self, x: Matrix, base: Prepared | Nystrom | Hidden, weights: NDArray[np.float64], offsets: NDArray[np.float64]
    ) -> None:
        # scores are fitted to ±1, and differ by twice what scores fitted to 0 and 1 would
        temperature = (self.temperature or TEMPERATURE[self._targets]) / 2.0
        count = len(weights)
        raw = Posterior(base, weights, offsets, temperature, np.zeros(count))
        mean = in_rows(raw, x, np.eye(count), np.zeros(count)).mean(axis=0, dtype=np.float64)
        before = getattr(self, "feature_map_", None)
        if isinstance(before, Joined):
            before = before.base
        if isinstance(before, Posterior) and hasattr(self, "words_"):
            known = np.concatenate([before.mean, np.zeros(count - len(before.mean))])
            mean = known + self._share(x) * (mean - known)
        self._set(
            x,
            Posterior(base, weights, offsets, temperature, mean),
            self._book.directions,
            np.zeros(len(self._book.directions)),
        )

    def _share(self, x: Matrix) -> float:
        """What the items of this call count for, beside those of the calls before."""
        if not hasattr(self, "words_"):
            return 1.0
        return float(min(1.0, len(x) / min(self._book.counts.sum() + 1.0, WINDOW)))

    def _set(self, x: Matrix, learned: SingleMap, weights: NDArray[np.float64], offsets: NDArray[np.float64]) -> None:
        self.feature_map_: FeatureMap = learned
        if len(self._rest[1]):
            count = len(weights)
            self.feature_map_, weights, offsets = put_beside(
                learned, weights, offsets, self._rest, sample(x, self._seed), self._share(x)
            )
            # as large as they are now: that is what the next items count beside
            self._rest = weights[count:, self.feature_map_.width :], offsets[count:]
        self.hyperplanes_ = weights
        self.offsets_ = offsets
        self._n_features_out = self.n_bits

    # ---- hashing

    def decision_function(self, X: ArrayLike) -> Matrix:
        """Margins w·f(x) + b. X : (n, n_features). Returns (n, n_bits), float32 for float32 and else float64."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False, ensure_all_finite=False)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found, and named, below
            margins = in_rows(self.feature_map_, x, self.hyperplanes_, self.offsets_)
        if not np.isfinite(margins.sum(dtype=np.float64)):
            assert_all_finite(x, input_name="X")
            raise UnlearnableError("X holds numbers too large to be hashed", remedy="scale the vectors down")
        return margins

    # ---- storing

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The model as named arrays, none of them of objects; `from_arrays` is the way back.

        "params" is JSON. A model of an online learner can learn on afterwards.
        """
        check_is_fitted(self)
        params = self.get_params(deep=False)
        params["init"] = params["init"] if isinstance(params["init"], str) else "lsh"
        params["random_state"] = self._seed
        arrays = {
            "params": np.array(json.dumps(params, default=lambda value: value.item())),
            "hyperplanes": self.hyperplanes_,
            "offsets": self.offsets_,
            "classes": self.classes_,
        } | map_to_arrays(self.feature_map_)
        if hasattr(self, "words_"):
            arrays["words"] = self.words_
        if self._online is not None:
            arrays |= {"first.weights": self._first[0], "first.offsets": self._first[1]}
            arrays |= {"rest.weights": self._rest[0], "rest.offsets": self._rest[1]}
            arrays |= {"book." + name: value for name, value in self._book.to_arrays().items()}
            arrays |= {"online." + name: value for name, value in self._online.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> GRH:
        """Raises IntegrityError when the arrays are not those of a GRH."""
        try:
            model = cls(**json.loads(str(arrays["params"])))
            model.hyperplanes_, model.offsets_ = arrays["hyperplanes"], arrays["offsets"]
            model.classes_ = arrays["classes"]
            model.feature_map_ = map_from_arrays(arrays)
            model._base = first_map(model.feature_map_)
            model.n_features_in_ = len(prepared_of(model._base).mean)
            model._n_features_out = model.n_bits
            model._seed = model.random_state
            model._online = None
            if "words" in arrays:
                model.words_ = arrays["words"]
            if "first.weights" in arrays:
                model._first = arrays["first.weights"], arrays["first.offsets"]
                model._rest = arrays["rest.weights"], arrays["rest.offsets"]
                model._book = ClassBook.from_arrays(_below("book.", arrays))
                model._resolve(len(model._book.classes))
                learner = Ridge if model.learner == "ridge" else PassiveAggressive
                model._online = learner.from_arrays(_below("online.", arrays))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError("a GRH model's arrays are not those of one", why=str(error)) from error
        return model


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
