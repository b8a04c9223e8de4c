"""Bits that suit the number of items: chosen beforehand, and told afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from stream_hash.errors import UsageError
from stream_hash.service.bucket_fit import fitting_bits
from stream_hash.settings import BUCKET_LEAST, BUCKET_MOST, IndexSettings, bits_for
from stream_hash.storage.buckets import Listing, Position


def listing(codes: np.ndarray) -> Listing:
    """The directory of a table whose items have these codes."""
    found, counts = np.unique(codes.astype(np.uint64), return_counts=True)
    return Listing(found, counts.astype(np.int64), Position(0, 0), len(codes))


def mean(one: Listing) -> float:
    return one.counts.sum() / len(one.codes)


@pytest.mark.parametrize("items", [16, 31, 32, 1_797, 20_000, 58_682, 10**6, 16_777_216])
def test_items_spread_evenly_have_a_mean_bucket_of_8_to_16(items: int) -> None:
    assert 8 <= items / 2 ** bits_for(items) < 16


@pytest.mark.parametrize(("partitions", "bits"), [(1, 11), (2, 10), (4, 9), (1_000, 1)])
def test_each_partition_has_its_share_of_the_items(partitions: int, bits: int) -> None:
    assert bits_for(20_000, partitions) == bits
    settings = IndexSettings.for_items(64, 20_000, partitions=partitions, metric="l2", tables=3)
    assert settings == IndexSettings(64, bits=bits, partitions=partitions, metric="l2", tables=3)


def test_too_few_items_have_one_bit() -> None:
    assert [bits_for(items) for items in (1, 8, 15, 31)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("items", "partitions"), [(0, 1), (-5, 1), (2**24 + 1, 1), (2**25 + 1, 2), (True, 1), (2.0, 1)]
)
def test_items_that_cannot_be_held_are_refused(items: int, partitions: int) -> None:
    with pytest.raises(UsageError, match="the number of items is"):
        bits_for(items, partitions)


def test_bits_that_fit_are_left_alone() -> None:
    codes = np.arange(1_000) % 64
    assert fitting_bits([listing(codes)], 6) == 6


def test_too_many_bits_are_cut_to_what_has_a_mean_of_8_to_16() -> None:
    rng = np.random.default_rng(0)
    skewed = (rng.beta(1, 4, 3_000) * 2**16).astype(np.uint64)
    fitting = fitting_bits([listing(skewed)], 16)
    assert fitting is not None
    assert BUCKET_LEAST <= mean(listing(skewed >> np.uint64(16 - fitting))) < 2 * BUCKET_LEAST
    assert mean(listing(skewed >> np.uint64(15 - fitting))) < BUCKET_LEAST


def test_too_few_bits_are_raised_as_if_each_divided_every_bucket() -> None:
    codes = np.arange(64 * 100) % 64
    assert mean(listing(codes)) == 100 > BUCKET_MOST
    assert fitting_bits([listing(codes)], 6) == 9


def test_tables_count_together_and_nothing_has_no_mean() -> None:
    codes = np.arange(1_000) % 64
    assert fitting_bits([listing(codes), listing(np.arange(1_000))], 10) == 7
    assert fitting_bits([listing(np.zeros(0))], 10) is None
    assert fitting_bits([], 10) is None
    assert fitting_bits([listing(np.arange(3))], 10) == 1
