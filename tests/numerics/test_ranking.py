from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.numerics.ranking import NearestK, exact_scores
from stream_hash.numerics.validation import vector_faults
from stream_hash.settings import Metric

METRICS: tuple[Metric, ...] = ("cosine", "l2", "inner")


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 120), k=st.integers(1, 15), pieces=st.integers(1, 4))
def test_ranking_equals_the_sort_of_all_scores(metric: Metric, seed: int, count: int, k: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    # few distinct vectors, so that exact ties are common
    x = rng.integers(-2, 3, (count, 4)).astype(np.float32) + np.float32(0.25)
    query = rng.integers(-2, 3, 4).astype(np.float32) + np.float32(0.25)
    ids = [f"i{n}" for n in rng.permutation(count)]
    nearest = NearestK(query, k, metric)
    for piece in np.array_split(np.arange(count), pieces):
        nearest.offer([ids[i] for i in piece], x[piece])
    assert [i for i, _ in nearest.ranked()] == oracle.naive_search(query, ids, x, metric, k)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_rounding_of_the_fast_pass_never_loses_a_result(metric: Metric, scale: float) -> None:
    rng = np.random.default_rng(1)
    centre = rng.normal(size=512)
    # a thousand vectors that float32 cannot tell apart by their scores
    x = ((centre + rng.normal(size=(1000, 512)) * 1e-6) * scale).astype(np.float32)
    query = (centre * scale).astype(np.float32)
    ids = [f"{i:04}" for i in range(1000)]
    nearest = NearestK(query, 10, metric)
    nearest.offer(ids, x)
    assert [i for i, _ in nearest.ranked()] == oracle.naive_search(query, ids, x, metric, 10)


def test_equal_scores_are_ordered_by_id() -> None:
    nearest = NearestK(np.array([1, 0], np.float32), 3, "cosine")
    nearest.offer(["b", "d", "a"], np.array([[2, 0], [5, 0], [1, 0]], np.float32))
    nearest.offer(["c"], np.array([[3, 0]], np.float32))
    assert nearest.ranked() == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


@pytest.mark.parametrize("metric", METRICS)
def test_larger_scores_are_nearer(metric: Metric) -> None:
    query = np.array([1, 1], np.float32)
    near, far = exact_scores(query, np.array([[1, 1], [-3, 1]], np.float32), metric)
    assert near > far


def test_faults_name_the_coordinate_and_its_value() -> None:
    x = np.ones((6, 3), np.float32)
    x[1, 2], x[2, 0], x[3], x[4] = np.nan, -np.inf, 0, 3e19
    assert vector_faults(x, "cosine") == {
        1: "coordinate 2 is nan; every coordinate must be finite",
        2: "coordinate 0 is -inf; every coordinate must be finite",
        3: "the vector's norm is 0; under cosine it has no direction",
        4: "the vector's norm is 5.2e+19; the limit is 1e+18",
    }
    assert 3 not in vector_faults(x, "l2")


def test_an_id_offered_again_counts_as_offered_last() -> None:
    nearest = NearestK(np.array([0, 0], np.float32), 2, "l2")
    nearest.offer(["a", "b", "c"], np.array([[0, 0], [2, 0], [3, 0]], np.float32))
    nearest.offer(["a"], np.array([[1, 0]], np.float32))
    assert nearest.ranked() == [("a", -1.0), ("b", -2.0)]


def test_a_distance_of_nothing_has_no_sign() -> None:
    nearest = NearestK(np.array([1, 1], np.float32), 1, "l2")
    nearest.offer(["a"], np.array([[1, 1]], np.float32))
    assert str(nearest.ranked()[0][1]) == "0.0"
