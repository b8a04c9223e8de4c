from __future__ import annotations

import threading
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_hash import Index, Producer
from stream_hash.errors import (
    BackPressureError,
    InvalidItemError,
    OutOfMemoryError,
    ServerUnreachableError,
    StreamHashError,
    UsageError,
)
from stream_hash.queue import HASH_QUEUE, SafeQueue, waiting_ids
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch

SETTINGS = IndexSettings(3, metric="l2")


def opened(client: redis.Redis, settings: IndexSettings = SETTINGS) -> Connections:
    connections = Connections(client, client)
    Index.create("x", settings, connections)
    return connections


def apply_all(client: redis.Redis) -> None:
    handle = IndexHandle(client, "x")
    for batch in client.zrange(handle.store.keys.pending, 0, -1):
        apply_batch(handle, batch.decode())


def test_leaving_the_block_flushes_and_what_was_sent_is_found(real_client: redis.Redis) -> None:
    connections = opened(real_client)
    with Producer("x", connections, batch_items=4) as producer:
        for i in range(10):
            producer.upsert(str(i), [i, 0, 0], label=i, metadata={"i": i})
    assert producer.accepted == 10
    assert producer.outstanding() == 3
    assert len(waiting_ids(real_client, SafeQueue(HASH_QUEUE, connection=real_client))) == 3
    apply_all(real_client)
    producer.wait(timeout_seconds=1)
    found = Index("x", connections).query([4, 0, 0], k=3)[0].results
    assert [(r.id, r.label, r.metadata) for r in found] == [
        ("4", 4, {"i": 4}),
        ("3", 3, {"i": 3}),
        ("5", 5, {"i": 5}),
    ]


def test_an_error_in_the_block_sends_nothing_that_was_not_full() -> None:
    with fakeredis.FakeRedis() as client:
        connections = opened(client)
        producer = Producer("x", connections)
        with pytest.raises(InvalidItemError), producer:
            for item_id in ("a", ""):
                producer.upsert(item_id, [1, 2, 3])
        assert IndexHandle(client, "x").ledger.balance().accepted == 0


def test_writes_keep_their_order_across_operations() -> None:
    with fakeredis.FakeRedis() as client:
        connections = opened(client)
        with Producer("x", connections) as producer:
            producer.upsert("a", [1, 2, 3])
            producer.upsert("b", [1, 2, 3])
            producer.delete(["a"])
            producer.upsert("c", [1, 2, 3])
        apply_all(client)
        index = Index("x", connections)
        assert [item and item.id for item in index.get(["a", "b", "c"])] == [None, "b", "c"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 30), max_size=6), batch_items=st.integers(1, 9))
def test_batches_are_full_but_for_the_last(real_client: redis.Redis, sizes: list[int], batch_items: int) -> None:
    real_client.flushall()
    connections = opened(real_client)
    with Producer("x", connections, batch_items=batch_items) as producer:
        for number, size in enumerate(sizes):
            producer.upsert_many([f"{number}-{i}" for i in range(size)], np.ones((size, 3)))
    handle = IndexHandle(real_client, "x")
    stored = sorted((int(n) for n in real_client.hvals(handle.store.keys.sizes)), reverse=True)
    full, rest = divmod(sum(sizes), batch_items)
    assert stored == [batch_items] * full + [rest] * bool(rest)
    apply_all(real_client)
    assert len(Index("x", connections).get([f"0-{i}" for i in range(30)])) == 30
    assert Index("x", connections).status()["items"] == sum(sizes)


def test_a_batch_id_submitted_again_is_applied_once() -> None:
    with fakeredis.FakeRedis() as client:
        connections = opened(client)
        producer = Producer("x", connections)
        batch = Batch("upsert", ["a"], np.ones((1, 3), np.float32), [""], [""])
        for _ in range(3):
            assert producer.submit(batch, "mine")
        apply_all(client)
        assert producer.submit(batch, "mine")
        assert (producer.accepted, IndexHandle(client, "x").ledger.balance().applied) == (1, 1)


@pytest.mark.parametrize(
    ("ids", "vectors", "labels", "metadata", "said"),
    [
        (["ok", ""], np.ones((2, 3)), None, None, "0 bytes"),
        (["ok", "é" * 65], np.ones((2, 3)), None, None, "130 bytes"),
        (["ok", 7], np.ones((2, 3)), None, None, "an id is text"),
        (["ok", "\ud800"], np.ones((2, 3)), None, None, "UTF-8"),
        (["ok", "a"], [[1, 1, 1], [1, np.nan, 1]], None, None, "coordinate 1 is nan"),
        (["ok", "a"], [[1, 1, 1], [1, 1, 1e39]], None, None, "coordinate 2 is inf"),
        (["ok", "a"], np.ones((2, 3)), [1, 2.5], None, "a label is 2.5"),
        (["ok", "a"], np.ones((2, 3)), None, [None, {"a": float("nan")}], "nan"),
        (["ok", "a"], np.ones((2, 3)), None, [None, {"a": {1, 2}}], "no JSON form"),
        (["ok", "a"], np.ones((2, 3)), None, [None, {"a": "x" * 9_000}], "the limit is 8192"),
        (["ok", "a"], np.ones((2, 3)), None, [None, ["not", "an", "object"]], "JSON object"),
    ],
)
def test_a_bad_item_is_refused_by_name_and_nothing_of_the_call_is_taken(
    ids: list[str], vectors: np.ndarray, labels: list[object], metadata: list[object], said: str
) -> None:
    with fakeredis.FakeRedis() as client:
        connections = opened(client)
        producer = Producer("x", connections)
        with pytest.raises(InvalidItemError, match="position 1") as caught:
            producer.upsert_many(ids, np.array(vectors), labels, metadata)  # type: ignore[arg-type]
        assert said in caught.value.why
        producer.flush()
        assert producer.accepted == 0
        faults = producer.upsert_many(ids, np.array(vectors), labels, metadata, skip_invalid=True)  # type: ignore[arg-type]
        producer.flush()
        assert faults.keys() == {1}
        assert producer.accepted == 1


