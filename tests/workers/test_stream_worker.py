"""The worker in a thread: failures, leases, maintenance, and the server's bad days."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import exceptions
from rq.exceptions import NoSuchJobError

from stream_hash.queue import (
    HASH_QUEUE,
    SafeJob,
    SafeQueue,
    broker_for,
    enqueue_batch,
    job_id_of,
    live_workers,
    waiting_ids,
)
from stream_hash.queue.arguments import APPLY_BATCH
from tests.servers import wait_until
from workers.base import StreamWorker
from workers.recovery import requeue_abandoned, requeue_stranded

JobFunction = Callable[[Any, str, str], None]


@contextlib.contextmanager
def running(broker: Any, function: JobFunction, **options: Any) -> Iterator[StreamWorker]:
    """A worker in a thread; told to stop, and waited for, when the block ends."""
    options = {"lease_seconds": 2, "maintenance_seconds": 1, "context": None, **options}
    worker = StreamWorker(HASH_QUEUE, broker, functions={APPLY_BATCH: function}, signals=False, **options)
    ended: list[BaseException | None] = []

    def work() -> None:
        try:
            worker.work()
        except BaseException as error:
            ended.append(error)
            raise
        ended.append(None)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(timeout=15)
        assert ended == [None]


def work(broker: Any, function: JobFunction, **options: Any) -> StreamWorker:
    """Work the queue until it is empty."""
    options = {"context": None, **options}
    worker = StreamWorker(HASH_QUEUE, broker, functions={APPLY_BATCH: function}, signals=False, **options)
    worker.work(burst=True)
    return worker


def test_a_job_is_given_the_context_and_its_names(broker: Any, queue: SafeQueue) -> None:
    context, calls = object(), []
    enqueue_batch(queue, "items", "b1")
    work(broker, lambda *arguments: calls.append(arguments), context=context)
    assert calls == [(context, "items", "b1")]


def test_a_job_that_fails_is_retried_three_times_then_stays_failed(broker: Any, queue: SafeQueue) -> None:
    calls = []

    def fail(_context: Any, _index: str, batch: str) -> None:
        calls.append(batch)
        raise ValueError("x" * 100_000)

    enqueue_batch(queue, "items", "b1")
    work(broker, fail)
    assert calls == ["b1"] * 4
    assert broker.hget(SafeJob.key_for("items-b1-5"), "status") == b"failed"
    assert 0 < broker.ttl(SafeJob.key_for("items-b1-5")) <= 3_600
    assert queue.started_job_registry.get_job_ids(cleanup=False) == []
    # The ledger's sweep asks again, and then it goes well.
    enqueue_batch(queue, "items", "b1")
    work(broker, lambda *_: None)
    with pytest.raises(NoSuchJobError):
        SafeJob.fetch("items-b1-5", broker)


def test_a_job_that_takes_too_long_fails(server: Any) -> None:
    queue = SafeQueue(HASH_QUEUE, server)
    job_id = enqueue_batch(queue, "items", "b1")
    server.hset(SafeJob.key_for(job_id), mapping={"timeout": 1, "retries_left": 0})

    def spin(*_: Any) -> None:
        while True:
            time.sleep(0.01)

    work(server, spin)
    assert server.hget(SafeJob.key_for(job_id), "status") == b"failed"


def test_a_job_finished_by_another_delivery_meanwhile_is_no_failure(broker: Any, queue: SafeQueue) -> None:
    calls = []

    def finish_elsewhere(_context: Any, _index: str, batch: str) -> None:
        calls.append(batch)
        broker.delete(*broker.keys("rq:*items-*"))

    enqueue_batch(queue, "items", "b1")
    work(broker, finish_elsewhere)
    assert calls == ["b1"]
    assert broker.keys("rq:*items-*") == []


def test_an_execution_that_was_killed_and_expired_is_no_failure(broker: Any, queue: SafeQueue) -> None:
    # RQ's own clean-up after success raises here, and so turns the success into a retry.
    calls = []
    job_id = enqueue_batch(queue, "items", "b1")
    broker.zadd(f"rq:executions:{job_id}", {"killed": time.time() + 60})
    work(broker, lambda *_: calls.append(1))
    assert calls == [1]
    assert broker.keys("rq:*items-*") == []


def test_a_lease_is_renewed_while_the_job_runs(broker: Any, queue: SafeQueue) -> None:
    begun, calls, scores = threading.Event(), [], []
    release = threading.Event()

    def hold(*_: Any) -> None:
        calls.append(1)
        begun.set()
        release.wait(10)

    enqueue_batch(queue, "items", "b1")
    with running(broker, hold, lease_seconds=1):
        assert begun.wait(10)
        key = queue.started_job_registry.key
        first = broker.zrange(key, 0, -1, withscores=True)[0][1]

        def renewed() -> bool:
            # Looked after all the time, as other workers would: nobody may find the lease run out.
            requeue_abandoned(queue, time.time() - 1)
            scores.extend(score for _, score in broker.zrange(key, 0, -1, withscores=True))
            return max(scores) >= first + 2

        wait_until(renewed, what="the lease to be renewed twice over")
        (worker,) = live_workers(broker, HASH_QUEUE)
        assert worker.state == "busy"
        release.set()
        wait_until(lambda: not broker.exists(key), what="the job to end")
    assert calls == [1]
    assert live_workers(broker, HASH_QUEUE) == []


def abandon(broker: Any, queue: SafeQueue, job_id: str, *, execution: str = "dead", score: float = 1.0) -> None:
    """Leave a job as a worker does that is killed in the middle of it."""
    broker.lrem(queue.key, 0, job_id)
    broker.hset(SafeJob.key_for(job_id), "status", "started")
    broker.zadd(queue.started_job_registry.key, {f"{job_id}:{execution}": score})


def test_many_workers_at_once_queue_an_abandoned_job_again_once(broker: Any, queue: SafeQueue) -> None:
    ids = [enqueue_batch(queue, "items", f"b{number}") for number in range(20)]
    for job_id in ids:
        abandon(broker, queue, job_id)
    threads = [threading.Thread(target=requeue_abandoned, args=(queue, time.time())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(queue.get_job_ids()) == sorted(ids)
    assert {SafeJob.fetch(job_id, broker).retries_left for job_id in ids} == {2}


def test_an_abandoned_job_without_retries_fails(broker: Any, queue: SafeQueue) -> None:
    job_id = enqueue_batch(queue, "items", "b1")
    abandon(broker, queue, job_id)
    broker.hset(SafeJob.key_for(job_id), "retries_left", 0)
    requeue_abandoned(queue, time.time())
    assert queue.get_job_ids() == []
    assert broker.hget(SafeJob.key_for(job_id), "status") == b"failed"
    assert broker.zcard(queue.started_job_registry.key) == 0


def test_a_job_that_was_queued_again_meanwhile_is_not_queued_twice(broker: Any, queue: SafeQueue) -> None:
    job_id = enqueue_batch(queue, "items", "b1")
    abandon(broker, queue, job_id)
    enqueue_batch(queue, "items", "b1")
    requeue_abandoned(queue, time.time())
    assert queue.get_job_ids() == [job_id]
    assert broker.zcard(queue.started_job_registry.key) == 0


def test_a_malformed_abandoned_job_is_set_aside(broker: Any, queue: SafeQueue) -> None:
    job_id = enqueue_batch(queue, "items", "b1")
    abandon(broker, queue, job_id)
    broker.hset(SafeJob.key_for(job_id), "data", b"x")
    requeue_abandoned(queue, time.time())
    assert queue.get_job_ids() == []
    assert broker.exists(f"sh:malformed-job:{job_id}")


def test_a_job_whose_worker_died_before_starting_it_is_done(broker: Any, queue: SafeQueue) -> None:
    done: list[str] = []
    enqueue_batch(queue, "items", "b1")
    SafeQueue.dequeue_any([queue], None, broker)
    with running(broker, lambda _context, _index, batch: done.append(batch), maintenance_seconds=0):
        wait_until(lambda: done, what="the stranded job to be done")
        wait_until(lambda: not broker.exists(queue.intermediate_queue_key), what="its entry to go")
    assert done == ["b1"]


def test_several_workers_put_a_stranded_job_back_once(broker: Any, queue: SafeQueue) -> None:
    job_id = enqueue_batch(queue, "items", "b1")
    SafeQueue.dequeue_any([queue], None, broker)
    memories: list[dict[bytes, float]] = [{}, {}]
    for memory in memories:
        requeue_stranded(queue, memory, 0.0, patience_seconds=30)
    stale = broker.lrange(queue.intermediate_queue_key, 0, -1)
    requeue_stranded(queue, memories[0], 30.0, patience_seconds=30)
    # The second one has read the list before the first one emptied it.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(broker, "lrange", lambda *_: stale)
        requeue_stranded(queue, memories[1], 30.0, patience_seconds=30)
    assert queue.get_job_ids() == [job_id]


def test_a_job_that_only_passes_through_is_not_stranded(broker: Any, queue: SafeQueue) -> None:
    key, memory = queue.intermediate_queue_key, {}
    for moment in (0.0, 15.0, 30.0, 45.0):
        broker.rpush(key, "items-b1-5")
        requeue_stranded(queue, memory, moment, patience_seconds=30)
        broker.delete(key)
        requeue_stranded(queue, memory, moment + 1, patience_seconds=30)
    assert queue.get_job_ids() == []


def test_one_worker_sweeps_in_each_interval(broker: Any) -> None:
    sweeps: list[int] = []
    options = {"on_maintenance": lambda: sweeps.append(1), "maintenance_seconds": 15}
    workers = [work(broker, lambda *_: None, **options) for _ in range(4)]
    assert len(sweeps) == 1
    broker.persist("rq:queue:stream-hash:maintenance")
    workers[0].run_maintenance_tasks()
    assert broker.ttl("rq:queue:stream-hash:maintenance") > 0


def test_maintenance_that_fails_is_logged_and_the_rest_is_done(
    broker: Any, queue: SafeQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("poisoned")

    for name in ("requeue_abandoned", "requeue_stranded", "forget_dead"):
        monkeypatch.setattr(f"workers.recovery.{name}", fail)
    done: list[str] = []
    enqueue_batch(queue, "items", "b1")
    with caplog.at_level(logging.ERROR):
        work(broker, lambda _context, _index, batch: done.append(batch), on_maintenance=fail)
    assert done == ["b1"]
    assert len([record for record in caplog.records if record.exc_info]) == 4


def test_maintenance_ends_when_the_server_is_away(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise exceptions.ConnectionError("away")

    monkeypatch.setattr("workers.recovery.requeue_abandoned", fail)
    worker = StreamWorker(HASH_QUEUE, broker, functions={}, context=None, on_maintenance=pytest.fail, signals=False)
    with pytest.raises(exceptions.ConnectionError):
        worker.run_maintenance_tasks()


def test_dead_workers_are_forgotten(broker: Any) -> None:
    for key in ("rq:workers", "rq:workers:stream-hash"):
        broker.sadd(key, "rq:worker:gone", b"\xff")
    work(broker, lambda *_: None)
    assert broker.exists("rq:workers", "rq:workers:stream-hash") == 0


def test_a_worker_that_the_server_forgot_shows_itself_again(broker: Any) -> None:
    with running(broker, lambda *_: None) as worker:
        wait_until(lambda: live_workers(broker, HASH_QUEUE), what="the worker to show itself")
        broker.flushall()
        wait_until(lambda: live_workers(broker, HASH_QUEUE), what="the worker to show itself again")
        (info,) = live_workers(broker, HASH_QUEUE)
        assert (info.name, info.pid, info.state) == (worker.name, worker.pid, "idle")
        assert 0 < broker.ttl(worker.key) <= 30


def test_a_worker_waits_while_the_server_is_out_of_memory(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    queue = SafeQueue(HASH_QUEUE, server)
    done: list[str] = []
    enqueue_batch(queue, "items", "b1")
    server.config_set("maxmemory", 1)
    with running(server, lambda _context, _index, batch: done.append(batch)), caplog.at_level(logging.WARNING):
        with pytest.raises(exceptions.OutOfMemoryError):
            enqueue_batch(queue, "items", "b2")
        wait_until(lambda: "going on in" in caplog.text, what="the worker to pause")
        server.config_set("maxmemory", 0)
        wait_until(lambda: done == ["b1"], what="the job to be done")


def test_a_worker_that_gets_no_jobs_out_of_memory_does_what_needs_none(server: Any) -> None:
    calls: list[int] = []

    def help_out() -> None:
        calls.append(1)
        raise ValueError("it is logged, and the next time has its turn")

    server.config_set("maxmemory", 1)
    with running(server, lambda *_: None, on_memory_out=help_out):
        wait_until(lambda: len(calls) > 1, what="it to be called, and again")
        server.config_set("maxmemory", 0)


def test_a_flood_of_malformed_entries_does_not_keep_a_worker_from_stopping(broker: Any, queue: SafeQueue) -> None:
    with running(broker, lambda *_: None) as worker:
        wait_until(lambda: live_workers(broker, HASH_QUEUE), what="the worker to show itself")
        for _ in range(50):
            broker.rpush(queue.key, *[b"\xff"] * 1_000)
        worker.stop()
    assert broker.llen(queue.key) > 0


COMMANDS = """
    hello multi exec eval type exists del expire persist rename set
    hset hmget hstrlen hincrby hincrbyfloat lrange lrem lmove blmove rpush sadd srem smembers
    zadd zrem zrangebyscore zremrangebyscore xadd
