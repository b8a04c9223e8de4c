from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_hash.numerics.codes import hamming_distances, pack_bits, unpack_bits


@given(st.integers(1, 64).flatmap(lambda w: st.lists(st.lists(st.booleans(), min_size=w, max_size=w), min_size=1)))
def test_the_first_bit_is_the_most_significant(rows: list[list[bool]]) -> None:
    packed = pack_bits(np.array(rows, dtype=np.bool_))
    assert packed.tolist() == [int("".join("01"[bit] for bit in row), 2) for row in rows]


@given(st.integers(1, 64), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_unpacking_undoes_packing(width: int, codes: list[int]) -> None:
    kept = np.array([code % 2**width for code in codes], dtype=np.uint64)
    assert (pack_bits(unpack_bits(kept, width)) == kept).all()


@given(st.lists(st.integers(0, 2**62 - 1), min_size=1), st.integers(0, 2**62 - 1))
def test_a_hamming_distance_counts_the_differing_bits(codes: list[int], code: int) -> None:
    distances = hamming_distances(np.array(codes, dtype=np.uint64), code)
    assert distances.tolist() == [(c ^ code).bit_count() for c in codes]
