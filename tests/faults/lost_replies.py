"""What a deployment does in its life, in one thread and in one order; and all that is on the server in the end.

Two runs, of which one loses replies, must leave the same: whatever was sent again had no second effect.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, Final

import numpy as np

from stream_hash import Index, Producer
from stream_hash.jobs import FUNCTIONS, TRAINER_FUNCTIONS
from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE
from stream_hash.service import asking
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.service.schedule import Schedule, Trainers
from stream_hash.service.scoring import Scorer
from stream_hash.settings import IndexSettings
from tests.faults.chaos_producer import batch_of
from tests.faults.killed_traffic import DIMENSION
from workers.base import StreamWorker

INDEX: Final = "x"
BATCHES: Final = 16
PLAN: Final = {"force": True, "window": 300, "held_out": 100, "least": 50}

_VOLATILE: Final = re.compile(rb"rq:.*|sh:\{x\}:(?:answer|progress|receipt|learner|trainer).*")
"""The queue's own keys, and those that hold moments or names made up at random."""

_OF_THE_RUN: Final = {"id", "started", "seconds", "created", "nonce"}


def live(url: str) -> None:
    """Live through it. Raises whatever the product does not put right by itself."""
    connections = Connections.open(url)
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(50, DIMENSION)).astype(np.float32)
    index = Index.create(INDEX, IndexSettings(DIMENSION, bits=6, partitions=2), connections, sample=sample)
    producer = Producer(INDEX, connections)
    context = Context(connections)
    context.scorer = Scorer(clock=itertools.count().__next__)  # whole seconds go by: all that may be scored, is
    trainers = Trainers(connections, Schedule(1e9, 10**9))
    for number in range(1, BATCHES + 1):
        producer.submit(batch_of("p", number), f"p-{number}")
        _work(connections, HASH_QUEUE, FUNCTIONS, context)
        if number % 4 == 0:
            _sweep(context)
        if number == BATCHES // 2:
            _train(connections, trainers)
    ids = [f"p-{n}" for n in range(60, 72)]
    index.label(ids, ["late"] * len(ids))
    index.delete(ids[:5])
    _train(connections, trainers)
    asking.roll_back(connections, INDEX, 2, timeout_seconds=60, on_doing=lambda _: None)
    answers = index.query(sample[:5], k=5)
    assert all(len(answer.results) == 5 for answer in answers)
    assert index.verify().violations == []
    _sweep(context)


def _train(connections: Connections, trainers: Trainers) -> None:
    request = asking.request_training(connections, INDEX, PLAN)
    _work(connections, TRAIN_QUEUE, TRAINER_FUNCTIONS, trainers)
    asking.wait_for(connections, INDEX, request, timeout_seconds=10, on_doing=lambda _: None)


def _work(connections: Connections, queue: str, functions: Any, context: Any) -> None:
    worker = StreamWorker(
        queue, connections.broker, functions=functions, context=context, signals=False, lease_seconds=1
    )
    worker.work(burst=True)


def _sweep(context: Context) -> None:
    """Until all is applied: who lost the reply that brought a job finds it again."""
    balance = context.index(INDEX).ledger.balance
    while balance().pending:
        _work(Connections(context.client, context.broker), HASH_QUEUE, FUNCTIONS, context)
    assert balance().holds
    context.sweep()


def left_behind(client: Any) -> dict[str, Any]:
    """Every key of the index with what it holds, but for what differs from run to run by nature."""
    keys = sorted(key for key in client.scan_iter(count=1_000) if not _VOLATILE.fullmatch(key))
    return {key.decode(): _held(client, key) for key in keys}


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What a run with losses left otherwise than one without. Figures may be missing, and none may be there twice."""
    figures = f"sh:{{{INDEX}}}:figures"
    wrong = [f"{key} is {'missing' if key in expected else 'extra'}" for key in sorted(expected.keys() ^ found.keys())]
    for key in sorted(expected.keys() & found.keys()):
        if key == figures:
            wrong += [f"{figures}: {figure}" for figure in found[key] if figure not in expected[key]]
        elif expected[key] != found[key]:
            wrong.append(f"{key} is {found[key]!r:.300}, not {expected[key]!r:.300}")
    return wrong


def _held(client: Any, key: bytes) -> Any:
    kind = client.type(key)
    if kind == b"hash":
        return {field: _lasting(value) for field, value in client.hgetall(key).items() if field != b"nonce"}
    if kind == b"set":
        return sorted(client.smembers(key))
    if kind == b"zset":
        return client.zrange(key, 0, -1, withscores=True)
    if kind == b"list":
        return [_lasting(value) for value in client.lrange(key, 0, -1)]
    return _lasting(client.get(key))


def _lasting(value: bytes) -> Any:
    """A value without what differs from run to run."""
    if not value.startswith(b"{"):
        return value
    fields = json.loads(value)
    return {name: fields[name] for name in fields.keys() - _OF_THE_RUN}
