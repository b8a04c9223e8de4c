"""The doctor: is everything as it must be, and if not, which command mends it?

Read finding (what is said), server (each node), workers, indexes. Rules
1. It changes nothing, and may run beside any traffic; it is quick, unless it is told to verify.
2. What it may not look at it says, and goes on: a user with few rights gets warnings, not a failure.
3. An error is what loses items or refuses them now; a warning, what will, or what somebody should look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stream_hash.service.connections import Connections
from stream_hash.service.doctor import indexes, server, workers
from stream_hash.service.doctor.finding import ERROR, OK, WARNING, Finding, guarded
from stream_hash.service.doctor.workers import Kind
from stream_hash.storage.store import index_names

__all__ = ["ERROR", "OK", "WARNING", "Finding", "Kind", "examine", "is_alive_here"]

is_alive_here = workers.alive_here


def examine(
    connections: Connections,
    *,
    names: Sequence[str] | None = None,
    verify: bool = False,
    broker_apart: bool = False,
    now_milliseconds: int,
) -> Iterator[Finding]:
    """All findings, each as soon as it is made. Errors of a connection that breaks pass through.

    names : of the indexes to look at; None for all. verify : check every invariant of them. broker_apart : the queue
    has a server of its own, which is looked at as well. now_milliseconds : since the Unix epoch.
    """
    yield from server.findings(connections.client, "server")
    if broker_apart:
        yield from server.findings(connections.broker, "broker")
    found = list(index_names(connections.client)) if names is None else list(names)
    waiting = 0
    for name in found:
        waiting += indexes.waiting(connections.client, name)
    yield from guarded("workers", "workers", lambda: workers.findings(connections.broker, waiting, now_milliseconds))
    for name in found:
        yield from indexes.findings(connections.client, name, verify_all=verify, now_milliseconds=now_milliseconds)
