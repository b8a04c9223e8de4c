"""Who is working: hashes that workers renew every few seconds, and that expire with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from redis import Redis
from rq.worker import BaseWorker
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from stream_hash.queue.bounded import read_fields

FIELDS: Final = ("pid", "hostname", "state", "last_heartbeat")
MAX_FIELD_BYTES: Final = 256


@dataclass(frozen=True)
class WorkerInfo:
    """A worker process that gave a sign of life lately. state : `idle` or `busy`."""

    name: str
    pid: int
    hostname: str
    state: str
    last_heartbeat: datetime


def live_workers(broker: Redis, queue_name: str) -> list[WorkerInfo]:
    """The workers of a queue, by host and process id: two round trips, nothing deserialised.

    A worker that ended in order is gone at once; one that was killed, when its hash expires (30 seconds).
    Entries that are no workers are left out.
    """
    keys: list[Any] = sorted(broker.smembers(WORKERS_BY_QUEUE_KEY % queue_name))
    with broker.pipeline(transaction=False) as pipeline:
        for key in keys:
            read_fields(pipeline, key, FIELDS, MAX_FIELD_BYTES)
        replies = pipeline.execute()
    workers = (_worker(key, reply) for key, reply in zip(keys, replies, strict=True))
    return sorted((worker for worker in workers if worker), key=lambda worker: (worker.hostname, worker.pid))


def _worker(key: bytes, values: list[bytes | None] | bytes) -> WorkerInfo | None:
    if not isinstance(values, list) or None in values:
        return None
    try:
        name = key.decode().removeprefix(BaseWorker.redis_worker_namespace_prefix)
        pid, hostname, state, heartbeat = (value.decode() for value in values if value is not None)
        moment = datetime.strptime(heartbeat, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        return WorkerInfo(name, int(pid), hostname, state, moment)
    except ValueError:
        return None
