"""What monitoring is told is what is there, on every server, at a bounded cost."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import redis

from stream_hash.client import Index
from stream_hash.exporter import Exporter, values
from stream_hash.jobs import apply_batch as run_job
from stream_hash.queue import HASH_QUEUE, SafeQueue, enqueue_batch
from stream_hash.service import query_figures
from stream_hash.service.answer import Answer
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import MAX_DELIVERIES, apply_batch
from stream_hash.service.monitoring import IndexView, look
from stream_hash.service.query_figures import FLUSH_SECONDS, Left, QueryFigures
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.ledger import Ledger
from stream_hash.storage.scrape import SAMPLED, scrape
from stream_hash.storage.store import Store
from stream_hash.storage.tallies import Tallies

SETTINGS = {"dimension": 4, "bits": 4}


def batch(count: int, start: int = 0, label: str = "") -> Batch:
    x = np.random.default_rng(start).normal(size=(count, 4)).astype(np.float32)
    return Batch("upsert", [f"i{start + n}" for n in range(count)], x, [label] * count, [""] * count)


def create(client: Client, name: str = "x", **settings: int) -> IndexHandle:
    Store(client, name).create(IndexSettings(**{**SETTINGS, **settings}))
    return IndexHandle(client, name)


def accept(handle: IndexHandle, name: str, batch: Batch) -> None:
    handle.ledger.accept(name, batch, lease_until=0)


def fill(handle: IndexHandle, name: str, batch: Batch) -> None:
    accept(handle, name, batch)
    apply_batch(handle, name)


def view_of(client: Client, name: str = "x", now: int = 0) -> IndexView:
    (scraped,) = scrape(client, [name], np.random.default_rng(0))
    return IndexView(scraped, now)


def test_an_index_is_told_of_as_status_tells_of_it(client: Client, partitions: int) -> None:
    handle = create(client, partitions=partitions, tables=2)
    fill(handle, "a", batch(200, label='"red"'))
    fill(handle, "b", batch(40, start=1_000))
    fill(handle, "c", Batch("delete", ["i0", "i1"]))
    fill(handle, "d", Batch("label", ["i2"], labels=[""]))
    for item in ("i8", "i9"):
        fill(handle, item, Batch("upsert", [item], np.full((1, 4), np.nan, np.float32), [""], [""]))
    assert handle.ledger.drop(handle.ledger.letter_numbers()[0]) == 1
    accept(handle, "waits", batch(7, start=2_000))

    view, status = view_of(client), Index("x", Connections(client, None)).status()
    found = {
        "items": view.items,
        "buckets": view.buckets,
        "mean_bucket": round(view.mean_bucket, 2),
        "largest_bucket": view.largest_bucket,
        "pending": view.pending_items,
        "pending_batches": view.pending_batches,
        "labelled": view.labelled,
        "generation": view.live,
    }
    assert found == {name: status[name] for name in found}
    assert (view.items, view.pending_items, view.dead_letters, view.labelled) == (238, 7, 1, 197)
    assert view.tallies == {
        **{"batches": 7, "deliveries": 6, "upserted": 240, "deleted": 2, "labelled": 1},
        "buried:invalid": 2,
    }
    assert (view.building, view.reindexed, view.is_trained, view.run, view.precision) == (0, 1.0, False, {}, None)


def test_lag_is_the_age_of_the_oldest_pending_batch(client: Client) -> None:
    handle = create(client)
    assert view_of(client, now=10**15).lag_seconds == 0
    accept(handle, "a", batch(1))
    accept(handle, "b", batch(1, start=9))
    client.hset(handle.store.keys.arrived, mapping={"a": 5_000, "b": 8_000})
    assert view_of(client, now=12_500).lag_seconds == 7.5
    assert view_of(client, now=4_000).lag_seconds == 0  # its producer's clock is ahead
    apply_batch(handle, "a")
    assert view_of(client, now=12_500).lag_seconds == 4.5
    client.hdel(handle.store.keys.arrived, "b")  # as an earlier version accepted it
    assert view_of(client, now=12_500).lag_seconds == 0


def test_a_re_index_is_told_of_until_it_is_live_everywhere(client: Client, partitions: int) -> None:
    handle = create(client, partitions=partitions)
    fill(handle, "a", batch(100))
    lead = handle.trainer.lead("me", now=0, until=5_000)
    arrays = handle.models.load(1)
    target = handle.trainer.publish(lead.token, arrays, kind="lsh", created=1.0).generation
    view = view_of(client, now=4_000)
    assert (view.live, view.building, view.reindexed, view.is_trained) == (1, target, 0.0, True)
    for partition in range(partitions):
        handle.generations.begin(partition, target, lead.token)
        assert view_of(client).reindexed < 1
    client.setbit(handle.store.partition(0).built(target), 0, 1)
    sizes = [items for items, _ in handle.reader.sizes()]
    assert view_of(client).reindexed == sizes[0] / 100
    for partition in range(partitions):
        client.hset(handle.store.partition(partition).state, mapping={"live": target, "building": ""})
    view = view_of(client, now=6_000)
    assert (view.live, view.building, view.reindexed, view.is_trained) == (target, 0, 1.0, False)


def test_the_largest_bucket_is_found_by_a_sample_and_skew_tells_of_it(real_client: redis.Redis) -> None:
    client = real_client
    handle = create(client, bits=12)
    fill(handle, "even", batch(2_000))
    even = view_of(client)
    same = np.tile(np.float32([1, 2, 3, 4]), (600, 1))
    fill(handle, "same", Batch("upsert", [f"s{n}" for n in range(600)], same, [""] * 600, [""] * 600))
    view = view_of(client)
    assert view.items > 8 * SAMPLED
    assert view.largest_bucket == Index("x", Connections(client, None)).status()["largest_bucket"] >= 600
    assert view.bucket_skew > 2 * even.bucket_skew


def test_failures_and_burials_are_told_by_reason(real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    client = real_client
    handle, context = create(client), Context(Connections(client, client))
    accept(handle, "a", batch(3))
    for error in (MemoryError(), redis.ConnectionError(), ValueError("no"), ValueError("no")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            handle.ledger.begin("a", lease_until=0)
            raise error

        monkeypatch.setattr("stream_hash.jobs.apply_to", fail)
        with pytest.raises(type(error)):
            run_job(context, "x", "a")
    monkeypatch.undo()
    assert handle.ledger.begin("a", lease_until=0).attempts == MAX_DELIVERIES + 1
    apply_batch(handle, "a")
    accept(handle, "b", batch(2))
    client.set(handle.store.keys.batch("b"), b"damaged")
    apply_batch(handle, "b")
    tallies = view_of(client).tallies
    assert {name: count for name, count in tallies.items() if ":" in name} == {
        **{"failed:memory": 1, "failed:server": 1, "failed:error": 2},
        **{"buried:exhausted": 3, "buried:damaged": 2},
    }


def test_an_index_that_is_gone_is_left_out(client: Client) -> None:
    create(client)
    found = scrape(client, ["nobody", "x"], np.random.default_rng(0))
    assert [index.name for index in found] == ["x"]


class CountingConnection(redis.UnixDomainSocketConnection):
    """Counts how often anything is sent: the round trips."""

    sent = 0

    def send_packed_command(self, command, check_health=True):
        CountingConnection.sent += 1
        return super().send_packed_command(command, check_health)


def test_a_scrape_takes_as_many_round_trips_for_many_indexes_as_for_one(
    real_client: redis.Redis, embedded_url: str
) -> None:
    pool = redis.ConnectionPool(connection_class=CountingConnection, path=embedded_url.removeprefix("unix://"))
    with redis.Redis(connection_pool=pool) as counted:
        connections, sent = Connections(counted, counted), []
        for count in (1, 5):
            for number in range(count):
                fill(create(real_client, f"x{number}", partitions=3, tables=2), f"b{number}", batch(300))
            look(connections, np.random.default_rng(0))
            CountingConnection.sent = 0
            view = look(connections, np.random.default_rng(0))
            assert view.indexes == len(view.views) == count
            sent.append(CountingConnection.sent)
    assert sent[0] == sent[1] <= 12


def test_a_scrape_needs_no_right_to_write(real_client: redis.Redis, embedded_url: str) -> None:
    fill(create(real_client), "a", batch(300, label='"red"'))
    rights = ["-@all", "+@read", "+@connection", "+@transaction", "+info", "+eval", "+evalsha"]
    real_client.execute_command("ACL", "SETUSER", "reader", "on", "nopass", "~*", "resetchannels", *rights)
    path = embedded_url.removeprefix("unix://")
    try:
        with redis.Redis(unix_socket_path=path, username="reader", password="") as reader:
            before = real_client.execute_command("DBSIZE")
            view = look(Connections(reader, reader), np.random.default_rng(0))
            assert view.views[0].items == 300
            assert dict(values(view))["items"] == {("x",): 300}
            assert real_client.execute_command("DBSIZE") == before

            index = Index("x", Connections(reader, reader))
            index.query(np.ones(4), k=3)
            index._figures.flush()
            assert index._figures.stays
            assert index.query_figures["queries"] == 1
    finally:
        real_client.execute_command("ACL", "DELUSER", "reader")
    assert "queries" not in view_of(real_client).tallies


def test_the_queries_of_an_index_object_that_is_gone_are_told_by_a_later_query_of_the_process(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_figures, "_left", Left())
    fill(create(client), "a", batch(50))
    index = Index("x", Connections(client, None))
    answers = index.query(np.ones((3, 4)), k=2) + index.query(np.ones(4), k=2)
    del index
    assert "queries" not in view_of(client).tallies  # objects go in the midst of anything: no call to the server then
    other = Index("x", Connections(client, None))
    other.query(np.ones(4), k=2)
    tallies = view_of(client).tallies
    assert (tallies["queries"], tallies["candidates"]) == (4, sum(answer.candidates for answer in answers))
    assert sum(count for name, count in tallies.items() if name.startswith("within:")) == 4


@pytest.mark.parametrize("failure", [redis.ConnectionError, redis.RedisClusterException])
def test_what_an_index_object_left_waits_for_a_server_that_is_away(
    client: Client, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    monkeypatch.setattr(query_figures, "_left", Left())
    handle, moment = create(client), [0.0]

    def figures() -> QueryFigures:
        return QueryFigures(Tallies(client, "x"), lambda: handle.identity.nonce, clock=lambda: moment[0])

    *gone, other = figures(), figures(), figures()
    for one in gone:
        one.add([Answer(seconds=0.001, candidates=7)])
    for one in gone:
        one.leave()
    calls = []

    def away(*_: object) -> None:
        calls.append(1)
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(Tallies, "add", away)
        other.add([])
    assert len(calls) == 1  # nor is each that is left tried in vain
    other.add([])
    assert view_of(client).tallies == {}  # another server's queries do not wait for it each time
    moment[0] = FLUSH_SECONDS
    other.add([])
    assert view_of(client).tallies["queries"] == 2
    moment[0] = 2 * FLUSH_SECONDS
    other.add([])
    assert view_of(client).tallies["queries"] == 2


def test_a_process_brings_the_figures_of_its_queries_when_it_ends(real_client: redis.Redis, embedded_url: str) -> None:
    fill(create(real_client), "a", batch(50))
    script = (
        "import sys, numpy\nfrom stream_hash import Index\nkept = Index('x', sys.argv[1])\n"
        "kept.query(numpy.ones(4), k=2)\nIndex('x', sys.argv[1]).query(numpy.ones(4), k=2)"
    )
    subprocess.run([sys.executable, "-c", script, embedded_url], check=True)
    assert view_of(real_client).tallies["queries"] == 2


def test_figures_of_queries_are_brought_every_few_seconds_and_wait_for_a_server_that_is_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, moment = create(client), [0.0]
    figures = QueryFigures(Tallies(client, "x"), lambda: handle.identity.nonce, clock=lambda: moment[0])
    slow, fast = Answer(seconds=99.0, candidates=5), Answer(seconds=0.001, candidates=7)
    figures.add([slow, fast])
    assert view_of(client).tallies == {}
    moment[0] = FLUSH_SECONDS

    def away(*_: object) -> None:
        raise redis.ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(Tallies, "add", away)
        figures.add([fast])
    figures.add([fast])
    assert view_of(client).tallies == {}  # it is asked again when the next few seconds have passed
    moment[0] = 2 * FLUSH_SECONDS
    figures.add([])
    told = {"queries": 4, "candidates": 26, "microseconds": 99_003_000, "within:0.001": 3, "within:+Inf": 1}
    assert view_of(client).tallies == told == figures.total
    figures.flush()
    assert view_of(client).tallies == told
    assert not figures.stays


def test_a_damaged_summary_of_quality_does_not_stop_a_scrape(real_client: redis.Redis) -> None:
    handle = create(real_client)
    real_client.hset(handle.store.keys.quality, "summary", "no json")
    real_client.lpush(
        handle.store.keys.runs, json.dumps({"decision": "live", "started": 3.0, "figures": {"churn": 0.2}})
    )
    found = dict(values(look(Connections(real_client, real_client), np.random.default_rng(0))))
    assert "live_precision_ratio" not in found
    assert found["last_training_churn_ratio"] == {("x",): 0.2}
    assert found["last_training_decision"]["x", "live"] == 1
    assert sum(found["last_training_decision"].values()) == 1


def test_workers_and_jobs_are_counted(real_client: redis.Redis) -> None:
    enqueue_batch(SafeQueue(HASH_QUEUE, connection=real_client), "x", "b")
    view = look(Connections(real_client, real_client), np.random.default_rng(0))
    assert view.jobs == {"hash": 1, "train": 0}
    assert not view.workers
    assert Exporter(lambda: Connections(real_client, real_client), "0").look().jobs == view.jobs
    assert Ledger(real_client, "x").balance().holds
