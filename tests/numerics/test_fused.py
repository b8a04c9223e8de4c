from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.linear_model import RidgeClassifier

from stream_hash.errors import UsageError
from stream_hash.numerics.fused import FusedRank
from stream_hash.numerics.grh import GRH


def classes(count: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in 3 of 20 coordinates; the others are louder and say nothing of the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.standard_normal((count, 20)) * 1.5
    x[:, :3] = np.eye(3)[y] * 2 + noise * rng.standard_normal((count, 3))
    return x, y


def precision(scores: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> float:
    top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    return float((labels[top] == wanted[:, None]).mean())


class Memoriser(BaseEstimator):
    """Sure of what it was fitted to, and of nothing else."""

    def fit(self, X: np.ndarray, y: Any) -> Memoriser:
        self.known_ = {x.tobytes(): label for x, label in zip(X, y, strict=True)}
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        return np.array([np.eye(3)[self.known_[x.tobytes()]] if x.tobytes() in self.known_ else np.zeros(3) for x in X])


@pytest.mark.parametrize("items", ["margins", "bits"])
@pytest.mark.parametrize("centred", [True, False])
def test_scores_are_those_of_the_loops(items: str, centred: bool) -> None:
    x, y = classes(90, 0)
    fused = FusedRank(RidgeClassifier(), items=items, centred=centred, weights=[0.7]).fit(x, y)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    mean = unit.mean(axis=0) if centred else np.zeros(20)
    margins = fused.hasher_.decision_function(x)
    of_items = margins if items == "margins" else np.where(margins >= 0, 1.0, -1.0)
    norms = [np.mean([sum(v * v for v in row) ** 0.5 for row in m.tolist()]) for m in (margins, of_items)]
    scores = fused.scores(x[:4], x[10:20])
    for i in range(4):
        for j in range(10):
            a, b = unit[i] - mean, unit[10 + j] - mean
            cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            learned = sum(m * n for m, n in zip(margins[i].tolist(), of_items[10 + j].tolist(), strict=True))
            assert scores[i, j] == pytest.approx(cosine + 0.7 * learned / (norms[0] * norms[1]))


@pytest.mark.parametrize("items", ["margins", "bits"])
@pytest.mark.parametrize(
    "hasher", [RidgeClassifier(), GRH(16, random_state=0), GRH(6, feature_map="posterior", targets="frames")]
)
def test_with_labels_it_ranks_better_than_the_cosine_whatever_the_hasher(hasher: Any, items: str) -> None:
    x, y = classes(300, 1)
    queries, wanted = classes(200, 2)
    vectors, labels = classes(2_000, 3)
    fused = FusedRank(hasher, items=items, random_state=0).fit(x, y)
    assert fused.weight_ > 0
    alone = FusedRank(hasher, items=items, weights=[0.0]).fit(x, y)
    gained = precision(fused.scores(queries, vectors), labels, wanted)
    assert gained > precision(alone.scores(queries, vectors), labels, wanted) + 0.02


def test_labels_that_say_nothing_get_little_weight() -> None:
    x, _ = classes(300, 1)
    weights = [
        FusedRank(RidgeClassifier(), random_state=0).fit(x, np.random.default_rng(seed).integers(0, 3, 300)).weight_
        for seed in range(10)
    ]
    assert np.mean(weights) <= 0.1


def test_what_a_hasher_knows_by_heart_gets_no_weight() -> None:
    x, y = classes(200, 1)
    fused = FusedRank(Memoriser(), random_state=0).fit(x, y)
    assert fused.weight_ == 0
    assert len(set(fused.precisions_.tolist())) == 1


def test_weight_zero_is_exact_search() -> None:
    x, y = classes(60, 0)
    fused = FusedRank(RidgeClassifier(), weights=[0.0], centred=False).fit(x, y)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert fused.scores(x[:5], x) == pytest.approx(unit[:5] @ unit.T)
    assert np.isnan(fused.precisions_).all()


def test_fuse_of_what_is_known_is_scores_and_bits_need_only_signs() -> None:
    x, y = classes(90, 0)
    fused = FusedRank(RidgeClassifier(), items="bits", weights=[0.4], centred=False).fit(x, y)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    margins = fused.hasher_.decision_function(x)
    known = fused.fuse(unit[:3] @ unit.T, margins[:3], np.where(margins >= 0, 1.0, -1.0))
    assert known == pytest.approx(fused.scores(x[:3], x))


def test_the_hasher_given_is_copied_and_the_seed_decides() -> None:
    x, y = classes(150, 0)
    hasher = GRH(8, random_state=0)
    one, same = (FusedRank(hasher, random_state=3).fit(x, y) for _ in range(2))
    assert not hasattr(hasher, "hyperplanes_")
    assert one.weight_ == same.weight_
    assert one.precisions_.tolist() == same.precisions_.tolist()


def test_unlabelled_items_are_never_queries_nor_answers_of_the_choice() -> None:
    x, y = classes(150, 0)
    labels = y.copy()
    labels[50:] = -1
    fused = FusedRank(GRH(8, random_state=0), random_state=0).fit(x, labels)
    assert fused.precisions_ * 50 == pytest.approx(np.round(fused.precisions_ * 50))


def test_several_labels_an_item_are_alike_when_they_share_one() -> None:
    x, y = classes(120, 0)
    several = [[f"c{label}", "odd"] if i % 40 == 0 else [f"c{label}"] for i, label in enumerate(y.tolist())]
    assert FusedRank(GRH(8, random_state=0), random_state=0).fit(x, several).weight_ > 0


def test_a_matrix_of_classes_sparse_or_dense_is_the_labels_it_stands_for() -> None:
    x, y = classes(120, 0)
    kinds = [y.tolist(), np.eye(3)[y], sp.csr_array(np.eye(3)[y])]
    found = [FusedRank(GRH(8, random_state=0), random_state=0).fit(x, kind).precisions_.tolist() for kind in kinds]
    assert found[0] == found[1] == found[2]


def test_float32_stays_float32() -> None:
    x, y = classes(90, 0)
    fused = FusedRank(GRH(8, random_state=0), weights=[0.3]).fit(x.astype(np.float32), y)
    assert fused.scores(x[:2].astype(np.float32), x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"items": "codes"}, "items is 'codes'"),
        ({"weights": []}, "weights are"),
        ({"weights": [-0.1]}, "weights are"),
        ({"weights": [float("nan")]}, "weights are"),
        ({"k": 0}, "k=0"),
        ({"n_splits": 1}, "n_splits=1"),
        ({"k": 30}, "90 labelled items in 3 folds"),
    ],
)
def test_parameters_outside_their_range_are_refused(options: dict[str, Any], fault: str) -> None:
    x, y = classes(90, 0)
    with pytest.raises(UsageError, match=fault):
        FusedRank(RidgeClassifier(), **options).fit(x, y)


def test_bad_vectors_and_labels_are_refused() -> None:
    x, y = classes(90, 0)
    with pytest.raises(UsageError, match="80 labels for 90 items"):
        FusedRank(RidgeClassifier()).fit(x, y[:80])
    with pytest.raises(UsageError, match="y is None"):
        FusedRank(RidgeClassifier()).fit(x, None)
    with pytest.raises(ValueError, match="NaN"):
        FusedRank(RidgeClassifier()).fit(np.full_like(x, np.nan), y)
    fused = FusedRank(RidgeClassifier(), weights=[0.3]).fit(x, y)
    with pytest.raises(ValueError, match="features"):
        fused.scores(x[:, :5], x)


def test_a_zero_vector_is_scored_without_a_warning() -> None:
    x, y = classes(90, 0)
    fused = FusedRank(RidgeClassifier(), weights=[0.3], centred=False).fit(x, y)
    assert np.isfinite(fused.scores(np.zeros((1, 20)), x)).all()
