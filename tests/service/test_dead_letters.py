"""Dead letters that are retried, on every server: what is stored in the end, and what the sweep lets them hold."""

from __future__ import annotations

from typing import Any

import fakeredis
import numpy as np
import pytest

from stream_hash import jobs
from stream_hash.queue import HASH_QUEUE, SafeQueue
from stream_hash.service import dead_letters, ingest, sweep
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.service.dropping import drop_index
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import MAX_DELIVERIES, apply_batch
from stream_hash.service.items import delete_items, get_items, label_items
from stream_hash.service.verify import verify
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.ledger import Balance
from stream_hash.storage.store import Store


@pytest.fixture
def broker() -> Any:
    return fakeredis.FakeRedis()


@pytest.fixture
def handle(client: Client, partitions: int) -> IndexHandle:
    Store(client, "x").create(IndexSettings(3, bits=4, partitions=partitions))
    return IndexHandle(client, "x")


def rows(values: list[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([[value, 1, 2] for value in values], np.float32)


def accept(handle: IndexHandle, name: str, ids: str, values: list[float]) -> None:
    handle.ledger.accept(name, Batch("upsert", list(ids), rows(values)), lease_until=0)


def kill(handle: IndexHandle, name: str, ids: str, values: list[float]) -> None:
    """Accept a batch over which each worker dies."""
    accept(handle, name, ids, values)
    for _ in range(MAX_DELIVERIES):
        handle.ledger.begin(name, lease_until=0)
    apply_batch(handle, name)


def apply_pending(handle: IndexHandle) -> None:
    for batch in handle.ledger.lease_overdue(2**52, 0):
        apply_batch(handle, batch)


def first_coordinates(handle: IndexHandle, ids: str) -> list[float | None]:
    return [None if item is None else float(item.vector[0]) for item in get_items(handle, list(ids))]


def swept(handle: IndexHandle) -> int:
    return sweep.sweep(handle, lambda *_: True, lambda *_: None)


def test_what_is_newer_than_a_retried_batch_stays_whatever_it_is(handle: IndexHandle, broker: Any) -> None:
    kill(handle, "dead", "abcde", [1, 1, 1, 1, 1])
    accept(handle, "new", "a", [2])
    apply_batch(handle, "new")
    delete_items(handle, ["b"])
    label_items(handle, ["c"], ["cat"])
    accept(handle, "on its way", "d", [2])
    swept(handle)
    swept(handle)
    assert handle.ledger.balance() == Balance(9, 3, 1, 5, 1)
    assert verify(handle).violations == []
    dealt = dead_letters.retry(handle, broker, dead_letters.numbers_of(handle))
    assert (dealt.letters, dealt.items, dealt.undone) == (1, 5, 0)
    assert len(SafeQueue(HASH_QUEUE, connection=broker).get_job_ids()) == 1
    (batch,) = dealt.batches
    apply_batch(handle, batch)
    apply_batch(handle, "on its way")
    assert dead_letters.dead_again(handle, dealt) == 0
    assert first_coordinates(handle, "abcde") == [2, None, 1, 2, 1]
    assert get_items(handle, ["c"])[0].label == "cat"  # type: ignore[union-attr] # it is there
    assert handle.ledger.balance() == Balance(9, 9, 0, 0, 0)
    swept(handle)
    assert verify(handle).violations == []


def test_a_refused_item_is_refused_again_as_the_same_letter(handle: IndexHandle, broker: Any) -> None:
    accept(handle, "x", "ab", [1, float("nan")])
    apply_batch(handle, "x")
    (number,) = dead_letters.numbers_of(handle, "nan")
    for _ in range(2):
        dealt = dead_letters.retry(handle, broker, [number])
        (batch,) = dealt.batches
        apply_batch(handle, batch)
        assert dead_letters.dead_again(handle, dealt) == 1
        assert dead_letters.numbers_of(handle) == [number]
        assert handle.ledger.balance() == Balance(2, 1, 0, 1, 0)
    assert dead_letters.drop(handle, [number, number]).missing == [number]
    assert handle.ledger.balance() == Balance(2, 1, 0, 0, 0, 1)
    assert verify(handle).violations == []


def test_letters_that_hold_too_many_tombstones_lapse_the_oldest_first(
    handle: IndexHandle, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(handle, "old", "a", [1])
    delete_items(handle, [f"gone-{n}" for n in range(40)])
    kill(handle, "young", "b", [1])
    delete_items(handle, ["a", "c"])
    old, young = dead_letters.numbers_of(handle)
    swept(handle)
    assert handle.ledger.held([old, young]) == [True, True]
    monkeypatch.setattr(sweep, "TOMBSTONES_KEPT", 4 * handle.settings.partitions)
    swept(handle)
    assert handle.ledger.held([old, young]) == [False, True]
    dealt = dead_letters.retry(handle, broker, [old, young])
    assert (dealt.lapsed, dealt.letters) == ([old], 1)
    apply_pending(handle)
    assert first_coordinates(handle, "ab") == [None, 1]
    assert dead_letters.retry(handle, broker, [old], anew=True).letters == 1
    apply_pending(handle)
    assert first_coordinates(handle, "ab") == [1, 1]
    assert handle.ledger.balance().holds
    swept(handle)
    tombstones = [handle.client.zcard(handle.store.partition(p).tombstones) for p in range(handle.settings.partitions)]
    assert sum(tombstones) == 0


def test_a_letter_whose_job_was_never_sent_is_found_by_the_sweep(handle: IndexHandle) -> None:
    kill(handle, "dead", "a", [1])
    handle.ledger.retry(1, "again", now=0, lease_until=0, anew=False)
    sent: list[str] = []
    sweep.sweep(handle, lambda *_: False, lambda _, batch: sent.append(batch))
    assert sent == ["again"]


def test_verify_notices_letters_that_are_not_counted(handle: IndexHandle) -> None:
    kill(handle, "dead", "ab", [1, 2])
    assert verify(handle).violations == []
    handle.client.hincrby(handle.store.keys.counters, "dead", 1)
    handle.client.hincrby(handle.store.keys.counters, "accepted", 1)
    assert verify(handle).violations == ["the dead letters hold 2 items, and 3 are counted as dead"]


def test_a_worker_that_was_paused_while_its_index_was_dropped_writes_nothing(
    client: Client, handle: IndexHandle, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun the batch, and hashed it; then the index goes, and another of the name comes."""
    accept(handle, "first", "ab", [1, 2])
    apply_batch(handle, "first")
    context = Context(Connections(client, broker))
    context.index("x")
    for create in (False, True):
        accept(handle, "late", "c", [3])

        def gone(*_: object, create: bool = create, **__: object) -> dict[int, str]:
            drop_index(client, "x")
            if create:
                Store(client, "x").create(handle.settings)
                IndexHandle(client, "x").begin_first_generation(rows([]))
            return {}

        with monkeypatch.context() as patch:
            patch.setattr(ingest, "item_faults", gone)
            jobs.apply_batch(context, "x", "late")
        keys = [key for key in client.scan_iter(match="sh:{x*") if b":dropped:" not in key]
        assert bool(keys) == create
        if not create:
            jobs.apply_batch(context, "x", "late")
            Store(client, "x").create(handle.settings)
            handle.reopen()
        else:
            fresh = IndexHandle(client, "x")
            assert first_coordinates(fresh, "abc") == [None, None, None]
            assert verify(fresh).violations == []
