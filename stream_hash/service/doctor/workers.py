"""Who works: hash workers and trainers, and whether they give signs of life."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE, SafeQueue, WorkerInfo, live_workers
from stream_hash.service.doctor.finding import ERROR, OK, WARNING, Finding, Level

STALE_SECONDS: Final = 25.0
"""A worker's sign of life is renewed every few seconds, also while it works; with it, its hash expires after 30."""

Kind: TypeAlias = Literal["worker", "trainer"]

_QUEUES: Final[dict[Kind, str]] = {"worker": HASH_QUEUE, "trainer": TRAIN_QUEUE}


def findings(broker: Any, waiting: int, now_milliseconds: int) -> Iterator[Finding]:
    """What there is to say of the processes. waiting : batches that are pending, in all indexes."""
    workers = live_workers(broker, HASH_QUEUE)
    lively = [worker for worker in workers if age_seconds(worker, now_milliseconds) < STALE_SECONDS]
    queued = SafeQueue(HASH_QUEUE, connection=broker).count
    backlog = f"{waiting} batches wait, {queued} jobs are queued"
    if lively:
        yield Finding(OK, "workers", "workers", f"{len(lively)} alive; {backlog}")
    else:
        level: Level = ERROR if waiting else WARNING
        yield Finding(level, "workers", "workers", f"no hash worker is alive; {backlog}", "stream-hash worker")
    trainers = live_workers(broker, TRAIN_QUEUE)
    said = f"{len(trainers)} alive" if trainers else "none is alive: nothing is learned (stream-hash trainer)"
    yield Finding(OK, "workers", "trainers", said)
    for process in workers + trainers:
        age = age_seconds(process, now_milliseconds)
        if age >= STALE_SECONDS:
            who = f"{process.hostname}, pid {process.pid}"
            fix = f"see whether it hangs, and end it on {process.hostname}: kill {process.pid}"
            yield Finding(WARNING, "heartbeat", who, f"no sign of life for {age:.0f} s", fix)


def age_seconds(worker: WorkerInfo, now_milliseconds: int) -> float:
    """How long ago a worker gave its last sign of life."""
    return now_milliseconds / 1_000 - worker.last_heartbeat.timestamp()


def alive_here(broker: Any, kind: Kind, now_milliseconds: int) -> Finding:
    """Whether a process of a kind on this host gives signs of life: what a container's health check asks."""
    host = socket.gethostname()
    here = [worker for worker in live_workers(broker, _QUEUES[kind]) if worker.hostname == host]
    ages = [age_seconds(worker, now_milliseconds) for worker in here]
    if not ages:
        return Finding(ERROR, "heartbeat", f"{kind}s of {host}", "none is alive", f"stream-hash {kind}")
    if min(ages) >= STALE_SECONDS:
        said = f"the last sign of life is {min(ages):.0f} s old"
        return Finding(ERROR, "heartbeat", f"{kind}s of {host}", said, "see whether it hangs, and start it again")
    return Finding(OK, "heartbeat", f"{kind}s of {host}", f"{len(here)} alive")
