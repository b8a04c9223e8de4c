"""One fixture, four servers: fakeredis, the embedded engine, a redis-server from PATH, a three-node cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest
import redis
import servers
from redis.cluster import RedisCluster

from stream_hash.service.connections import Connections
from stream_hash.storage.connection import Client, is_cluster

BACKENDS = ("fake", "embedded", "redis", "cluster")


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A short path: sockets have no room for pytest's."""
    with tempfile.TemporaryDirectory(prefix="sh-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def embedded_url(server_directory: Path) -> Iterator[str]:
    directory = server_directory / "embedded"
    directory.mkdir()
    with servers.running_server(servers.bundled_binary(), directory) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(server_directory: Path) -> Iterator[str]:
    directory = server_directory / "redis"
    directory.mkdir()
    with servers.running_server(servers.path_redis_binary(), directory) as url:
        yield url


@pytest.fixture(scope="session")
def cluster_url(server_directory: Path) -> Iterator[str]:
    directory = server_directory / "cluster"
    directory.mkdir()
    with servers.running_cluster(servers.bundled_binary(), directory) as url:
        yield url


@pytest.fixture(params=BACKENDS)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """An empty server of each kind in turn."""
    if request.param == "fake":
        with fakeredis.FakeRedis() as fake:
            yield fake
        return
    url = request.getfixturevalue(f"{request.param}_url")
    opened = RedisCluster.from_url(url) if request.param == "cluster" else redis.Redis.from_url(url)
    with opened as real:
        real.flushall()
        yield real


@pytest.fixture
def real_client(embedded_url: str) -> Iterator[redis.Redis]:
    """An empty embedded engine."""
    with redis.Redis.from_url(embedded_url) as real:
        real.flushall()
        yield real


@pytest.fixture
def connections(client: Client) -> Connections:
    """Connections for what needs no queue."""
    return Connections(client, None)


@pytest.fixture
def partitions(client: Client) -> int:
    """How many partitions make a test worth its while on this server."""
    return 6 if is_cluster(client) else 2
