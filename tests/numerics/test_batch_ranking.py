"""The nearest to each of many queries are those that each would find alone, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.numerics import batch_ranking
from stream_hash.numerics.batch_ranking import NearestOfEach
from stream_hash.numerics.ranking import NearestK
from stream_hash.settings import Metric

METRICS: tuple[Metric, ...] = ("cosine", "l2", "inner")


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 150),
    asked=st.integers(1, 6),
    k=st.integers(1, 15),
    pieces=st.integers(1, 5),
    at_once=st.sampled_from([1, 20, 256]),
)
def test_each_finds_what_it_would_find_alone(
    metric: Metric, seed: int, count: int, asked: int, k: int, pieces: int, at_once: int
) -> None:
    rng = np.random.default_rng(seed)
    # few distinct vectors, so that exact ties are common; and others, so that last bits differ
    x = rng.integers(-2, 3, (count, 4)).astype(np.float32) + np.float32(0.25)
    x[::3] = rng.standard_normal((len(x[::3]), 4))
    queries = rng.standard_normal((asked, 4)).astype(np.float32)
    ids = [f"i{n}" for n in rng.permutation(count)]
    wanted = rng.random((asked, count)) < rng.random((asked, 1))
    together = NearestOfEach(queries, k, metric)
    alone = [NearestK(query, k, metric) for query in queries]
    everything, everyone = NearestOfEach(queries, k, metric), [NearestK(query, k, metric) for query in queries]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_ranking, "SCORED_AT_ONCE", at_once)
        for piece in np.array_split(np.arange(count), pieces):
            own = [ids[at] for at in piece]
            rows = [np.flatnonzero(wanted[query, piece]) for query in range(asked)]
            together.offer(own, x[piece], rows)
            everything.offer(own, x[piece])
            for one, other, some in zip(alone, everyone, rows, strict=True):
                one.offer([own[at] for at in some.tolist()], x[piece][some])
                other.offer(own, x[piece])
        assert together.ranked() == [one.ranked() for one in alone]
        assert everything.ranked() == [one.ranked() for one in everyone]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_rounding_never_loses_a_result_of_an_earlier_or_later_piece(metric: Metric, scale: float) -> None:
    rng = np.random.default_rng(1)
    centre = rng.normal(size=256)
    # vectors that float32 cannot tell apart by their scores
    x = ((centre + rng.normal(size=(600, 256)) * 1e-6) * scale).astype(np.float32)
    queries = np.stack([centre, centre + rng.normal(size=256) * 1e-6]).astype(np.float32) * np.float32(scale)
    ids = [f"{row:03}" for row in range(600)]
    together = NearestOfEach(queries, 10, metric)
    for start in range(0, 600, 150):
        together.offer(ids[start : start + 150], x[start : start + 150])
    for query, own in zip(queries, together.ranked(), strict=True):
        alone = NearestK(query, 10, metric)
        alone.offer(ids, x)
        assert own == alone.ranked()


def test_vectors_that_are_all_equally_near_do_not_pile_up() -> None:
    x = np.ones((1_000, 8), np.float32)
    nearest = NearestOfEach(x[:3], 5, "cosine")
    for piece in range(6):
        nearest.offer([f"{piece}{row:03}" for row in range(1_000)], x)
        assert max(map(len, nearest._ids)) <= batch_ranking.SCORED_AT_ONCE + 5
    assert [[item_id for item_id, _ in own] for own in nearest.ranked()] == [[f"{row:04}" for row in range(5)]] * 3
