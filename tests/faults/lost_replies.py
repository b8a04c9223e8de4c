"""What a deployment does in its life, in one thread and in one order; and all that is on the server in the end.

Two runs, of which one loses replies, must leave the same: whatever was sent again had no second effect.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import redis

from stream_hash import Index, Producer, jobs
from stream_hash.clock import now_milliseconds
from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE
from stream_hash.service import asking, lease
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.service.export import export_index
from stream_hash.service.handle import IndexHandle
from stream_hash.service.restore import abandon_import, import_index
from stream_hash.service.schedule import Schedule, Trainers
from stream_hash.service.scoring import Scorer
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.imports import Imports
from stream_hash.storage.plans import Plans
from stream_hash.storage.scripts import sources
from stream_hash.storage.tallies import OUTCOMES, Tallies
from tests.faults.chaos_producer import batch_of
from tests.faults.in_one_thread import apply_all, work
from tests.faults.killed_requests import ask
from tests.faults.killed_traffic import DIMENSION
from tests.faults.lossy_proxy import LossyProxy

INDEX: Final = "x"
BATCHES: Final = 16
FAILING: Final = "p-6"
PLAN: Final = {"force": True, "window": 300, "held_out": 100, "least": 50}

_VOLATILE: Final = re.compile(rb"rq:.*|sh:\{x\}:(?:answer|progress|receipt|learner|trainer).*|.*:dropped:.*")
"""The queue's own keys, and what holds moments or names made up at random."""

_NAMES: Final = (b"nonce", b"token")
"""Of the index, made up at random; and of the trainers: a request that is delivered again is taken up by another."""

_OF_QUERIES: Final = re.compile(r"queries|candidates|microseconds|within:.*")
"""Tallies of a process that asks: they tell of time, and are brought to the server by a call that may count twice."""

_OF_THE_RUN: Final = {"id", "started", "seconds", "created", "nonce"}

_FIGURES: Final = f"sh:{{{INDEX}}}:figures"
_QUALITY: Final = f"sh:{{{INDEX}}}:quality"
_TALLIES: Final = f"sh:{{{INDEX}}}:tallies".encode()


def run(client: redis.Redis, url: str) -> dict[str, Any]:
    """A life on an empty server, reached by `url`; what it left behind."""
    client.flushall()
    client.script_flush()
    live(url)
    return left_behind(client)


def run_losing(
    client: redis.Redis, server: Path, folder: Path, loses: Callable[[list[str]], bool], *, slow: float = 0.0
) -> dict[str, Any]:
    """A life on a server whose replies are lost or late. server : its socket. slow : seconds, in the mean."""
    rng = np.random.default_rng(0)
    own = folder / f"lossy-{secrets.token_hex(4)}"
    proxy = LossyProxy(server, own, loses, delay_seconds=lambda: float(rng.exponential(slow)) if slow else 0.0)
    try:
        return run(client, proxy.url)
    finally:
        proxy.close()


def live(url: str) -> None:
    """Live through it. Raises whatever the product does not put right by itself."""
    connections = Connections.open(url)
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(50, DIMENSION)).astype(np.float32)
    index = Index.create(INDEX, IndexSettings(DIMENSION, bits=6, partitions=2), connections, sample=sample)
    producer = Producer(INDEX, connections)
    context = Context(connections)
    context.scorer = Scorer(clock=lambda: float(producer.accepted))  # scoring takes no time: each batch is scored
    trainers = Trainers(connections, Schedule(1e9, 10**9))
    with _failing_once(FAILING), mock.patch.object(lease, "RENEW_SECONDS", 0.02):
        for number in range(1, BATCHES + 1):
            producer.submit(batch_of("p", number), f"p-{number}")
            work(connections, HASH_QUEUE, jobs.FUNCTIONS, context)
            if number % 4 == 0:
                apply_all(context, INDEX)
            if number == BATCHES // 2:
                _train(connections, trainers)
    ids = [f"p-{n}" for n in range(60, 72)]
    index.label(ids, ["late"] * len(ids))
    index.delete(ids[:5])
    _train(connections, trainers)
    asking.roll_back(connections, INDEX, 2, timeout_seconds=60, on_doing=lambda _: None)
    ask("another target", connections, INDEX, variables={}, log=None)  # a generation half begun is to be given up
    trainers.look()
    plans, nonce = Plans(connections.client, INDEX), IndexHandle(connections.client, INDEX).identity.nonce
    assert plans.save(nonce, {"k": 1})
    assert plans.forget(nonce)
    answers = index.query(sample[:5], k=5)
    assert all(len(answer.results) == 5 for answer in answers)
    assert len(index.query(sample[0], k=5, label="late")[0].results) == 5
    assert [item.id for item in index.get(ids[5:]) if item] == ids[5:]
    assert index.verify().violations == []
    apply_all(context, INDEX)
    _command(connections, index, producer, context)


