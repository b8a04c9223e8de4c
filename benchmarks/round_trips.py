"""Counting round trips: each time a client sends something and waits, however many commands it sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from redis.connection import AbstractConnection


class RoundTrips:
    """How many there have been so far."""

    count = 0


@contextmanager
def counted() -> Iterator[RoundTrips]:
    """Count those of every client in this process inside the block."""
    trips = RoundTrips()
    send: Any = AbstractConnection.send_packed_command

    def counting(connection: AbstractConnection, *arguments: Any, **options: Any) -> Any:
        trips.count += 1
        return send(connection, *arguments, **options)

    with mock.patch.object(AbstractConnection, "send_packed_command", counting):
        yield trips
