"""The two connections of a process: one to the server that holds the indexes, one to the queue."""

from __future__ import annotations

import reprlib
import shlex
from collections.abc import Callable
from functools import partial
from typing import Any

from stream_hash.environment import Environment, read_environment
from stream_hash.errors import ServerUnreachableError, UsageError
from stream_hash.storage.connection import Client, connect, is_cluster, redis_errors, url_errors
from stream_hash.storage.server import EmbeddedServer


class Connections:
    """client : of the server or cluster with the indexes. broker : of the server with RQ's queue; one of our own is
    opened when it is first asked for: a query needs neither it nor RQ, which takes as long to import as half of numpy.
    """

    def __init__(self, client: Client, broker: Any, *, open_broker: Callable[[], Any] | None = None) -> None:
        """open_broker : makes the broker, in place of one that is given."""
        self.client = client
        self._broker, self._open_broker = broker, open_broker

    @property
    def broker(self) -> Any:
        """Raises ServerUnreachableError or ServerRefusedError, and StreamHashError for a cluster that RQ cannot use."""
        if self._broker is None and self._open_broker is not None:
            self._broker = self._open_broker()
        return self._broker

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
        """Connect to the server that an environment names. checked : refuse one on which an index, or a queue, would
        not be safe.
        """
        url = environment.url or embedded_url(environment)
        client = connect(url, checked=checked)
        broker_url = environment.broker_url
        if broker_url:
            return cls(client, None, open_broker=partial(_broker, broker_url, broker_url, checked=checked))
        # the same server, which has been checked
        return cls(client, None, open_broker=partial(_broker, client if is_cluster(client) else url, url))

    def close(self) -> None:
        """Give up both connections."""
        for client in (self.client, self._broker):
            if client is not None:
                client.close()


def _broker(target: str | Client, url: str, *, checked: bool = False) -> Any:
    """A client for the queue. target : a URL or a cluster's client. url : to be named in a message. checked : refuse a
    server on which a queue would not be safe.
    """
    from stream_hash.queue import broker_for

    if checked:
        connect(url).close()  # a queue that is evicted is lost as well
    with redis_errors(url), url_errors(url):
        return broker_for(target)


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
