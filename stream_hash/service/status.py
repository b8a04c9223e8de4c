"""What a server and its indexes are, and how they are doing. Everything is plain JSON values."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

from redis.exceptions import NoPermissionError

from stream_hash.errors import IndexMissingError
from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE, SafeQueue, WorkerInfo, live_workers
from stream_hash.service.bucket_fit import fitting_bits
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.saved_plan import PlanKeeper
from stream_hash.service.training_status import training_status
from stream_hash.storage.connection import greeting, primaries, redis_errors
from stream_hash.storage.imports import imports_under_way
from stream_hash.storage.store import index_names


def server_status(connections: Connections) -> dict[str, Any]:
    """The server or cluster, the workers and trainers that are alive, the batches that wait, and every index."""
    workers = hash_workers(connections)
    with redis_errors():
        nodes = primaries(connections.client)
        hello, memory = greeting(nodes[0]), [node.info("memory") for node in nodes]
        handles = _opened(connections.client)
        return {
            "server": {
                "engine": hello["server"],
                "version": hello["version"],
                "mode": hello["mode"],
                "primaries": len(nodes),
                "memory_bytes": sum(info["used_memory"] for info in memory),
                "max_memory_bytes": sum(info["maxmemory"] for info in memory),
            },
            "workers": [_process(worker) for worker in workers],
            "trainers": [_process(trainer) for trainer in live_workers(connections.broker, TRAIN_QUEUE)],
            "queued": SafeQueue(HASH_QUEUE, connection=connections.broker).count,
            "indexes": [_summary(handle) for handle in handles],
            "importing": imports_under_way(connections.client),
        }


def _opened(client: Any) -> list[IndexHandle]:
    """Every index that stands, and that this account may read.

    One is listed a moment before it does, when it is created or its import finished.
    """
    handles = []
    for name in index_names(client):
        with contextlib.suppress(IndexMissingError, NoPermissionError):
            handles.append(IndexHandle(client, name))
    return handles


def _process(worker: WorkerInfo) -> dict[str, Any]:
    return {"host": worker.hostname, "pid": worker.pid, "state": worker.state}


def hash_workers(connections: Connections) -> list[WorkerInfo]:
    """The hash workers that gave a sign of life lately."""
    with redis_errors():
        return live_workers(connections.broker, HASH_QUEUE)


def index_status(handle: IndexHandle) -> dict[str, Any]:
    """Settings, generations, counts, the ledger's balance, and how learning stands."""
    summary = _summary(handle)
    states = handle.states
    live = [(p, state.live) for p, state in enumerate(states) if state.live]
    directories = handle.buckets.directories(live) if live else []
    listings = [one for tables in directories for one in tables]
    buckets = sum(len(one.codes) for one in listings)
    members = sum(int(one.counts.sum()) for one in listings)
    largest = max((int(one.counts.max()) for one in listings if len(one.counts)), default=0)
    plan = PlanKeeper(handle).current()
    return {
        **summary,
        **training_status(handle),
        "generations": [asdict(record) for record in handle.models.records()],
        "buckets": buckets,
        "mean_bucket": round(members / buckets, 2) if buckets else 0.0,
        "fitting_bits": fitting_bits(listings, handle.settings.bits),
        "largest_bucket": largest,
        "plan": None if plan is None else asdict(plan),
        "last_sequence": handle.ledger.last_sequence(),
    }


def _summary(handle: IndexHandle) -> dict[str, Any]:
    """What can be told without reading the directories."""
    handle.reload_states()
    balance = handle.ledger.balance()
    return {
        "index": handle.name,
        **asdict(handle.settings),
        "items": sum(items for items, _ in handle.reader.sizes()),
        "generation": max((state.live for state in handle.states), default=0),
        "accepted": balance.accepted,
        "applied": balance.applied,
        "pending": balance.pending,
        "pending_batches": balance.pending_batches,
        "dead": balance.dead,
        "dropped": balance.dropped,
    }
