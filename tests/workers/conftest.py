"""Brokers for the worker tests: the bundled server on a socket, and fakeredis."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from stream_hash.queue import HASH_QUEUE, SafeQueue, broker_for
from tests.servers import bundled_binary, running_server


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    # Not pytest's own directory: a socket's path must be under 108 bytes.
    with tempfile.TemporaryDirectory() as directory, running_server(bundled_binary(), Path(directory)) as url:
        yield url


@pytest.fixture
def url(server_url: str) -> str:
    """The URL of an empty server."""
    with redis.Redis.from_url(server_url) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return server_url


@pytest.fixture
def server(url: str) -> Iterator[redis.Redis]:
    """A broker on the real server."""
    with broker_for(url) as client:
        yield client


@pytest.fixture(params=["real", "fake"])
def broker(request: pytest.FixtureRequest) -> Any:
    """A broker on the real server, then on fakeredis."""
    if request.param == "real":
        return request.getfixturevalue("server")
    return fakeredis.FakeRedis()


@pytest.fixture
def queue(broker: Any) -> SafeQueue:
    return SafeQueue(HASH_QUEUE, broker)
