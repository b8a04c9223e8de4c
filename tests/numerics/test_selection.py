from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conventions import checks_of
from sklearn.datasets import load_digits

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.grh_parameters import check_parameters
from stream_hash.numerics.selection import GRHCV, bucket_precision, default_grid, leave_one_out, mean_average_precision

SMALL = {"C": [3.0], "n_learned": [4, 8]}


@checks_of([GRHCV(GRH(8, n_components=50, random_state=0), grid=SMALL, n_splits=2, random_state=0)])
def test_it_keeps_the_conventions_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_precision_and_bucket_share_by_hand() -> None:
    # two bits; items 0 and 1 share a bucket, 2 is one bit away, 3 is two bits away
    margins = np.array([[1.0, 3.0], [2.0, 1.0], [-1.0, 1.0], [-1.0, -5.0]])
    relevant = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=bool)
    # all three others are wanted, since so few are mostly chance
    assert leave_one_out(margins, relevant, 0.01) == pytest.approx((1 / 3, 2 / 12))
    # 0 and 1 find each other, the others nobody
    assert bucket_precision(margins, relevant) == pytest.approx(2 / 4)


def test_candidates_come_in_the_order_of_their_cost_and_a_cut_bucket_counts_by_its_mean() -> None:
    near = np.tile([[5.0, 1.0]], (4, 1))
    far = np.tile([[5.0, -1.0]], (8, 1))
    margins = np.vstack([near, far])
    relevant = np.zeros((12, 12), dtype=bool)
    relevant[:4, :4] = True
    relevant[:4, 4:6] = True
    # of a near item's 5 candidates 3 are from its bucket, and 2 of the far bucket's 8, of which a quarter is relevant
    near_hits, far_hits = 3 + 2 * 2 / 8, 0.0
    precision, share = leave_one_out(margins, relevant, 0.01)
    assert precision == pytest.approx((4 * near_hits + 8 * far_hits) / 12 / 5)
    assert share == pytest.approx((4 * 3 + 8 * 7) / (12 * 11))


def test_ranking_is_judged_by_average_precision() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(size=(30, 6))
    y = rng.integers(3, size=30)
    relevant = y[:, None] == y
    bits = margins >= 0
    found = []
    for item in range(30):
        others = np.delete(np.arange(30), item)
        distances = (bits[others] != bits[item]).sum(axis=1)
        draws = []
        for _ in range(300):
            order = others[np.lexsort([rng.random(29), distances])]
            hits = relevant[item, order]
            draws.append((np.cumsum(hits) / np.arange(1, 30))[hits].mean())
        found.append(np.mean(draws))
    assert mean_average_precision(margins, relevant) == pytest.approx(np.mean(found), abs=0.01)


def test_the_measure_decides_what_is_chosen() -> None:
    x, y = digits()
    estimator = GRH(12, n_components=100, random_state=0)
    grid = {"n_learned": [4, 8, 12]}
    model = GRHCV(estimator, grid=grid, measure="ranking", n_splits=3, random_state=0).fit(x, y)
    assert model.params_["n_learned"] == max(model.trials_, key=lambda t: t["precision"])["n_learned"]
    assert {t["bucket_share"] for t in model.trials_} == {0.0}
    alone = GRHCV(estimator, grid=grid, measure="bucket", fill=1_000.0, n_splits=3, random_state=0).fit(x, y)
    assert [t["precision"] for t in alone.trials_] != [t["precision"] for t in model.trials_]
    assert alone.params_["n_learned"] == max(alone.trials_, key=lambda t: t["precision"])["n_learned"]


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:400], y[:400]


def test_the_mean_bucket_stays_within_its_part_of_the_budget() -> None:
    x, y = digits()
    estimator = GRH(12, n_components=100, random_state=0)
    grid = {"n_learned": [6, 12], "temperature": [4.0, 16.0]}
    wide = GRHCV(estimator, grid=grid, budget_share=0.5, n_splits=3, random_state=0).fit(x, y)
    narrow = GRHCV(estimator, grid=grid, budget_share=0.1, n_splits=3, random_state=0).fit(x, y)
    shares = [
        next(t["bucket_share"] for t in m.trials_[::-1] if m.params_.items() <= t.items()) for m in (wide, narrow)
    ]
    assert shares[1] <= 0.1 / 3 < shares[0]
    assert len(wide.trials_) == 4
    best = max(wide.trials_[2:], key=lambda t: t["precision"])
    assert best["temperature"] == wide.params_["temperature"]


def test_no_fold_takes_a_whole_class_away() -> None:
    x, y = digits()
    few = np.concatenate([np.flatnonzero(y == label)[:2] for label in range(10)])
    fitted_to: list[set[int]] = []

    class Recording(GRH):
        def fit(self, X: Any, y: Any = None, affinity: Any = None) -> Recording:
            fitted_to.append(set(y.tolist()))
            super().fit(X, y, affinity)
            return self

    GRHCV(Recording(8, n_components=50), grid=SMALL, n_splits=2, random_state=0).fit(x[few], y[few])
    assert fitted_to == [set(range(10))] * 7  # three trials of two folds, and all


def test_nothing_fits_and_the_smallest_buckets_are_taken() -> None:
    x, y = digits()
    model = GRHCV(GRH(4, n_components=50), grid={"n_learned": [2, 4]}, budget_share=1e-4, n_splits=2, random_state=0)
    trials = model.fit(x, y).trials_
    assert model.params_["n_learned"] == min(trials, key=lambda t: t["bucket_share"])["n_learned"]


def test_what_is_chosen_is_what_hashes() -> None:
    x, y = digits()
    estimator = GRH(8, n_components=50, random_state=3)
    model = GRHCV(estimator, grid=SMALL, n_splits=2, random_state=0).fit(x, y)
    again = GRH(8, n_components=50, random_state=3).set_params(**model.params_).fit(x, y)
    assert (model.decision_function(x) == again.decision_function(x)).all()
    assert estimator.C is None


def test_items_without_labels_and_with_several_are_taken() -> None:
    x, y = digits()
    labels = [None if i % 3 == 0 else [int(label), int(label) // 2 + 10] for i, label in enumerate(y)]
    model = GRHCV(GRH(8, n_components=50), grid=SMALL, n_splits=2, random_state=0).fit(x, labels)
    assert len(model.estimator_.classes_) == 15


def test_the_default_grid_tries_what_a_grh_takes() -> None:
    model = GRH(16)
    for name, values in default_grid(model).items():
        for value in values:
            check_parameters(model.set_params(**{name: value}).get_params())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_splits": 1}, "do not make 1 folds"),
        ({"budget_share": 0.0}, "budget_share=0.0"),
        ({"fill": 0.0}, "fill=0"),
        ({"measure": "x"}, "measure is 'x'"),
    ],
)
def test_bad_parameters_are_named_with_what_to_do(settings: dict[str, Any], says: str) -> None:
    x, y = digits()
    with pytest.raises(UnlearnableError, match=says) as raised:
        GRHCV(**settings).fit(x, y)
    assert raised.value.remedy
