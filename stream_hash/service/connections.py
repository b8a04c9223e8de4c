"""The two connections of a process: one to the server that holds the indexes, one to the queue."""

from __future__ import annotations

import reprlib
import shlex
from dataclasses import dataclass
from typing import Any

from stream_hash.environment import Environment, read_environment
from stream_hash.errors import ServerUnreachableError, UsageError
from stream_hash.queue import broker_for
from stream_hash.storage.connection import Client, connect, is_cluster, redis_errors, url_errors
from stream_hash.storage.server import EmbeddedServer


@dataclass(frozen=True)
class Connections:
    """client : of the server or cluster with the indexes. broker : of the server with RQ's queue."""

    client: Client
    broker: Any

    @classmethod
    def given(cls, connections: Connections | str | None) -> Connections:
        """What a caller gave for connections: opened ones, a URL, or None for the server that the environment names.

        Raises as `open`.
        """
        return connections if isinstance(connections, Connections) else cls.open(connections)

    @classmethod
    def open(cls, url: str | None = None, broker_url: str | None = None) -> Connections:
        """Connect to the server at `url`, or else to the one the environment names.

        Raises ServerUnreachableError or ServerRefusedError; the embedded server is never started here.
        UsageError when what is given is no URL.
        """
        for given in (url, broker_url):
            if given is not None and not isinstance(given, str):
                raise UsageError(
                    f"the connections are {reprlib.repr(given)}",
                    why="they are a Connections, a URL, or None",
                    remedy="for clients of your own: Connections(client, broker)",
                )
        return cls.of(read_environment(url=url, broker_url=broker_url))

    @classmethod
    def of(cls, environment: Environment, *, checked: bool = True) -> Connections:
        """Connect to the server that an environment names. checked : refuse one on which an index would not be safe."""
        url = environment.url or embedded_url(environment)
        client = connect(url, checked=checked)
        if environment.broker_url and checked:
            connect(environment.broker_url).close()  # a queue that is evicted is lost as well
        target = environment.broker_url or (client if is_cluster(client) else url)
        broker_url = environment.broker_url or url
        with redis_errors(broker_url), url_errors(broker_url):
            broker = broker_for(target)
        return cls(client, broker)

    def close(self) -> None:
        """Give up both connections."""
        for client in (self.client, self.broker):
            client.close()


def data_dir_words(environment: Environment) -> str:
    """What a command needs beside its name to mean the same data directory."""
    return f" --data-dir {shlex.quote(str(environment.data_dir))}" if environment.data_dir_given else ""


def embedded_url(environment: Environment) -> str:
    """The URL of the embedded server. Raises ServerUnreachableError when it is not running."""
    server = EmbeddedServer(environment.data_dir)
    if server.status() is None:
        raise ServerUnreachableError(
            f"no server runs in {environment.data_dir}",
            why="no URL is given either (--url, STREAM_HASH_URL, REDIS_URL)",
            remedy=f"stream-hash up{data_dir_words(environment)}",
        )
    return server.url
