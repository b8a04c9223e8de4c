"""A producer with `flush_seconds`: nothing waits in the buffer for longer, and nothing is sent twice or lost."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis

from stream_hash.client import Index
from stream_hash.errors import ServerUnreachableError, UsageError
from stream_hash.producer import Producer
from stream_hash.service.connections import Connections
from stream_hash.service.flush_timer import FlushTimer
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import MAX_BATCH_ITEMS, IndexSettings
from tests.servers import wait_until


@pytest.fixture
def connections() -> Connections:
    client = fakeredis.FakeRedis()
    connections = Connections(client, client)
    Index.create("x", IndexSettings(3), connections)
    return connections


def accepted(connections: Connections) -> int:
    return IndexHandle(connections.client, "x").ledger.balance().accepted


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "flush-timer"]


def test_what_is_buffered_is_sent_in_time_again_and_again(connections: Connections) -> None:
    producer = Producer("x", connections, flush_seconds=0.05)
    for count in (1, 2, 3):
        producer.upsert(f"i{count}", [1, 2, 3])
        wait_until(lambda count=count: producer.accepted == count, what="the item to be accepted")
    assert accepted(connections) == 3
    producer.flush()
    assert accepted(connections) == 3


def test_the_first_item_counts_not_the_last(connections: Connections) -> None:
    producer = Producer("x", connections, batch_items=MAX_BATCH_ITEMS, flush_seconds=0.3)
    sent = 0

    def keep_adding() -> bool:
        nonlocal sent
        producer.upsert(f"i{sent}", [1, 2, 3])
        sent += 1
        return producer.accepted > 0

    wait_until(keep_adding, what="a batch although items keep coming")
    assert 0 < producer.accepted <= sent


def test_without_it_there_is_no_thread_and_with_it_only_once_something_is_buffered(connections: Connections) -> None:
    others = timers()  # of tests before, which may take a moment to go
    Producer("x", connections).upsert("a", [1, 2, 3])
    producer = Producer("x", connections, flush_seconds=60)
    assert set(timers()) <= set(others)
    producer.upsert("b", [1, 2, 3])
    producer.upsert("c", [1, 2, 3])
    assert len(set(timers()) - set(others)) == 1
    assert accepted(connections) == 0
    del producer
    gc.collect()
    wait_until(lambda: set(timers()) <= set(others), what="the thread to go with its producer")


def test_what_the_timer_could_not_send_is_raised_by_the_next_call_and_sent_once(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = Producer("x", connections, flush_seconds=0.02)
    accept, tried = producer._handle.ledger.accept, threading.Event()

    def lose_the_reply(*args: Any, **kwargs: Any) -> None:
        accept(*args, **kwargs)
        tried.set()
        raise redis.exceptions.ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(producer._handle.ledger, "accept", lose_the_reply)
        producer.upsert("a", [1, 2, 3])
        assert tried.wait(20)
        with pytest.raises(ServerUnreachableError):
            wait_until(lambda: producer.upsert("b", [1, 2, 3]), what="the error")
    buffered = producer._buffered
    producer.flush()
    assert producer._late is None
    assert accepted(connections) == buffered  # under the id of the first attempt: "a" was accepted before
    producer.upsert("c", [1, 2, 3])


def test_it_tries_again_by_itself(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    producer = Producer("x", connections, flush_seconds=0.02)
    submit, failures = producer.submit, [redis.exceptions.ConnectionError(), ValueError("odd")]

    def fail_twice(*args: Any) -> bool:
        if failures:
            raise failures.pop()
        return submit(*args)

    monkeypatch.setattr(producer, "submit", fail_twice)
    producer.upsert("a", [1, 2, 3])
    wait_until(lambda: producer.accepted == 1, what="the third attempt")
    producer.upsert("b", [1, 2, 3])  # and what is over is not raised


def test_a_block_that_is_left_by_an_error_sends_nothing_more(connections: Connections) -> None:
    with pytest.raises(KeyError), Producer("x", connections, flush_seconds=0.2) as producer:
        producer.upsert("a", [1, 2, 3])
        raise KeyError
    assert producer._timer is not None
    assert producer._timer._state._due is None
    assert accepted(connections) == 0


def test_two_threads_lose_and_double_nothing(connections: Connections) -> None:
    with Producer("x", connections, batch_items=7, max_pending=0, flush_seconds=0.0005) as producer:
        for number in range(1_000):
            producer.upsert(f"i{number}", np.ones(3))
    assert producer.accepted == accepted(connections) == 1_000


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5"])
def test_what_is_no_time_is_refused(connections: Connections, seconds: Any) -> None:
    with pytest.raises(UsageError, match="flush_seconds is"):
        Producer("x", connections, flush_seconds=seconds)


def test_a_timer_does_not_keep_its_owner() -> None:
    class Owner:
        def __init__(self) -> None:
            self.called = threading.Event()
            self.timer = FlushTimer(0.01, self.flush)

        def flush(self) -> None:
            self.called.set()

    owner = Owner()
    owner.timer.arm()
    assert owner.called.wait(20)
    gone = weakref.ref(owner)
    del owner
    wait_until(lambda: gc.collect() is not None and gone() is None, what="the owner to go")