@pytest.mark.parametrize("vectors", [np.ones(3), np.ones((2, 3), complex), np.array([["a", "b", "c"]] * 2)])
def test_an_array_that_holds_no_vectors_is_refused(vectors: np.ndarray) -> None:
    with fakeredis.FakeRedis() as client:
        producer = Producer("x", opened(client))
        with pytest.raises(InvalidItemError):
            producer.upsert_many(["a", "b"], vectors)
        with pytest.raises(UsageError, match="2 ids and 3 vectors"):
            producer.upsert_many(["a", "b"], np.ones((3, 3)))


def test_over_the_bound_a_producer_raises_sheds_or_blocks_as_it_was_told() -> None:
    with fakeredis.FakeRedis() as client:
        connections = opened(client)

        def full(**options: object) -> Producer:
            client.flushall()
            opened(client)
            producer = Producer("x", connections, batch_items=1, max_pending=2, **options)  # type: ignore[arg-type]
            producer.upsert_many(["a", "b"], np.ones((2, 3)))
            return producer

        with pytest.raises(BackPressureError, match="2 batches are pending"):
            full(when_full="raise").upsert("c", [1, 1, 1])
        shedding = full(when_full="shed")
        shedding.upsert("c", [1, 1, 1])
        assert (shedding.accepted, shedding.shed) == (2, 1)
        with pytest.raises(BackPressureError):
            full(when_full="block", timeout_seconds=0.05).upsert("c", [1, 1, 1])

        blocked = full(when_full="block", timeout_seconds=20)
        freeing = threading.Timer(0.1, apply_all, [client])
        freeing.start()
        blocked.upsert("c", [1, 1, 1])
        freeing.join()
        assert blocked.accepted == 3
        assert IndexHandle(client, "x").ledger.balance().applied == 2


def test_a_batch_that_was_refused_stays_buffered_and_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with fakeredis.FakeRedis() as client:
        producer = Producer("x", opened(client), batch_items=2, max_pending=1, when_full="raise")
        producer.upsert_many(["a", "b"], np.ones((2, 3)))
        with pytest.raises(BackPressureError):
            producer.upsert_many(["c", "d"], np.ones((2, 3)))
        with pytest.raises(BackPressureError):
            producer.upsert("e", [1, 1, 1])
        apply_all(client)
        accept = producer._handle.ledger.accept

        def lose_the_reply(*args: Any, **kwargs: Any) -> None:
            accept(*args, **kwargs)
            raise redis.exceptions.ConnectionError

        monkeypatch.setattr(producer._handle.ledger, "accept", lose_the_reply)
        with pytest.raises(ServerUnreachableError):
            producer.flush()
        monkeypatch.undo()
        producer.flush()
        apply_all(client)
        balance = IndexHandle(client, "x").ledger.balance()
        assert (balance.accepted, balance.applied) == (4, 4)
        producer.upsert("e", [1, 1, 1])
        producer.flush()
        apply_all(client)
        assert Index("x", producer._connections).status()["items"] == 5


def test_a_server_out_of_memory_refuses_a_batch_whole_and_takes_it_when_memory_returns(
    real_client: redis.Redis,
) -> None:
    connections = opened(real_client, IndexSettings(1_000))
    producer = Producer("x", connections, when_full="raise", batch_items=100)
    before = real_client.config_get("maxmemory")["maxmemory"]
    try:
        real_client.config_set("maxmemory", real_client.info("memory")["used_memory"] + 100_000)
        with pytest.raises(OutOfMemoryError, match="out of memory"):
            producer.upsert_many([str(i) for i in range(1_000)], np.ones((1_000, 1_000)))
    finally:
        real_client.config_set("maxmemory", before)
    balance = IndexHandle(real_client, "x").ledger.balance()
    assert balance.holds
    assert balance.accepted == producer.accepted < 1_000
    producer.upsert_many([str(i) for i in range(1_000)], np.ones((1_000, 1_000)))
    apply_all(real_client)
    assert Index("x", connections).status()["items"] == 1_000


def test_what_is_accepted_is_safe_when_the_queue_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with fakeredis.FakeRedis() as client, redis.Redis(port=1, retry=None) as broker:
        opened(client)
        with Producer("x", Connections(client, broker)) as producer:
            producer.upsert("a", [1, 2, 3])
        assert producer.accepted == 1
        assert IndexHandle(client, "x").ledger.balance().pending == 1
        assert "could not be put on the queue" in caplog.text


def test_waiting_in_vain_says_what_to_do() -> None:
    with fakeredis.FakeRedis() as client:
        producer = Producer("x", opened(client))
        producer.upsert("a", [1, 2, 3])
        with pytest.raises(StreamHashError, match=r"1 batches .* still pending") as caught:
            producer.wait(timeout_seconds=0.02)
        assert "stream-hash worker" in caught.value.remedy