"""


def test_a_user_who_may_send_only_these_commands_can_work(server: Any, url: str) -> None:
    # No INFO, CLIENT, CONFIG, KEYS, SCAN or SUBSCRIBE, which RQ itself sends or tries.
    rules = [
        "reset",
        "on",
        ">secret",
        "resetchannels",
        "~rq:*",
        "~sh:*",
        "-@all",
        *(f"+{name}" for name in COMMANDS.split()),
    ]
    server.execute_command("ACL", "SETUSER", "worker", *rules)
    done: list[str] = []

    def apply(_context: Any, _index: str, batch: str) -> None:
        if batch == "bad":
            raise ValueError
        done.append(batch)

    try:
        with broker_for(url.replace("unix://", "unix://worker:secret@")) as broker:
            queue = SafeQueue(HASH_QUEUE, broker)
            for name in ("good", "bad", "dead", "stranded", "evil"):
                enqueue_batch(queue, "items", name)
            abandon(server, queue, job_id_of("items", "dead"))
            server.lmove(queue.key, queue.intermediate_queue_key)
            server.hset(SafeJob.key_for(job_id_of("items", "evil")), "status", "hacked")
            server.sadd("rq:workers:stream-hash", "rq:worker:gone")
            server.zadd(queue.started_job_registry.key, {"poison": 0})
            with running(broker, apply, maintenance_seconds=0):
                wait_until(lambda: {"good", "dead", "stranded"} <= set(done), what="the jobs to be done")
                wait_until(lambda: waiting_ids(broker, queue) == set(), what="the queue to be empty")
                bad = SafeJob.key_for(job_id_of("items", "bad"))
                wait_until(lambda: server.hget(bad, "status") == b"failed", what="the bad job to fail")
                assert live_workers(broker, HASH_QUEUE)
    finally:
        server.execute_command("ACL", "DELUSER", "worker")


def test_a_refused_command_ends_the_worker_with_its_error(broker: Any, queue: SafeQueue) -> None:
    class ReadOnlyBroker(type(broker)):  # type: ignore[misc]
        def blmove(self, *_: Any, **__: Any) -> Any:
            raise exceptions.ReadOnlyError("You can't write against a read only replica.")

    broker.__class__ = ReadOnlyBroker
    worker = StreamWorker(HASH_QUEUE, broker, functions={}, context=None, signals=False)
    with pytest.raises(exceptions.ReadOnlyError):
        worker.work()
    assert live_workers(broker, HASH_QUEUE) == []
