"""Chunks built by hash workers: all of them, whatever becomes of a job or a worker, and never too many at a time."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from test_reindex import SMALL, lead, opened, publish

from stream_hash import jobs, priority
from stream_hash.client import Index
from stream_hash.errors import UsageError
from stream_hash.jobs import FUNCTIONS
from stream_hash.queue import (
    BUILD_CHUNK,
    HASH_QUEUE,
    ChunkArgument,
    SafeQueue,
    WorkerInfo,
    enqueue_batch,
    enqueue_chunk,
    live_workers,
)
from stream_hash.service import spread as spread_module
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.service.handle import IndexHandle
from stream_hash.service.reindex import Chunk, Progress, in_process, reindex
from stream_hash.service.spread import Spread
from tests.servers import wait_until
from workers.base import StreamWorker

ITEMS = 5_000
CHUNKS = 5


@pytest.fixture
def broker(server: Any) -> Any:
    """The real server alone: thousands of items take fakeredis too long."""
    return server


@pytest.fixture
def handle(broker: Any) -> IndexHandle:
    broker.flushall()
    return opened(broker, SMALL, ITEMS)


@contextlib.contextmanager
def working(broker: Any, **functions: Any) -> Iterator[Any]:
    """A hash worker in a thread."""
    context = Context(Connections(broker, broker))
    table = {**FUNCTIONS, **({BUILD_CHUNK: functions["build"]} if functions else {})}
    worker = StreamWorker(HASH_QUEUE, broker, functions=table, context=context, signals=False)
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        wait_until(lambda: live_workers(broker, HASH_QUEUE), what="the worker to be there")
        yield worker
    finally:
        worker.stop()
        thread.join(timeout=15)


@pytest.fixture
def never_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever spreads builds nothing itself."""
    monkeypatch.setattr(spread_module.Spread, "_build_here", lambda *_: pytest.fail("a chunk was built here"))


