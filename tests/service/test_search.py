from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import oracle
import pytest
import redis

from stream_hash.client import Index
from stream_hash.errors import IndexMissingError, UsageError
from stream_hash.numerics.model import lsh_model
from stream_hash.numerics.probing import ball_size
from stream_hash.service import probing as probing_module
from stream_hash.service import ranking as ranking_module
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.settings import IndexSettings, Metric
from stream_hash.storage import buckets as buckets_module
from stream_hash.storage.buckets import BucketReader, Gathered, Probes
from stream_hash.storage.codec import Batch, Values
from stream_hash.storage.connection import Client
from stream_hash.storage.reads import Reader

METRICS: tuple[Metric, ...] = ("cosine", "l2", "inner")


def filled(client: Client, settings: IndexSettings, count: int, *, name: str = "x", seed: int = 0) -> Index:
    """An index of `count` random items, some of them exact duplicates."""
    index = Index.create(name, settings, Connections(client, None))
    handle = IndexHandle(client, name)
    x = vectors(count, settings.dimension, seed)
    for start in range(0, count, 1_000):
        part = slice(start, min(count, start + 1_000))
        labels = [str(i % 7) for i in range(part.start, part.stop)]
        batch = Batch("upsert", ids(count)[part], x[part], labels, None)
        handle.ledger.accept(f"b{start}", batch, lease_until=0)
        apply_batch(handle, f"b{start}")
    return index


def ids(count: int) -> list[str]:
    return [f"i{i:05}" for i in range(count)]


