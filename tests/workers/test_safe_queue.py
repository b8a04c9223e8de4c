"""Enqueueing, dequeueing and who is there: what it costs and what it survives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.job import JobStatus

from stream_hash.errors import StreamHashError, UsageError
from stream_hash.queue import (
    HASH_QUEUE,
    TRAIN_QUEUE,
    SafeJob,
    SafeQueue,
    broker_for,
    enqueue_batch,
    job_id_of,
    live_workers,
    waiting_ids,
)
from stream_hash.queue.arguments import APPLY_BATCH
from stream_hash.queue.broker import tag_of
from workers.base import StreamWorker


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """How often this thread has written to a server since the last call."""
    counts = {"sent": 0}
    send = AbstractConnection.send_packed_command
    here = threading.get_ident()

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        counts["sent"] += threading.get_ident() == here
        return send(self, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)

    def since_last() -> int:
        sent, counts["sent"] = counts["sent"], 0
        return sent

    return since_last


def test_a_batch_is_enqueued_as_rq_would_read_it(broker: Any, queue: SafeQueue) -> None:
    job_id = enqueue_batch(queue, "items", "b1")
    job = SafeJob.fetch(job_id, broker)
    assert (job.func_name, job.args, job.kwargs) == (APPLY_BATCH, ["items", "b1"], {})
    assert (job.origin, job.timeout, job.retries_left) == (HASH_QUEUE, 120, 3)
    assert job.get_status() == JobStatus.QUEUED
    assert Queue(HASH_QUEUE, connection=broker).job_ids == [job_id]
    stored = broker.hgetall(job.key)
    assert stored[b"result_ttl"] == b"0"
    assert stored[b"failure_ttl"] == b"3600"


def test_enqueueing_takes_one_round_trip(server: Any, round_trips: Callable[[], int]) -> None:
    queue = SafeQueue(HASH_QUEUE, server)
    enqueue_batch(queue, "items", "b1")
    round_trips()
    enqueue_batch(queue, "items", "b2")
    assert round_trips() == 1
    assert waiting_ids(server, queue) == {"items-b1-5", "items-b2-5"}
    assert round_trips() == 1
    assert live_workers(server, HASH_QUEUE) == []
    assert round_trips() <= 2


def test_a_job_takes_four_round_trips(server: Any, round_trips: Callable[[], int]) -> None:
    # Greetings are no part of a job: the worker and its heartbeats find connections that have had theirs.
    for connection in [server.connection_pool.get_connection() for _ in range(2)]:
        server.connection_pool.release(connection)

    def work() -> int:
        functions = {APPLY_BATCH: lambda *_: None}
        StreamWorker(HASH_QUEUE, server, functions=functions, context=None, signals=False).work(burst=True)
        return round_trips()

    queue = SafeQueue(HASH_QUEUE, server)
    work()
    idle = work()
    for number in range(20):
        enqueue_batch(queue, "items", f"b{number}")
    round_trips()
    assert work() - idle == 20 * 4


def test_two_batches_never_share_a_job_id() -> None:
    assert job_id_of("a", "b-c") != job_id_of("a-b", "c")
    assert len({job_id_of(index, batch) for index in ("a", "a-b", "b") for batch in ("b-c", "c", "1")}) == 9


@pytest.mark.parametrize(("index", "batch"), [("a b", "c"), ("a", "c:d"), ("", "c"), ("a", "x" * 65)])
def test_a_batch_with_a_name_that_is_none_is_refused(index: str, batch: str, queue: SafeQueue) -> None:
    with pytest.raises(UsageError):
        enqueue_batch(queue, index, batch)
    assert queue.count == 0


def test_a_repeated_enqueue_is_done_and_leaves_no_key(broker: Any, queue: SafeQueue) -> None:
    done: list[str] = []
    enqueue_batch(queue, "items", "b1")
    enqueue_batch(queue, "items", "b1")
    assert queue.get_job_ids() == ["items-b1-5"] * 2
    functions = {APPLY_BATCH: lambda _context, _index, batch: done.append(batch)}
    StreamWorker(HASH_QUEUE, broker, functions=functions, context=None, signals=False).work(burst=True)
    assert done == ["b1"]
    assert not [key for key in broker.keys("*") if b"items" in key]


def test_a_finished_job_leaves_no_key_at_all(broker: Any, queue: SafeQueue) -> None:
    enqueue_batch(queue, "items", "b1")
    functions = {APPLY_BATCH: lambda *_: None}
    StreamWorker(HASH_QUEUE, broker, functions=functions, context=None, signals=False).work(burst=True)
    left = {key for key in broker.keys("*") if b":worker:" not in key}
    assert left == {b"rq:queues", b"rq:queue:stream-hash:maintenance"}


def test_a_job_is_moved_and_never_popped(broker: Any, queue: SafeQueue) -> None:
    enqueue_batch(queue, "items", "b1")
    taken = SafeQueue.dequeue_any([queue], None, broker)
    assert taken is not None
    assert taken[0].id == "items-b1-5"
    assert broker.lrange(queue.intermediate_queue_key, 0, -1) == [b"items-b1-5"]
    assert waiting_ids(broker, queue) == {"items-b1-5"}


def test_several_queues_are_refused(broker: Any, queue: SafeQueue) -> None:
    with pytest.raises(StreamHashError, match="stream-hash, stream-hash-train"):
        SafeQueue.dequeue_any([queue, SafeQueue(TRAIN_QUEUE, broker)], None, broker)


def test_after_a_dropped_entry_a_waiting_worker_looks_up(broker: Any, queue: SafeQueue) -> None:
    broker.rpush(queue.key, b"\xff", b"\xff")
    with pytest.raises(DequeueTimeout):
        SafeQueue.dequeue_any([queue], 5, broker)
    assert broker.llen(queue.key) == 1


def test_a_slice_of_ids_is_that_of_rq(broker: Any, queue: SafeQueue) -> None:
    for number in range(4):
        enqueue_batch(queue, "i", f"{number}")
    ids = [f"i-{number}-1" for number in range(4)]
    assert queue.job_ids == ids
    assert queue.get_job_ids(1, 2) == ids[1:3]
    assert queue.get_job_ids(0, 0) == []
    assert [job.id for job in queue.get_jobs()] == ids


def test_entries_of_the_directory_that_are_no_workers_are_left_out(broker: Any) -> None:
    good = {"pid": 7, "hostname": "h", "state": "busy", "last_heartbeat": "2026-01-02T03:04:05.000006Z"}
    hashes: dict[str, dict[str, Any]] = {
        "good": good,
        "pid": good | {"pid": "x"},
        "date": good | {"last_heartbeat": "now"},
        "bytes": good | {"hostname": b"\xff"},
        "long": good | {"hostname": "h" * 1_000},
        "partial": {"state": "idle"},
    }
    directory = f"rq:workers:{HASH_QUEUE}"
    for name, fields in hashes.items():
        broker.hset(f"rq:worker:{name}", mapping=fields)
        broker.sadd(directory, f"rq:worker:{name}")
    broker.set("rq:worker:string", "x")
    broker.sadd(directory, "rq:worker:string", "rq:worker:expired", b"\xff", "")
    (worker,) = live_workers(broker, HASH_QUEUE)
    assert (worker.name, worker.pid, worker.hostname, worker.state) == ("good", 7, "h", "busy")
    assert worker.last_heartbeat.year == 2026


@pytest.mark.parametrize(
    ("prefix", "tag"),
    [("rq", ""), ("{rq}", "{rq}"), ("a{b}c", "{b}"), ("{}", ""), ("{", ""), ("}{a}", "{a}"), ("{}{a}", "")],
)
def test_the_hash_tag_of_a_prefix_is_what_redis_takes_for_it(prefix: str, tag: str) -> None:
    assert tag_of(prefix) == tag


def test_a_broker_has_a_pool_and_a_timeout_of_its_own(url: str) -> None:
    with broker_for(url) as first, broker_for(url) as second:
        assert first.connection_pool is not second.connection_pool
        assert first.ping()
        StreamWorker(HASH_QUEUE, first, functions={}, context=None)
        assert second.connection_pool.connection_kwargs["socket_timeout"] == 10.0


def test_an_absent_broker_is_noticed_within_seconds() -> None:
    with pytest.raises(redis.exceptions.ConnectionError):
        broker_for("unix:///nowhere/at/all.sock")
