"""Batches and pruning: the same answers as one query at a time with every candidate ranked, for fewer reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_search import CountingConnection, counted_client, filled, ids, vectors

from stream_hash.client import Index
from stream_hash.errors import UsageError
from stream_hash.numerics.asymmetric import table_scores
from stream_hash.service import search as search_module
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import MAX_CANDIDATES, IndexSettings
from stream_hash.storage import buckets as buckets_module
from stream_hash.storage.connection import Client

__all__ = ["counted_client"]  # a fixture


def plain(client: Client, queries: np.ndarray, **plan: Any) -> list[Any]:
    """Each query alone, by a process that keeps nothing, every candidate ranked."""
    return [Index("x", Connections(client, None)).query(query, **plan, fetch=None)[0].results for query in queries]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tables=st.integers(1, 3),
    partitions=st.integers(1, 3),
    metric=st.sampled_from(["cosine", "l2", "inner"]),
    k=st.integers(1, 12),
    budget=st.one_of(st.none(), st.integers(1, 400)),
    seed=st.integers(0, 50),
)
def test_batched_kept_and_pruned_is_what_each_query_finds_alone(
    real_client: redis.Redis, tables: int, partitions: int, metric: Any, k: int, budget: int | None, seed: int
) -> None:
    real_client.flushall()
    index = filled(real_client, IndexSettings(6, bits=8, tables=tables, partitions=partitions, metric=metric), 120)
    queries = vectors(9, 6, seed=seed + 1)
    expected = plain(real_client, queries, k=k, budget=budget)
    for _ in range(2):  # the second time by the directory that is kept
        answers = index.query(queries, k=k, budget=budget, fetch=400)
        assert [answer.results for answer in answers] == expected
    assert [index.query(query, k=k, budget=budget)[0].results for query in queries] == expected


@pytest.mark.parametrize("plan", [{}, {"budget": 40}, {"radius": 2}, {"radius": 0}, {"radius": 5, "k": 200}])
def test_a_batch_answers_as_its_queries_do_alone(client: Client, partitions: int, plan: dict[str, Any]) -> None:
    """Widened or not, on every server; and with calls so small that queries are cut in pieces."""
    index = filled(client, IndexSettings(12, bits=8, tables=2, partitions=partitions), 400)
    queries = vectors(20, 12, seed=3)
    alone = [index.query(query, **plan)[0] for query in queries]
    for keys, at_once in ((buckets_module.UNION_KEYS, buckets_module.UNION_AT_ONCE), (5, 10), (1_000, 3)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(buckets_module, "UNION_KEYS", keys)
            patch.setattr(buckets_module, "UNION_AT_ONCE", at_once)
            for one, other in zip(index.query(queries, **plan), alone, strict=True):
                assert one.results == other.results
                for field in (
                    "generation",
                    "radius",
                    "widened",
                    "probes",
                    "candidates",
                    "reranked",
                    "codes",
                    "buckets",
                ):
                    assert getattr(one, field) == getattr(other, field)


@pytest.mark.parametrize(("partitions", "tables"), [(1, 1), (3, 2)])
def test_a_batch_shares_its_round_trips(counted_client: redis.Redis, partitions: int, tables: int) -> None:
    index = filled(counted_client, IndexSettings(12, bits=10, partitions=partitions, tables=tables), 1_000)
    queries = vectors(150, 12, seed=1)
    index.query(queries[0])
    for count, trips in ((1, 3), (64, 3), (150, 9)):
        CountingConnection.sent = 0
        answers = index.query(queries[:count], k=5, budget=60)
        assert not any(answer.widened for answer in answers)
        assert CountingConnection.sent == trips


def test_a_batch_has_no_more_candidates_than_a_reply_may_hold() -> None:
    assert search_module.Searcher.batch_size(10, search_module.Plan()) == 64
    assert search_module.Searcher.batch_size(10, search_module.Plan(budget=6_000)) == 21
    assert search_module.Searcher.batch_size(10, search_module.Plan(budget=MAX_CANDIDATES)) == 1
    assert search_module.Searcher.batch_size(10_000, search_module.Plan()) == 1


def test_the_vectors_fetched_are_those_of_the_best_signatures(client: Client, partitions: int) -> None:
    index = filled(client, IndexSettings(12, bits=6, partitions=partitions), 300)
    model = IndexHandle(client, "x").model(1)
    stored = model.encode(vectors(300, 12))
    for query in vectors(5, 12, seed=2):
        asked = model.encode_queries(query[None, :])
        scores = table_scores(asked.signature_tables, stored.signatures)[0]
        best = np.argsort(-scores)[:40]
        x, q = vectors(300, 12).astype(float), query.astype(float)
        cosines = x @ q / np.linalg.norm(x, axis=1)
        expected = [ids(300)[row] for row in sorted(best, key=lambda row: (-cosines[row], row))[:10]]
        (answer,) = index.query(query, budget=10_000, fetch=40)
        assert (answer.candidates, answer.reranked) == (300, 40)
        assert [result.id for result in answer.results] == expected


def test_how_many_vectors_are_fetched_unless_told(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=6), 1_000)
    query = vectors(1, 12, seed=2)
    for plan, fetched in (
        ({"budget": 1_000}, 200),
        ({"budget": 1_000, "k": 20}, 400),
        ({"budget": 5_000}, 500),
        ({"budget": 1_000, "fetch": None}, 1_000),
        ({"budget": 1_000, "fetch": 10}, 10),
        ({"radius": 6}, 1_000),
        ({"radius": 6, "fetch": 70}, 70),
    ):
        assert index.query(query, **plan)[0].reranked == fetched, plan
    for wrong in ({"fetch": 9}, {"fetch": 0}, {"fetch": 20, "exact": True}, {"fetch": "all"}):
        with pytest.raises(UsageError):
            index.query(query, **wrong)


def test_results_without_records_are_the_same_but_for_labels(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=6), 200)
    query = vectors(1, 12, seed=2)
    with_records, without = index.query(query)[0].results, index.query(query, records=False)[0].results
    assert [(one.id, one.score) for one in with_records] == [(one.id, one.score) for one in without]
    assert {one.label for one in without} == {None}


def test_queries_under_which_the_index_changed_are_answered_one_by_one(client: Client) -> None:
    """Candidates of the first are deleted between gather and fetch; the others are not begun again with it."""
    index = filled(client, IndexSettings(12, bits=8), 30)
    queries = vectors(30, 12)[3:6]
    nearest = [result.id for result in index.query(queries[0], k=30, exact=True)[0].results]
    gather = index._handle.buckets.gather

    def gather_then_delete(probes: Any) -> Any:
        found = gather(probes)
        index._handle.buckets.gather = gather  # type: ignore[method-assign]  # once
        Index("x", Connections(client, None)).delete(nearest[:25])
        return found

    index._handle.buckets.gather = gather_then_delete  # type: ignore[method-assign]
    for query, answer in zip(queries, index.query(queries, radius=8), strict=True):
        assert answer.results == index.query(query, exact=True)[0].results


def test_unions_stay_the_lists_that_they_come_as(real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make a set of each takes as long as to read it."""
    index = filled(real_client, IndexSettings(12, bits=6), 100)
    members, kinds = buckets_module._members, set[type]()

    def noted(pieces: Any) -> Any:
        kinds.update(map(type, pieces))
        return members(pieces)

    monkeypatch.setattr(buckets_module, "_members", noted)
    index.query(vectors(3, 12))
    assert kinds == {list}