def vectors(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(0.3, 1, (count, dimension)).astype(np.float32)
    x[count // 2 : count // 2 + 5] = x[0]
    return x


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("tables", [1, 4])
def test_probing_every_bucket_returns_what_exact_search_and_plain_numpy_return(
    client: Client, metric: Metric, tables: int, partitions: int
) -> None:
    settings = IndexSettings(12, bits=10, tables=tables, metric=metric, partitions=partitions)
    index = filled(client, settings, 400)
    queries = np.vstack([vectors(8, 12, seed=5), vectors(400, 12)[:2]])
    probed = index.query(queries, radius=10)
    exact = index.query(queries, exact=True)
    for query, by_radius, truth in zip(queries, probed, exact, strict=True):
        expected = oracle.naive_search(query, ids(400), vectors(400, 12), metric, 10)
        assert [r.id for r in by_radius.results] == expected
        assert [(r.id, r.score) for r in truth.results] == [(r.id, r.score) for r in by_radius.results]
        assert by_radius.candidates == 400


@pytest.mark.parametrize("enumerate_at_least", [0, 10**6])
@pytest.mark.parametrize("tables", [1, 2])
def test_the_candidates_of_every_radius_are_the_brute_force_ball(
    client: Client, partitions: int, tables: int, enumerate_at_least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the ball is enumerated or the directory walked."""
    monkeypatch.setattr(probing_module, "ENUMERATE_AT_LEAST", enumerate_at_least)
    monkeypatch.setattr(probing_module, "SMALL_BALL", enumerate_at_least)
    settings = IndexSettings(12, bits=9, tables=tables, partitions=partitions)
    index = filled(client, settings, 300)
    model = IndexHandle(client, "x").model(1)
    stored = model.encode(vectors(300, 12)).codes
    for query in vectors(4, 12, seed=8):
        code = model.encode_queries(query[None]).codes[0]
        distances = np.bitwise_count(stored ^ code).min(axis=1)
        for radius in range(10):
            (answer,) = index.query(query, k=1, radius=radius)
            inside = int((distances <= radius).sum())
            if inside:
                assert (answer.candidates, answer.radius, answer.widened) == (inside, radius, False)
            if enumerate_at_least:
                assert answer.probes == tables * partitions * ball_size(9, radius) or not inside


def test_k_results_come_back_whenever_the_index_holds_k_items(client: Client, partitions: int) -> None:
    index = filled(client, IndexSettings(12, bits=30, partitions=partitions), 60)
    query = vectors(1, 12, seed=3)
    for k in (1, 10, 59, 60, 500):
        (answer,) = index.query(query, k=k, radius=0)
        assert len(answer.results) == min(k, 60)
    assert answer.widened
    (narrow,) = index.query(query, k=60, budget=5)
    assert len(narrow.results) == 60


def test_a_budget_gathers_the_likeliest_buckets_until_it_is_reached(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=8), 400)
    (answer,) = index.query(vectors(1, 12, seed=3), k=5, budget=60)
    assert 60 <= answer.candidates < 120
    assert answer.radius is None


def test_an_empty_index_answers_with_nothing_and_sees_its_first_items(client: Client) -> None:
    index = Index.create("x", IndexSettings(12), Connections(client, None))
    assert index.query(vectors(1, 12))[0].results == []
    filled(client, IndexSettings(12), 20)
    assert len(index.query(vectors(1, 12))[0].results) == 10


def test_results_carry_labels_and_metadata(client: Client) -> None:
    index = Index.create("x", IndexSettings(2), Connections(client, None))
    handle = IndexHandle(client, "x")
    metadata = ['{"a":[1,null]}', ""]
    handle.ledger.accept(
        "b", Batch("upsert", ["p", "q"], np.eye(2, dtype=np.float32), ['"cat"', ""], metadata), lease_until=0
    )
    apply_batch(handle, "b")
    first, second = index.query([1.0, 0.0])[0].results
    assert (first.id, first.score, first.label, first.metadata) == ("p", 1.0, "cat", {"a": [1, None]})
    assert (second.label, second.metadata) == (None, None)


def switch_generation(client: Client) -> None:
    """Build generation 2 by hand, switch to it, and delete half of generation 1's buckets."""
    handle = IndexHandle(client, "x")
    model = lsh_model(IndexSettings(12, bits=6, seed=99), vectors(100, 12))
    handle.models.publish(handle.identity.nonce, 2, model.to_arrays(), kind="lsh", created=0.0)
    keys = handle.store.partition(0)
    client.hset(keys.state, "building", "2")
    handle.reload_states()
    handle.ledger.accept("again", Batch("upsert", ids(100), vectors(100, 12), None, None), lease_until=0)
    apply_batch(handle, "again")
    client.hset(keys.state, mapping={"live": "2", "building": ""})
    for key in sorted(client.scan_iter(match=keys.prefix + "bucket:1:*"))[::2]:
        client.delete(key)


def reads_of_a_replaced_generation_are_whole(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=6), 100)
    queries = vectors(5, 12, seed=4)
    assert {answer.generation for answer in index.query(queries, radius=6)} == {1}
    switch_generation(client)
    probed = index.query(queries, radius=6, widen=False)
    assert {answer.generation for answer in probed} == {2}
    assert [answer.results for answer in probed] == [answer.results for answer in index.query(queries, exact=True)]


def test_a_search_whose_generation_was_replaced_begins_again_with_the_new_one(client: Client) -> None:
    reads_of_a_replaced_generation_are_whole(client)


def test_a_search_that_does_not_check_live_is_caught(real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule's mutant: whatever is live is taken for the generation that was planned with."""
    gather = BucketReader.gather

    def unchecked(self: BucketReader, probes: list[Probes]) -> list[Gathered]:
        found = gather(self, probes)
        return [replace(one, live=probe.generation) for probe, one in zip(probes, found, strict=True)]

    monkeypatch.setattr(BucketReader, "gather", unchecked)
    with pytest.raises(AssertionError, match=r"\{1\} == \{2\}"):  # the generations that answered
        reads_of_a_replaced_generation_are_whole(real_client)


def test_live_and_buckets_are_read_in_one_transaction(real_client: redis.Redis) -> None:
    """Seen from the server: MULTI, the state, the union, EXEC, with nothing of ours in between."""
    index = filled(real_client, IndexSettings(12, bits=6), 100)
    index.query(vectors(1, 12))
    with real_client.monitor() as monitor:
        index.query(vectors(1, 12))
        commands: list[str] = []
        while not any(command.startswith("MGET") for command in commands):
            commands.append(monitor.next_command()["command"])
    names = [command.split(" ")[0] for command in commands]
    start = names.index("MULTI")
    assert names[start : names.index("EXEC")] == ["MULTI", "HMGET", "HLEN", "LRANGE", "SUNION"]


@pytest.mark.parametrize("partitions", [1, 4])
def test_more_buckets_than_one_call_may_read_are_read_in_several(
    client: Client, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets_module, "UNION_KEYS", 7)
    index = filled(client, IndexSettings(12, bits=8, tables=2, partitions=partitions), 200)
    queries = vectors(3, 12, seed=4)
    probed = index.query(queries, radius=8)
    assert [answer.results for answer in probed] == [answer.results for answer in index.query(queries, exact=True)]
    assert {answer.candidates for answer in probed} == {200}


class Meddling(Reader):
    """Deletes an item right after its value was first read."""

    victim = ""
    delete: Callable[[str], object]

    def values(self, wanted: Sequence[tuple[int, np.ndarray]]) -> list[Values]:
        found = super().values(wanted)
        victim, self.victim = self.victim, ""
        if victim:
            self.delete(victim)
        return found


@pytest.mark.parametrize("plan", [{"radius": 8}, {"exact": True}])
def test_an_item_deleted_between_two_reads_is_neither_returned_nor_missed_by_the_count(
    client: Client, plan: dict[str, Any]
) -> None:
    index = filled(client, IndexSettings(12, bits=8), 30)
    query = vectors(30, 12)[3]
    index.query(query)
    meddling = Meddling(client, "x", index.settings)
    meddling.victim, meddling.delete = "i00003", lambda item_id: Index("x", Connections(client, None)).delete([item_id])
    index._handle.reader = meddling
    results = index.query(query, k=10, **plan)[0].results
    assert len(results) == 10
    assert "i00003" not in {result.id for result in results}


def test_candidates_deleted_before_they_are_fetched_are_made_up_for(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=8), 30)
    query = vectors(30, 12)[3]
    nearest = [result.id for result in index.query(query, k=20, exact=True)[0].results]
    gather = index._handle.buckets.gather

    def gather_then_delete(probes: list[Probes]) -> list[Gathered]:
        found = gather(probes)
        index._handle.buckets.gather = gather  # type: ignore[method-assign]  # once
        Index("x", Connections(client, None)).delete(nearest[:10])
        return found

    index._handle.buckets.gather = gather_then_delete  # type: ignore[method-assign]
    assert [result.id for result in index.query(query, k=10, radius=8)[0].results] == nearest[10:]


class CountingConnection(redis.UnixDomainSocketConnection):
    """Counts how often anything is sent: the round trips."""

    sent = 0

    def send_packed_command(self, command, check_health=True):
        CountingConnection.sent += 1
        return super().send_packed_command(command, check_health)


@pytest.fixture
def counted_client(real_client: redis.Redis, embedded_url: str) -> Iterator[redis.Redis]:
    path = embedded_url.removeprefix("unix://")
    pool = redis.ConnectionPool(connection_class=CountingConnection, path=path)
    with redis.Redis(connection_pool=pool) as client:
        yield client
    pool.disconnect()


@pytest.mark.parametrize(("partitions", "tables"), [(1, 1), (5, 3)])
def test_a_search_takes_three_round_trips_and_two_more_for_a_directory_not_kept(
    counted_client: redis.Redis, partitions: int, tables: int
) -> None:
    index = filled(counted_client, IndexSettings(12, bits=12, partitions=partitions, tables=tables), 3_000)
    index.query(vectors(1, 12, seed=1), k=3, radius=2)
    for plan, trips in (
        ({"radius": 2}, 3),
        ({"budget": 50}, 5),
        ({"budget": 50}, 3),
        ({}, 3),
        ({"radius": 3}, 3),
        ({"records": False}, 2),
    ):
        CountingConnection.sent = 0
        (answer,) = index.query(vectors(1, 12, seed=2), k=3, **plan)
        assert not answer.widened
        assert CountingConnection.sent == trips, plan


def test_more_candidates_than_one_fetch_may_hold_are_ranked_piece_by_piece(
    client: Client, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking_module, "FETCH_BYTES", 4 * 12 * 33)
    index = filled(client, IndexSettings(12, bits=8, partitions=partitions), 300)
    for query in vectors(3, 12, seed=2):
        (probed,), (exact,) = index.query(query, radius=8), index.query(query, exact=True)
        assert probed.results == exact.results
        assert probed.reranked == 300


def test_queries_that_cannot_be_ranked_are_refused_by_name(client: Client) -> None:
    index = filled(client, IndexSettings(12), 20)
    zero, nan = np.zeros((1, 12)), np.full((1, 12), np.nan)
    for bad, match in ((np.ones((1, 5)), "shape"), (zero, "cannot be ranked"), (nan, "cannot be ranked")):
        with pytest.raises(UsageError, match=match):
            index.query(bad)
    for wrong in ({"k": 0}, {"k": 10**6}, {"radius": -1}, {"budget": 0}, {"radius": 1, "budget": 5}):
        with pytest.raises(UsageError):
            index.query(np.ones(12), **wrong)
    with pytest.raises(IndexMissingError, match="no index 'nothing'"):
        Index("nothing", Connections(client, None))