@pytest.fixture
def built_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the chunks that whoever spreads builds itself."""
    numbers: list[int] = []
    build = spread_module.Spread._build_here

    def noted(self: Spread, chunk: Chunk) -> None:
        numbers.append(chunk.number)
        build(self, chunk)

    monkeypatch.setattr(spread_module.Spread, "_build_here", noted)
    return numbers


def pretend(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """That so many workers live, who do nothing."""
    workers = [WorkerInfo(f"w{n}", n, "host", "idle", datetime.now(UTC)) for n in range(count)]
    monkeypatch.setattr(spread_module, "live_workers", lambda *_: workers)


def check(broker: Any, generation: int) -> None:
    index = Index("x", Connections(broker, broker))
    assert index.verify().violations == []
    assert index.status()["generation"] == generation


def test_workers_build_all_chunks_and_progress_is_told(broker: Any, handle: IndexHandle, never_here: None) -> None:
    token = lead(handle)
    generation = publish(handle, 7, token)
    told: list[Progress] = []
    with working(broker):
        reindex(handle, token, generation, run=Spread(handle, broker), on_progress=told.append)
    check(broker, generation)
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    assert (told[-1].done, told[-1].items) == (ITEMS, ITEMS)
    assert broker.llen(SafeQueue(HASH_QUEUE, broker).key) == 0


def test_without_workers_all_is_built_here(broker: Any, handle: IndexHandle, built_here: list[int]) -> None:
    token = lead(handle)
    generation = publish(handle, 7, token)
    reindex(handle, token, generation, run=Spread(handle, broker))
    check(broker, generation)
    assert sorted(built_here) == list(range(CHUNKS))
    assert not broker.exists(SafeQueue(HASH_QUEUE, broker).key)


def test_workers_that_live_and_do_nothing_are_not_waited_for(
    broker: Any, handle: IndexHandle, built_here: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, 2)
    monkeypatch.setattr(spread_module, "STALL_SECONDS", 0.05)
    token = lead(handle)
    generation = publish(handle, 7, token)
    reindex(handle, token, generation, run=Spread(handle, broker))
    check(broker, generation)
    assert sorted(built_here) == list(range(CHUNKS))


def test_a_job_that_is_lost_is_sent_again(
    broker: Any, handle: IndexHandle, never_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread_module, "RESEND_SECONDS", 0.3)
    seen: list[str] = []

    def build(context: Context, index: str, argument: str) -> None:
        seen.append(argument)
        if seen.count(argument) == 2:
            FUNCTIONS[BUILD_CHUNK](context, index, argument)

    token = lead(handle)
    generation = publish(handle, 7, token)
    with working(broker, build=build):
        reindex(handle, token, generation, run=Spread(handle, broker))
    check(broker, generation)
    assert {argument: seen.count(argument) for argument in seen} == {f"0:{generation}:{n}": 2 for n in range(CHUNKS)}


def test_jobs_that_always_fail_are_built_by_whoever_re_indexes(
    broker: Any, handle: IndexHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread_module, "RESEND_SECONDS", 0.05)

    def build(*_: Any) -> None:
        raise ValueError("no")

    token = lead(handle)
    generation = publish(handle, 7, token)
    with working(broker, build=build):
        reindex(handle, token, generation, run=Spread(handle, broker))
    check(broker, generation)


@pytest.mark.parametrize(
    ("workers", "batches", "throttle", "places"), [(2, 0, 1.0, 4), (2, 0, 0.5, 2), (2, 9, 1.0, 1), (4, 9, 1.0, 2)]
)
def test_few_chunks_are_on_their_way_and_fewer_while_batches_wait(
    broker: Any,
    handle: IndexHandle,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    batches: int,
    throttle: float,
    places: int,
) -> None:
    pretend(monkeypatch, workers)
    monkeypatch.setattr(spread_module, "YIELD_SECONDS", 0.0)
    queue = SafeQueue(HASH_QUEUE, broker)
    for number in range(batches):
        enqueue_batch(queue, "x", f"b{number}")
    token = lead(handle)
    generation = publish(handle, 7, token)
    handle.generations.begin(0, generation, token)
    run = Spread(handle, broker, throttle=throttle)([Chunk(0, generation, number) for number in range(CHUNKS)])
    for _ in range(10):
        next(run)
    assert queue.count == batches + places
    # When one is built, the next is sent.
    for _ in in_process(handle)([Chunk(0, generation, 0)]):
        pass
    (first,) = (job_id for job_id in queue.get_job_ids() if job_id.endswith(f"-0-{generation}-0-1c"))
    queue.remove(first)
    if throttle == 1:
        wait_until(lambda: next(run, None) is None and queue.count == batches + places, what="the next to be sent")


def test_while_batches_wait_chunks_get_a_share_of_the_workers_time() -> None:
    spread = Spread.__new__(Spread)
    spread._throttle, spread._crowded = 1.0, True
    for spread._workers, places in ((1, 1), (2, 1), (4, 2), (5, 2), (32, 13)):
        assert spread._places == places
        assert spread._places * spread._share == pytest.approx(spread_module.CROWDED_SHARE * spread._workers)
    spread._throttle = 0.25
    assert spread._share == 0.25
    spread._crowded = False
    assert (spread._places, spread._share) == (32, 0.25)


@pytest.mark.parametrize("throttle", [0, -1, 1.1, float("nan")])
def test_a_throttle_is_a_share(broker: Any, handle: IndexHandle, throttle: float) -> None:
    with pytest.raises(UsageError, match="throttle"):
        Spread(handle, broker, throttle=throttle)


def test_a_chunk_of_an_index_that_is_another_by_now_is_dropped(broker: Any, handle: IndexHandle) -> None:
    context = Context(Connections(broker, broker))
    token = lead(handle)
    generation = publish(handle, 7, token)
    handle.generations.begin(0, generation, token)
    build: Callable[..., None] = FUNCTIONS[BUILD_CHUNK]
    build(context, "x", f"0:{generation}:0")
    assert handle.generations.count_built(0, generation) == 1
    broker.flushall()
    build(context, "nowhere", "0:2:0")
    other = opened(broker, SMALL, 100)
    token = lead(other)
    handle_generation = publish(other, 9, token)
    other.generations.begin(0, handle_generation, token)
    build(context, "x", f"0:{handle_generation}:0")  # it still knows the first, and opens this one the next time
    build(context, "x", f"0:{handle_generation}:0")
    assert other.generations.switch(0, handle_generation, token) is None
    check(broker, handle_generation)


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own elsewhere")
def test_a_chunk_makes_way_for_others_unless_a_batch_waits_behind_it(
    broker: Any, handle: IndexHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def niceness(*_: Any) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    seen: list[int] = []
    monkeypatch.setattr(jobs, "build", lambda *_: seen.append(niceness()))
    context, queue, own = Context(Connections(broker, broker)), SafeQueue(HASH_QUEUE, broker), niceness()
    monkeypatch.setattr(priority, "NICENESS", own + 1)
    jobs.build_chunk(context, "x", "0:2:0")
    enqueue_chunk(queue, "x", ChunkArgument(0, 2, 1))
    jobs.build_chunk(context, "x", "0:2:0")
    enqueue_batch(queue, "x", "b1")
    jobs.build_chunk(context, "x", "0:2:0")
    assert seen == [own + 1, own + 1, own]


def test_partitions_that_are_small_are_built_together(broker: Any) -> None:
    broker.flushall()
    handle = opened(broker, replace(SMALL, partitions=5), ITEMS)
    token = lead(handle)
    generation = publish(handle, 7, token)
    together: list[set[int]] = []

    def run(chunks: Sequence[Chunk]) -> Iterator[None]:
        together.append({chunk.partition for chunk in chunks})
        yield from spread(chunks)

    spread = Spread(handle, broker)
    with working(broker):
        reindex(handle, token, generation, run=run)
    assert together == [set(range(5))]
    check(broker, generation)
