from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from stream_hash.errors import UsageError
from stream_hash.numerics.bit_health import bit_health, churn

BITS = np.array(
    [[1, 0, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 1, 0, 0, 0], [1, 1, 0, 0, 1], [0, 0, 1, 0, 0]],
    dtype=np.uint8,
)


def naive_information(bit: list[int], labels: list[object]) -> float:
    total = 0.0
    for value in (0, 1):
        for label in set(labels):
            both = sum(b == value and c == label for b, c in zip(bit, labels, strict=True)) / len(bit)
            if both:
                total += both * math.log2(both / (bit.count(value) / len(bit) * labels.count(label) / len(bit)))
    return total


def test_balance_and_correlation_are_those_of_the_loops() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (40, 5))
    health = bit_health(bits)
    assert health.items == 40
    for i in range(5):
        assert health.balance[i] == sum(bits[:, i].tolist()) / 40
        for j in range(5):
            assert health.correlation[i, j] == pytest.approx(np.corrcoef(bits[:, i], bits[:, j])[0, 1])
    off = [abs(health.correlation[i, j]) for i in range(5) for j in range(5) if i != j]
    assert health.mean_correlation == pytest.approx(sum(off) / len(off))


def test_a_constant_bit_is_named_and_correlates_with_nothing() -> None:
    health = bit_health(BITS)
    assert health.constant.tolist() == [3]
    assert health.correlation[3].tolist() == [0, 0, 0, 1, 0]


def test_a_bit_and_its_opposite_are_duplicates_and_constant_bits_are_not() -> None:
    assert bit_health(BITS).duplicates.tolist() == [[1, 2]]
    assert bit_health(np.array([[1, 1, 0], [1, 1, 0]])).duplicates.tolist() == []


def test_information_is_that_of_the_loops_over_labelled_items() -> None:
    rng = np.random.default_rng(1)
    bits, labels = rng.integers(0, 2, (60, 4)), rng.integers(-1, 3, 60)
    known = labels >= 0
    expected = [naive_information(bits[known, j].tolist(), labels[known].tolist()) for j in range(4)]
    information = bit_health(bits, labels).information
    assert information == pytest.approx(expected)


def test_a_bit_that_tells_two_equal_classes_apart_carries_one_bit() -> None:
    information = bit_health(np.array([[1, 1], [1, 0], [0, 1], [0, 0]]), ["a", "a", "b", "b"]).information
    assert information is not None
    assert information.tolist() == [1.0, 0.0]


def test_an_item_of_several_classes_is_divided_among_them() -> None:
    several = bit_health(np.array([[1], [0]]), [["a", "b"], ["c", "d"]]).information
    assert several is not None
    assert several.tolist() == [1.0]


def test_without_labels_there_is_no_information_and_with_none_known_it_is_zero() -> None:
    assert bit_health(BITS).information is None
    nothing = bit_health(BITS, [None] * 6).information
    assert nothing is not None
    assert nothing.tolist() == [0] * 5


def test_churn_counts_changed_bits_and_changed_codes() -> None:
    after = BITS.copy()
    after[0, 1] ^= 1
    after[0, 4] ^= 1
    after[3, 4] ^= 1
    change = churn(BITS, after)
    assert change.bits == pytest.approx(3 / 30)
    assert change.codes == pytest.approx(2 / 6)
    assert change.by_bit.tolist() == pytest.approx([0, 1 / 6, 0, 0, 2 / 6])
    assert churn(BITS, BITS).codes == 0


def test_churn_of_unrelated_models_is_a_half() -> None:
    """Within four standard errors: fair bits that know nothing of each other differ half of the time."""
    rng = np.random.default_rng(2)
    models = [rng.integers(0, 2, (2_000, 16)) for _ in range(4)]
    for one, other in pairwise(models):
        assert abs(churn(one, other).bits - 0.5) < 4 * 0.5 / math.sqrt(32_000)


@pytest.mark.parametrize(
    "bits",
    [np.zeros((0, 4), np.uint8), np.zeros((4, 0), np.uint8), np.zeros(4, np.uint8), np.zeros((2, 2)), np.array([[2]])],
)
def test_what_is_not_bits_is_refused(bits: np.ndarray) -> None:
    with pytest.raises(UsageError, match="bits are"):
        bit_health(bits)
    with pytest.raises(UsageError, match="bits are"):
        churn(bits, bits)


def test_labels_or_models_of_other_length_are_refused() -> None:
    with pytest.raises(UsageError, match="5 labels for 6 items"):
        bit_health(BITS, [0] * 5)
    with pytest.raises(UsageError, match=r"bits of shape \(6, 5\) and \(6, 4\)") as failure:
        churn(BITS, BITS[:, :4])
    assert failure.value.remedy
