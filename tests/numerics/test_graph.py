from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.graph import AffinityGraph, LabelGraph, MixedGraph, neighbour_graph
from stream_hash.numerics.labels import read_labels
from stream_hash.numerics.smoothing import smoothed

CARS_AND_TIGERS = ["car", "car", "car", "tiger", "tiger", "tiger"]


def dense_smooth(affinity: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """S·D⁻¹·L in loops, with the N×N matrix."""
    result = np.zeros_like(codes)
    for i in range(len(affinity)):
        for j in range(len(affinity)):
            degree = affinity[j].sum()
            if degree:
                result[i] += affinity[i, j] / degree * codes[j]
    return result


def dense_labels(labels: list[list[int]]) -> np.ndarray:
    return np.array([[float(len(set(a) & set(b))) for b in labels] for a in labels])


def random_codes(seed: int, count: int, bits: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], (count, bits))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=20), st.integers(0, 99))
def test_labels_smooth_as_the_dense_matrix_of_shared_labels_does(labels: list[list[int]], seed: int) -> None:
    codes = random_codes(seed, len(labels))
    graph = LabelGraph(read_labels(labels, len(labels))[1])
    np.testing.assert_allclose(graph.smooth(codes), dense_smooth(dense_labels(labels), codes), atol=1e-12)


def test_one_label_an_item_smooths_to_the_mean_code_of_its_class() -> None:
    y = np.array([0, 1, 0, 2, 1, 0])
    codes = random_codes(1, 6)
    smooth = LabelGraph(read_labels(y, 6)[1]).smooth(codes)
    np.testing.assert_allclose(smooth, [codes[y == label].mean(axis=0) for label in y])


def test_a_given_affinity_smooths_as_the_dense_one_does() -> None:
    rng = np.random.default_rng(2)
    affinity = rng.random((12, 12)) * (rng.random((12, 12)) < 0.3)
    affinity += affinity.T
    codes = random_codes(3, 12)
    np.testing.assert_allclose(AffinityGraph(sp.csr_array(affinity)).smooth(codes), dense_smooth(affinity, codes))


def test_the_neighbour_graph_is_symmetric_and_joins_the_nearest() -> None:
    x = np.random.default_rng(4).normal(size=(15, 3))
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    affinity = np.zeros((15, 15))
    for i, nearest in enumerate(np.argsort(distances, axis=1)[:, :3]):
        for j in nearest:
            affinity[i, j] = affinity[j, i] = 1.0
    codes = random_codes(5, 15)
    np.testing.assert_allclose(neighbour_graph(x, 3).smooth(codes), dense_smooth(affinity, codes))


def test_an_item_without_labels_has_only_its_neighbours() -> None:
    labels, affinity = [[0], [0], [], [1]], np.ones((4, 4)) - np.eye(4)
    codes = random_codes(6, 4)
    mixed = MixedGraph(LabelGraph(read_labels(labels, 4)[1]), AffinityGraph(affinity), 0.25)
    near, same = dense_smooth(affinity, codes), dense_smooth(dense_labels(labels), codes)
    expected = 0.75 * same + 0.25 * near
    expected[2] = near[2]
    np.testing.assert_allclose(mixed.smooth(codes), expected)


def test_cars_and_tigers_worked_by_hand() -> None:
    start = np.array([[1, 1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, 1], [-1, 1, -1]], dtype=float)
    graph = LabelGraph(read_labels(CARS_AND_TIGERS, 6)[1])
    cars, tigers = [1 / 3, 1 / 3, -1], [-1 / 3, -1 / 3, 1 / 3]
    np.testing.assert_allclose(graph.smooth(start), [cars] * 3 + [tigers] * 3)
    # a bit flips only where |class mean| > (1 − alpha)/alpha: at 0.9 that is 1/9, at 0.7 it is 3/7
    at_nine_tenths = smoothed(start, start, graph, 0.9)
    assert at_nine_tenths.tolist() == [[1, 1, -1]] * 3 + [[-1, -1, 1]] * 3
    assert smoothed(start, start, graph, 0.7).tolist() == start.tolist()


def test_a_tie_keeps_the_first_code() -> None:
    start = np.array([[1.0, -1.0], [-1.0, 1.0]])
    graph = LabelGraph(read_labels([7, 7], 2)[1])
    assert smoothed(start, start, graph, 1.0).tolist() == start.tolist()


@pytest.mark.parametrize(
    "y",
    [["b", None, "a"], np.array(["b", None, "a"], dtype=object), [["b"], [], ["a"]], [{"b"}, None, "a"]],
)
def test_labels_may_be_written_in_several_ways(y: object) -> None:
    classes, member = read_labels(y, 3)
    assert classes.tolist() == ["a", "b"]
    assert member.toarray().tolist() == [[0, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize("kind", [np.array, sp.csr_array])
def test_a_matrix_of_memberships_is_taken_as_it_is(kind: type) -> None:
    classes, member = read_labels(kind([[1, 0, 1], [0, 0, 0]]), 2)
    assert classes.tolist() == [0, 1, 2]
    assert member.toarray().tolist() == [[1, 0, 1], [0, 0, 0]]


def test_minus_one_marks_an_unlabelled_item() -> None:
    classes, member = read_labels(np.array([3, -1, 5]), 3)
    assert classes.tolist() == [3, 5]
    assert member.toarray().tolist() == [[1, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("y", "says"),
    [([1, 2], "2 labels for 3 items"), (["a", 1, 2], "mix"), ([1.0, np.nan, 2.0], "NaN")],
)
def test_unusable_labels_are_named(y: object, says: str) -> None:
    with pytest.raises(UnlearnableError, match=says) as raised:
        read_labels(y, 3)
    assert raised.value.remedy


@pytest.mark.parametrize("affinity", [np.ones((2, 3)), -np.eye(3), np.diag([1.0, np.nan])])
def test_an_unusable_affinity_is_refused(affinity: np.ndarray) -> None:
    with pytest.raises(UnlearnableError) as raised:
        AffinityGraph(affinity)
    assert raised.value.remedy
