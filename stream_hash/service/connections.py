"""The two connections of a process: one to the server that holds the indexes, one to the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stream_hash.environment import Environment, read_environment
from stream_hash.errors import ServerUnreachableError
from stream_hash.queue import broker_for
from stream_hash.storage.connection import Client, connect, is_cluster, redis_errors, url_errors
from stream_hash.storage.server import EmbeddedServer


@dataclass(frozen=True)
class Connections:
    """client : of the server or cluster with the indexes. broker : of the server with RQ's queue."""

    client: Client
    broker: Any

    @classmethod
    def open(cls, url: str | None = None, broker_url: str | None = None) -> Connections:
        """Connect to the server at `url`, or else to the one the environment names.

        Raises ServerUnreachableError or ServerRefusedError; the embedded server is never started here.
        """
        return cls.of(read_environment(url=url, broker_url=broker_url))

    @classmethod
    def of(cls, environment: Environment) -> Connections:
        """Connect to the server that an environment names."""
        url = environment.url or embedded_url(environment)
        client = connect(url)
        if environment.broker_url:
            connect(environment.broker_url).close()  # a queue that is evicted is lost as well
        target = environment.broker_url or (client if is_cluster(client) else url)
        broker_url = environment.broker_url or url
        with redis_errors(broker_url), url_errors(broker_url):
            broker = broker_for(target)
        return cls(client, broker)


def embedded_url(environment: Environment) -> str:
    """The URL of the embedded server. Raises ServerUnreachableError when it is not running."""
    server = EmbeddedServer(environment.data_dir)
    if server.status() is None:
        raise ServerUnreachableError(
            f"no server runs in {environment.data_dir}",
            why="no URL is given either (--url, STREAM_HASH_URL, REDIS_URL)",
            remedy="stream-hash up",
        )
    return server.url
