from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.numerics.probing import ball, ball_size, directed, members_within, within


@given(st.integers(1, 12), st.data())
def test_the_ball_is_every_code_within_the_radius_and_no_other(bits: int, data: st.DataObject) -> None:
    code = data.draw(st.integers(0, 2**bits - 1))
    radius = data.draw(st.integers(0, bits + 2))
    found = ball(code, bits, radius).tolist()
    assert sorted(found) == [c for c in range(2**bits) if (c ^ code).bit_count() <= radius]
    assert len(found) == ball_size(bits, radius)


def test_the_ball_comes_nearest_first() -> None:
    distances = [(c ^ 0b1011).bit_count() for c in ball(0b1011, 8, 8).tolist()]
    assert distances == sorted(distances)


@pytest.mark.parametrize(("bits", "radius"), [(16, 10), (62, 2), (62, 62)])
def test_the_size_of_a_ball_needs_no_enumeration(bits: int, radius: int) -> None:
    assert ball_size(bits, radius) == sum(math.comb(bits, r) for r in range(radius + 1))


@given(st.lists(st.integers(0, 2**62 - 1), unique=True), st.integers(0, 2**62 - 1), st.integers(0, 62))
def test_walking_a_directory_finds_the_same_buckets_as_the_ball(codes: list[int], code: int, radius: int) -> None:
    stored = np.array(sorted(codes), dtype=np.uint64)
    expected = [c for c in sorted(codes) if (c ^ code).bit_count() <= radius]
    assert within(stored, code, radius).tolist() == expected


tables_of_buckets = st.lists(
    st.dictionaries(st.integers(0, 255), st.integers(1, 9), min_size=1, max_size=40), min_size=1, max_size=3
)


def arrays(table: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    codes = sorted(table)
    return np.array(codes, dtype=np.uint64), np.array([table[c] for c in codes], dtype=np.int64)


@given(tables_of_buckets, st.integers(0, 255))
def test_members_within_counts_the_fullest_table(tables: list[dict[int, int]], code: int) -> None:
    counted = members_within([arrays(t) for t in tables], [code] * len(tables), 8)
    for radius in range(9):
        per_table = [sum(n for c, n in t.items() if (c ^ code).bit_count() <= radius) for t in tables]
        assert counted[radius] == max(per_table)


@settings(deadline=None)
@given(tables_of_buckets, st.integers(0, 255), st.integers(1, 60), st.integers(0, 99))
def test_directed_probing_takes_the_cheapest_buckets_and_stops_at_the_budget(
    tables: list[dict[int, int]], code: int, budget: int, seed: int
) -> None:
    margins = np.random.default_rng(seed).normal(size=(len(tables), 8)).astype(np.float32)
    taken = directed([arrays(t) for t in tables], [code] * len(tables), margins, budget)

    def cost(table: int, bucket: int) -> float:
        flipped = [(bucket ^ code) >> (7 - bit) & 1 for bit in range(8)]
        return float(sum(abs(margins[table, bit]) for bit in range(8) if flipped[bit]))

    chosen = {(t, c) for t, codes in enumerate(taken) for c in codes.tolist()}
    everything = [(t, c) for t, table in enumerate(tables) for c in table]
    held = sum(tables[t][c] for t, c in chosen)
    assert held >= min(budget, sum(tables[t][c] for t, c in everything))
    dearest = max(cost(t, c) for t, c in chosen)
    assert all(cost(t, c) <= dearest + 1e-4 for t, c in chosen)
    assert all(cost(t, c) >= dearest - 1e-4 for t, c in everything if (t, c) not in chosen)
    last = min(tables[t][c] for t, c in chosen if cost(t, c) >= dearest - 1e-4)
    most = max(tables[t][c] for t, c in chosen if cost(t, c) >= dearest - 1e-4)
    assert held - most < budget or held - last < budget


def test_directed_probing_of_one_bit_begins_at_the_query() -> None:
    directory = arrays({0: 1, 1: 1})
    for code, budget in product((0, 1), (1, 2)):
        (taken,) = directed([directory], [code], np.array([[0.5]], dtype=np.float32), budget)
        assert code in taken.tolist()
        assert len(taken) == budget
