from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.errors import UsageError
from stream_hash.numerics.asymmetric import Calibration, asymmetric_scores, byte_tables, own_scores
from stream_hash.numerics.codes import pack_bits
from stream_hash.numerics.rotation import ITQ


def signs(code: int, width: int) -> list[int]:
    return [1 if digit == "1" else -1 for digit in f"{code:0{width}b}"]


def naive_scores(margins: np.ndarray, codes: np.ndarray) -> list[list[float]]:
    width = margins.shape[1]
    return [
        [sum(m * b for m, b in zip(query, signs(code, width), strict=True)) for code in codes.tolist()]
        for query in margins.tolist()
    ]


def drawn(width: int, seed: int = 0, queries: int = 5, items: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = pack_bits(rng.integers(0, 2, (items, width)).astype(np.bool_))
    return rng.standard_normal((queries, width)).astype(np.float32), codes


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 64), seed=st.integers(0, 1000), queries=st.integers(0, 4), items=st.integers(0, 20))
def test_scores_are_those_of_the_loops(width: int, seed: int, queries: int, items: int) -> None:
    margins, codes = drawn(width, seed, queries, items)
    scores = asymmetric_scores(margins, codes)
    assert scores.shape == (queries, items)
    assert scores.dtype == np.float32
    assert scores == pytest.approx(np.array(naive_scores(margins, codes)).reshape(queries, items), abs=1e-4)


def test_calibrated_scores_are_those_of_the_loops() -> None:
    sample = np.random.default_rng(3).standard_normal((200, 6)) @ np.random.default_rng(4).standard_normal((6, 6))
    calibration = Calibration.fit(sample)
    margins, codes = drawn(6)
    scores = calibration.scores(margins, codes)
    expectation = calibration.expectation.tolist()
    for i, query in enumerate(margins.tolist()):
        for j, code in enumerate(codes.tolist()):
            bits = signs(code, 6)
            expected = [sum(h * b for h, b in zip(row, bits, strict=True)) for row in expectation]
            length = sum(e * e for e in expected) ** 0.5
            assert scores[i, j] == pytest.approx(
                sum(m * e for m, e in zip(query, expected, strict=True)) / length, 1e-4
            )


def test_expectations_are_the_least_squares_of_margins_on_bits() -> None:
    sample = np.random.default_rng(3).standard_normal((4_000, 5)) @ np.random.default_rng(4).standard_normal((5, 5))
    bits = np.where(sample >= 0, 1.0, -1.0)
    truth, *_ = np.linalg.lstsq(bits, sample)
    assert Calibration.fit(sample).expectation == pytest.approx(truth.T, abs=0.02)


def test_with_independent_bits_of_one_size_calibration_changes_no_order() -> None:
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=np.float64)
    margins, codes = drawn(2, items=4)
    calibrated = Calibration.fit(corners).scores(margins, codes)
    assert (np.argsort(calibrated) == np.argsort(asymmetric_scores(margins, codes))).all()


def test_a_score_depends_on_neither_batch() -> None:
    margins, codes = drawn(39, queries=40, items=300)
    calibration = Calibration.fit(np.random.default_rng(0).standard_normal((100, 39)))
    whole = asymmetric_scores(margins, codes)
    assert (asymmetric_scores(margins[7:8], codes[11:12]) == whole[7:8, 11:12]).all()
    calibrated = calibration.scores(margins, codes)
    assert calibration.scores(margins[7:8], codes[11:12]) == pytest.approx(calibrated[7:8, 11:12], rel=1e-5)


def test_a_query_on_a_hyperplane_does_not_care_on_which_side_an_item_is() -> None:
    one = asymmetric_scores(np.array([[0.0, 2.0]]), np.array([0b01, 0b11], dtype=np.uint64))
    assert one.tolist() == [[2.0, 2.0]]


def test_margins_find_more_neighbours_than_bits_alone_and_calibration_more_again() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6_000, 40)) * np.arange(1, 41) ** -0.6
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    queries, items = x[:300], x[300:]
    truth = np.argsort(-(queries @ items.T), axis=1)[:, :10]
    itq = ITQ(24, n_components=40, whitening=0.1, random_state=0).fit(items)
    stored = itq.decision_function(items)
    codes, margins = pack_bits(stored >= 0), itq.decision_function(queries)

    def share(scores: np.ndarray) -> float:
        top = np.argsort(-scores, axis=1, kind="stable")[:, :200]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(top.tolist(), truth.tolist(), strict=True)]))

    symmetric = share(asymmetric_scores(np.where(margins >= 0, 1.0, -1.0), codes))
    linear = share(asymmetric_scores(margins, codes))
    calibrated = share(Calibration.fit(stored).scores(margins, codes))
    assert linear > symmetric + 0.05
    assert calibrated > linear


@pytest.mark.parametrize(
    "margins",
    [np.zeros(3), np.zeros((2, 0)), np.zeros((2, 65)), np.zeros((2, 3), np.int64), np.array([[np.nan, 1.0]])],
)
def test_what_is_not_margins_is_refused(margins: np.ndarray) -> None:
    with pytest.raises(UsageError, match="margin"):
        asymmetric_scores(margins, np.zeros(1, np.uint64))
    with pytest.raises(UsageError, match="margin"):
        Calibration.fit(margins)


@pytest.mark.parametrize("codes", [np.zeros(3, np.int64), np.zeros((3, 1), np.uint64)])
def test_what_is_not_codes_is_refused(codes: np.ndarray) -> None:
    with pytest.raises(UsageError, match="codes are"):
        asymmetric_scores(np.ones((1, 3)), codes)


def test_a_calibration_of_other_width_or_of_one_item_is_refused() -> None:
    calibration = Calibration.fit(np.random.default_rng(0).standard_normal((10, 4)))
    with pytest.raises(UsageError, match="3 bits"):
        calibration.scores(np.ones((1, 3)), np.zeros(1, np.uint64))
    with pytest.raises(UsageError, match="1 items"):
        Calibration.fit(np.ones((1, 3)))


def test_a_bit_that_never_changes_and_one_that_repeats_another_leave_scores_finite() -> None:
    sample = np.random.default_rng(0).standard_normal((50, 3))
    sample[:, 1] = 1.0
    sample[:, 2] = sample[:, 0]
    margins, codes = drawn(3)
    assert np.isfinite(Calibration.fit(sample).scores(margins, codes)).all()
    nothing = Calibration.fit(np.zeros((4, 3)))
    assert (nothing.scores(margins, codes) == 0).all()


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=9), width=st.integers(1, 64), seed=st.integers(0, 99))
def test_own_scores_are_those_of_each_query_alone(sizes: list[int], width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.standard_normal((len(sizes), width)).astype(np.float32)
    codes = rng.integers(0, 2**64, sum(sizes), dtype=np.uint64)
    found, start = own_scores(byte_tables(margins), codes, sizes), 0
    for query, size in enumerate(sizes):
        own = slice(start, start + size)
        assert found[own].tolist() == asymmetric_scores(margins[query : query + 1], codes[own])[0].tolist()
        start += size
    assert start == len(found)
