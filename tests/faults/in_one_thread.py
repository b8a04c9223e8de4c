"""A deployment's work in one thread and one order: queues are worked until they are empty, and what got lost on its way
is put back as workers do in time, but without the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from unittest import mock

from stream_hash import jobs
from stream_hash.queue import HASH_QUEUE, JobFunction, SafeQueue, waiting_ids
from stream_hash.service import sweep
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.storage.server_clock import server_milliseconds
from workers import recovery
from workers.base import StreamWorker

ROUNDS: Final = 20
LATER_MILLISECONDS: Final = 60_000


def work(
    connections: Connections, queue: str, functions: Mapping[str, JobFunction], context: object, *, rounds: int = ROUNDS
) -> None:
    """Work a queue until nothing waits, here or on its way to a worker."""
    waiting = SafeQueue(queue, connections.broker)
    for _ in range(rounds):
        StreamWorker(
            queue, connections.broker, functions=functions, context=context, signals=False, lease_seconds=1
        ).work(burst=True)
        recovery.requeue_stranded(waiting, {}, 0.0, patience_seconds=0.0)
        if not waiting_ids(connections.broker, waiting):
            return
    raise AssertionError(
        f"jobs of {queue} wait, however often it is worked: {waiting_ids(connections.broker, waiting)}"
    )


def apply_all(context: Context, index: str) -> None:
    """Work and sweep, each time a lease later, until nothing of an index is pending."""
    connections = Connections(context.client, context.broker)
    balance: Any = context.index(index).ledger.balance
    work(connections, HASH_QUEUE, jobs.FUNCTIONS, context)

    def later(client: Any, name: str) -> int:
        return server_milliseconds(client, name) + LATER_MILLISECONDS

    with mock.patch.object(sweep, "server_milliseconds", later):
        for _ in range(ROUNDS):
            context.sweep()
            if not balance().pending:
                break
            work(connections, HASH_QUEUE, jobs.FUNCTIONS, context)
    assert balance().holds
    assert not balance().pending, "batches are pending that no sweep finds"
