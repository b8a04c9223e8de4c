from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.code_words import distinct_columns, extend_words, guaranteed_distance, least_distance
from stream_hash.numerics.directions import extend_directions, frame_directions


def words(count: int, bits: int, seed: int = 0) -> np.ndarray:
    return extend_words(np.zeros((0, bits), dtype=np.int8), count, seed)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(6, 64), st.integers(0, 99))
def test_words_keep_the_guaranteed_distance(count: int, bits: int, seed: int) -> None:
    drawn = words(count, bits, seed)
    assert set(np.unique(drawn)) <= {-1, 1}
    assert least_distance(drawn) >= guaranteed_distance(count, bits) >= 1


def test_ten_words_are_much_farther_apart_than_guaranteed() -> None:
    assert least_distance(words(10, 16)) >= 6
    assert least_distance(words(10, 64)) >= 26


@pytest.mark.parametrize("count", [9, 10])
def test_every_bit_of_the_first_words_splits_the_classes_in_halves(count: int) -> None:
    drawn = words(count, 16)
    assert np.abs(drawn.sum(axis=0)).max() <= count % 2
    assert distinct_columns(drawn).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.sampled_from([8, 16, 48]))
def test_words_of_new_classes_leave_the_old_ones_and_keep_the_distance(arrivals: list[int], bits: int) -> None:
    grown = np.zeros((0, bits), dtype=np.int8)
    for count in arrivals:
        before = grown
        grown = extend_words(grown, count, seed=3)
        assert (grown[: len(before)] == before).all()
        assert len(grown) < 2 or least_distance(grown) >= guaranteed_distance(len(grown), bits)


def test_words_that_came_one_by_one_balance_their_bits() -> None:
    grown = np.zeros((0, 16), dtype=np.int8)
    for _ in range(20):
        grown = extend_words(grown, 1, seed=0)
    by_chance = np.sqrt(20 * 2 / np.pi)
    assert np.abs(grown.sum(axis=0)).mean() < by_chance


def test_the_same_seed_gives_the_same_words() -> None:
    assert (words(10, 16, seed=5) == words(10, 16, seed=5)).all()
    assert (words(10, 16, seed=5) != words(10, 16, seed=6)).any()


def test_all_words_can_be_given_away_but_not_one_more() -> None:
    assert least_distance(words(16, 4)) == 1
    with pytest.raises(UnlearnableError, match="17 classes cannot have different codes of 4 bits") as raised:
        words(17, 4)
    assert "5 bits" in raised.value.remedy


def test_columns_that_repeat_or_oppose_an_earlier_one_are_not_distinct() -> None:
    table = np.array([[1, 1, -1, 1, -1], [1, -1, 1, 1, -1], [1, -1, 1, -1, -1]], dtype=np.int8)
    assert distinct_columns(table).tolist() == [False, True, False, True, False]


@given(st.integers(2, 12), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_frame_is_orthonormal_and_blind_to_what_all_classes_share(classes: int, bits: int, seed: int) -> None:
    rows = frame_directions(np.random.default_rng(seed), bits, classes)
    assert rows.shape == (bits, classes)
    np.testing.assert_allclose(rows.sum(axis=1), 0, atol=1e-9)
    block = rows[: classes - 1]
    np.testing.assert_allclose(block @ block.T, np.eye(len(block)), atol=1e-9)


def test_directions_of_old_classes_stay_when_a_new_one_comes() -> None:
    rows = frame_directions(np.random.default_rng(0), 12, 5)
    grown = extend_directions(rows, words(2, 12))
    assert (grown[:, :5] == rows).all()
    assert grown.shape == (12, 7)