def _command(connections: Connections, index: Index, producer: Producer, context: Context) -> None:
    """What an operator may do besides: with dead letters, with a file, and with an index that is wanted no more."""
    producer.submit(Batch("upsert", ["bad"], np.full((1, DIMENSION), np.nan, np.float32), None, None), "bad")
    apply_all(context, INDEX)
    (letter,) = index.dead_numbers()
    index.retry_dead([letter])
    apply_all(context, INDEX)
    assert index.dead_numbers() == [letter], "it cannot be stored now either"
    index.drop_dead([letter])
    file = io.BytesIO()
    exported = export_index(IndexHandle(connections.client, INDEX), file, writer="test")
    file.seek(0)
    assert import_index(connections.client, file, "file", "again").items == exported.items
    assert Index("again", connections).verify().violations == []
    Index.drop("again", connections)
    Imports(connections.client, "again").begin("digest", index.settings, sequence=0, now=0.0)
    assert abandon_import(connections.client, "again")


def never_called(seen: Collection[str]) -> list[str]:
    """Scripts of a life that are not among the calls that were seen: none of them can have lost its reply."""
    return sorted(sources().keys() - seen)


@contextlib.contextmanager
def _failing_once(failing: str) -> Iterator[None]:
    """The first attempt at a batch meets a server that is out of memory."""
    apply, failed = jobs.apply_to, []

    def applying(handle: Any, batch: str, **options: Any) -> Any:
        if batch == failing and not failed:
            failed.append(batch)
            handle.ledger.begin(batch, lease_until=now_milliseconds() + 30_000)
            raise redis.OutOfMemoryError("OOM command not allowed when used memory > 'maxmemory'.")
        return apply(handle, batch, **options)

    with mock.patch.object(jobs, "apply_to", applying):
        yield


def _train(connections: Connections, trainers: Trainers) -> None:
    request = asking.request_training(connections, INDEX, PLAN)
    work(connections, TRAIN_QUEUE, jobs.TRAINER_FUNCTIONS, trainers)
    asking.wait_for(connections, INDEX, request, timeout_seconds=10, on_doing=lambda _: None)


def left_behind(client: Any) -> dict[str, Any]:
    """Every key of the index with what it holds, but for what differs from run to run by nature."""
    keys = sorted(key for key in client.scan_iter(count=1_000) if not _VOLATILE.fullmatch(key))
    return {key.decode(): _held(client, key) for key in keys}


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What a run with losses left otherwise than one without.

    Figures of live quality may be missing, and none may be there twice: a batch whose first attempt is not known to be
    the first is not scored.
    """
    wrong = [f"{key} is {'missing' if key in expected else 'extra'}" for key in sorted(expected.keys() ^ found.keys())]
    for key in sorted(expected.keys() & found.keys()):
        if key == _FIGURES:
            wrong += [f"{key}: {figure}" for figure in found[key] if figure not in expected[key]]
        elif key == _QUALITY:
            counts = [held[b"summary"]["series"]["length"] for held in (expected[key], found[key])]
            wrong += [f"{key} counts {counts[1]} figures, not {counts[0]} or fewer"] if counts[1] > counts[0] else []
        elif expected[key] != found[key]:
            wrong.append(f"{key} is {found[key]!r:.300}, not {expected[key]!r:.300}")
    return wrong


def _held(client: Any, key: bytes) -> Any:
    if key == _TALLIES:
        return _tallied(Tallies(client, INDEX).read())
    kind = client.type(key)
    if kind == b"hash":
        return {field: _lasting(value) for field, value in client.hgetall(key).items() if field not in _NAMES}
    if kind == b"set":
        return sorted(client.smembers(key))
    if kind == b"zset":
        return client.zrange(key, 0, -1, withscores=True)
    if kind == b"list":
        return [_lasting(value) for value in client.lrange(key, 0, -1)]
    return _lasting(client.get(key))


def _tallied(counts: dict[str, int]) -> dict[str, int]:
    """Tallies without those of queries. What was written and whose reply was lost is found written, and `ignored`."""
    outcomes = sum(counts.pop(name, 0) for name in OUTCOMES)
    return {name: count for name, count in counts.items() if not _OF_QUERIES.fullmatch(name)} | {"written": outcomes}


def _lasting(value: bytes) -> Any:
    """A value without what differs from run to run."""
    if not value.startswith(b"{"):
        return value
    fields = json.loads(value)
    return {name: fields[name] for name in fields.keys() - _OF_THE_RUN}
