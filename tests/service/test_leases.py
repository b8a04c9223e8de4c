"""Leases go by the server's clock: a process whose own is an hour wrong keeps none longer, and takes none away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

import fakeredis
import numpy as np
import pytest

from stream_hash import Index, Producer, clock, jobs
from stream_hash.producer import GRACE_MILLISECONDS
from stream_hash.service import dead_letters, items, lease
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import LEASE_MILLISECONDS, apply_batch
from stream_hash.service.sweep import sweep
from stream_hash.settings import IndexSettings
from stream_hash.storage import server_clock
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.ledger import DeadLetter
from stream_hash.storage.server_clock import ASK_AGAIN_SECONDS, server_milliseconds
from stream_hash.storage.trainer_state import Held

SETTINGS = IndexSettings(3, bits=4)
BATCH = Batch("upsert", ["a"], np.ones((1, 3), np.float32), None, None)
MINUTE = 60_000


class _StoppedError(Exception):
    pass


def _leases(handle: IndexHandle) -> str:
    return handle.store.keys.prefix + "leases"


@pytest.fixture(params=[-3_600, 3_600], ids=["an hour behind", "an hour ahead"])
def wrong(request: pytest.FixtureRequest) -> Iterator[Connections]:
    """A process with a wrong clock, and an index with a dead letter."""
    client = fakeredis.FakeRedis()
    connections = Connections(client, client)
    Index.create("x", SETTINGS, connections)
    handle = IndexHandle(client, "x")
    handle.ledger.accept("dead", BATCH, lease_until=0)
    delivery = handle.ledger.begin("dead", lease_until=0)
    assert delivery is not None
    handle.ledger.finish("dead", [DeadLetter(delivery.first, 1, "dead", "why", delivery.payload)])
    moved = SimpleNamespace(time=lambda: time.time() + request.param)
    with mock.patch.object(clock, "time", moved):
        assert abs(clock.now_seconds() - time.time()) > 3_000
        yield connections


def lease_of(handle: IndexHandle, batch: str) -> float:
    """How long the lease of a batch still runs, in milliseconds of the server's clock."""
    until = handle.client.zscore(_leases(handle), batch)
    seconds, microseconds = handle.client.time()
    return float(until - seconds * 1_000 - microseconds / 1_000)


def stopped(*_: object, **__: object) -> None:
    raise _StoppedError


def test_each_lease_of_a_batch_runs_as_long_as_it_shall(wrong: Connections) -> None:
    handle = IndexHandle(wrong.client, "x")
    Producer("x", wrong).submit(BATCH, "b")
    assert 0 < lease_of(handle, "b") <= GRACE_MILLISECONDS
    assert sweep(handle, lambda *_: False, stopped) == 0, "it is not due"
    with mock.patch.object(handle.store, "upsert", stopped), pytest.raises(_StoppedError):
        apply_batch(handle, "b")
    assert GRACE_MILLISECONDS < lease_of(handle, "b") <= LEASE_MILLISECONDS
    assert sweep(handle, lambda *_: False, stopped) == 0
    handle.client.zadd(_leases(handle), {"b": 0})
    assert sweep(handle, lambda *_: False, lambda *_: None) == 1
    assert GRACE_MILLISECONDS < lease_of(handle, "b") <= LEASE_MILLISECONDS
    context = Context(wrong)
    with mock.patch.object(jobs, "apply_to", stopped), pytest.raises(_StoppedError):
        jobs.apply_batch(context, "x", "b")
    assert -MINUTE < lease_of(handle, "b") <= 0, "given back, it is due at once"
    with mock.patch.object(jobs, "apply_batch"):
        assert jobs.apply_overdue(context) == 1
    assert GRACE_MILLISECONDS < lease_of(handle, "b") <= LEASE_MILLISECONDS


def test_each_lease_of_what_an_operator_does_runs_as_long_as_it_shall(wrong: Connections) -> None:
    handle = IndexHandle(wrong.client, "x")
    (letter,) = handle.ledger.letter_numbers()
    retried = dead_letters.retry(handle, wrong.broker, [letter])
    (batch,) = retried.batches
    assert GRACE_MILLISECONDS < lease_of(handle, batch) <= LEASE_MILLISECONDS
    with mock.patch.object(items, "apply_batch", stopped), pytest.raises(_StoppedError):
        items.delete_items(handle, ["a"])
    (deletes,) = set(handle.client.zrange(_leases(handle), 0, -1)) - {batch.encode()}
    assert GRACE_MILLISECONDS < lease_of(handle, deletes.decode()) <= LEASE_MILLISECONDS


def test_the_lease_of_a_trainer_is_neither_longer_nor_another_s(
    wrong: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = IndexHandle(wrong.client, "x")
    now = int(time.time() * 1_000)
    handle.trainer.lead("another", now=now, until=now + LEASE_MILLISECONDS)
    with lease.leading(handle) as held:
        assert held == Held("another", now + LEASE_MILLISECONDS)
    handle.client.hset(handle.store.keys.trainer, "until", now)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    renewed = []
    renew = lease.TrainerState.renew
    monkeypatch.setattr(lease.TrainerState, "renew", lambda *a, **k: (renewed.append(k["until"]), renew(*a, **k)))
    with lease.leading(handle) as mine:
        assert isinstance(mine, lease.Lease)
        until = int(handle.client.hget(handle.store.keys.trainer, "until") or 0)
        while not renewed:
            time.sleep(0.001)
    for end in (until, renewed[0]):
        assert 0 < end - int(time.time() * 1_000) <= lease.LEASE_MILLISECONDS


def test_the_server_is_asked_once_a_minute(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = mock.Mock(wraps=server_clock.Scripts)
    monkeypatch.setattr(server_clock, "Scripts", asked)
    moment = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(server_clock, "time", moment)
    first = server_milliseconds(client, "x")
    assert abs(first - time.time() * 1_000) < MINUTE
    moment.monotonic = lambda: ASK_AGAIN_SECONDS - 1
    assert server_milliseconds(client, "x") == first + 59_000
    assert asked.call_count == 1
    moment.monotonic = lambda: ASK_AGAIN_SECONDS
    assert abs(server_milliseconds(client, "x") - time.time() * 1_000) < MINUTE
    assert asked.call_count == 2
    server_milliseconds(client, "y")
    assert asked.call_count == 3, "the leases of another index may stand on another server"
