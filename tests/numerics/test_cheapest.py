from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.numerics.cheapest import KeptDirectory, cheapest
from stream_hash.numerics.probing import directed

BITS = 10

tables_of_buckets = st.lists(
    st.dictionaries(st.integers(0, 2**BITS - 1), st.integers(1, 9), min_size=1, max_size=200), min_size=1, max_size=3
)


def arrays(table: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    codes = sorted(table)
    return np.array(codes, dtype=np.uint64), np.array([table[c] for c in codes], dtype=np.int64)


def margins_of(seed: int, queries: int, tables: int) -> np.ndarray:
    """Whole numbers, the largest a power of two: equal costs are equal in the oracle too. None is zero, which it takes
    as it is.
    """
    margins = np.random.default_rng(seed).integers(-8, 9, size=(queries, tables, BITS)).astype(np.float32)
    margins[margins == 0] = 1
    margins[:, :, 0] = 8
    return margins


def codes_of(margins: np.ndarray) -> list[int]:
    return [int("".join("01"[int(m >= 0)] for m in row), 2) for row in margins]


@settings(deadline=None)
@given(tables_of_buckets, st.integers(1, 900), st.integers(0, 99))
def test_the_buckets_are_those_of_the_plain_rule(tables: list[dict[int, int]], budget: int, seed: int) -> None:
    margins = margins_of(seed, 5, len(tables))
    planned = cheapest([KeptDirectory(*arrays(table), BITS) for table in tables], margins, budget)
    for row, found in zip(margins, planned, strict=True):
        plain = directed([arrays(table) for table in tables], codes_of(row), row, budget)
        assert [sorted(codes.tolist()) for codes in found] == [sorted(codes.tolist()) for codes in plain]


@pytest.mark.parametrize("margin", [0.0, -0.0, 1e-9, -1e-9])
def test_the_own_bucket_comes_first_though_a_full_one_is_next_to_nothing_away(margin: float) -> None:
    margins = np.array([[[1.0, margin]]], dtype=np.float32)
    (own,) = codes_of(margins[0])
    directory = KeptDirectory(np.array([2, 3], dtype=np.uint64), np.array([500, 500]), 2)
    ((found,),) = cheapest([directory], margins, 300)
    assert found.tolist() == [own]


@settings(deadline=None)
@given(tables_of_buckets, st.integers(1, 900), st.integers(0, 99))
def test_queries_planned_together_probe_what_each_probes_alone(
    tables: list[dict[int, int]], budget: int, seed: int
) -> None:
    margins = np.random.default_rng(seed).normal(size=(7, len(tables), BITS)).astype(np.float32)
    directories = [KeptDirectory(*arrays(table), BITS) for table in tables]
    together = cheapest(directories, margins, budget)
    alone = [cheapest(directories, margins[row : row + 1], budget)[0] for row in range(7)]
    assert [[c.tolist() for c in found] for found in together] == [[c.tolist() for c in found] for found in alone]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**62 - 1), unique=True, max_size=60), st.data())
def test_a_directory_that_learned_its_codes_is_the_one_that_was_made_of_them(
    codes: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(codes)))
    whole = np.array(codes, dtype=np.uint64)
    counts = np.ones(len(codes), dtype=np.int64)
    learned = KeptDirectory(whole[:cut], counts[:cut], 62)
    while cut < len(codes):
        piece = data.draw(st.integers(1, len(codes) - cut))
        # some that it knows, and one twice
        told = np.concatenate([whole[: cut + piece], whole[cut : cut + 1]])
        assert learned.add(told).tolist() == codes[cut : cut + piece]
        cut += piece
    made = KeptDirectory(whole, counts, 62)
    assert len(learned) == len(made) == learned.members
    margins = np.random.default_rng(len(codes)).normal(size=(2, 1, 62)).astype(np.float32)
    for budget in (1, 7, 100):
        for one, other in zip(cheapest([learned], margins, budget), cheapest([made], margins, budget), strict=True):
            assert sorted(one[0].tolist()) == sorted(other[0].tolist())


def test_the_nearest_of_many_buckets_are_found_without_ordering_all() -> None:
    """More buckets than the sample, and budgets from one bucket to all."""
    rng = np.random.default_rng(0)
    codes = np.sort(rng.choice(2**16, 30_000, replace=False)).astype(np.uint64)
    counts = rng.integers(1, 30, len(codes))
    margins = rng.integers(-(2**12), 2**12, size=(3, 1, 16)).astype(np.float32)
    margins[:, :, 3] = 2**12
    for budget in (1, 50, 3_000, 100_000, int(counts.sum()), 10**9):
        for row, (found,) in zip(margins, cheapest([KeptDirectory(codes, counts, 16)], margins, budget), strict=True):
            (plain,) = directed([(codes, counts)], codes_of(row), row, budget)
            assert sorted(found.tolist()) == sorted(plain.tolist())


def test_a_query_on_every_hyperplane_is_as_near_to_all_buckets() -> None:
    directory = KeptDirectory(np.arange(8, dtype=np.uint64), np.ones(8, dtype=np.int64), 3)
    assert cheapest([directory], np.zeros((1, 1, 3), dtype=np.float32), 3)[0][0].tolist() == [0, 1, 2]
