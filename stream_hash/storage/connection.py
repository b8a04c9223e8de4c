"""Opening connections to a server we can trust, and naming what is wrong with one we cannot.

Rules
1. One client holds the index (a single server or a cluster), another carries the queue: building an RQ
   worker on a client changes that client's socket timeout.
2. A server that may evict keys is refused: under `allkeys-lru` an index loses buckets without an error.
3. redis-py sends a command again after a lost reply. Every command of ours may therefore run twice:
   scripts are keyed by our own batch ids and sequence numbers, plain commands are idempotent.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import redis
from redis import exceptions
from redis.cluster import RedisCluster

from stream_hash.errors import OutOfMemoryError, ServerRefusedError, ServerUnreachableError, UsageError

# redis-py types every reply as a union with Awaitable, for its asyncio twin; the types of replies are
# therefore stated where they are decoded, not here.
Client: TypeAlias = Any
"""A `redis.Redis`, a `redis.cluster.RedisCluster` or a `fakeredis.FakeRedis`."""

OLDEST_SERVER = (7, 0)


def connect(url: str, *, timeout_seconds: float = 10.0) -> Client:
    """A client for the server or cluster at `url`, checked.

    Raises ServerUnreachableError (exit code 4) when nothing usable answers, and ServerRefusedError when the
    server evicts keys, is a replica, is older than Redis 7.0, or the URL switches certificate checks off;
    UsageError when the URL is none.
    """
    if re.search(r"ssl_cert_reqs=(none|optional)|ssl_check_hostname=(false|0|no)", url, re.IGNORECASE):
        raise ServerRefusedError(
            f"the URL {redacted(url)} switches certificate checks off",
            why="anybody on the path could then read and change the index",
            remedy="name the authority instead: ?ssl_ca_certs=FILE",
        )
    with redis_errors(url):
        with url_errors(url):
            client: Client = redis.Redis.from_url(
                url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
            )
            hello = greeting(client)
        if hello.get("mode") == "cluster":
            client.close()
            client = _cluster(url, timeout_seconds)
        _check(client, url)
    return client


def is_cluster(client: Client) -> bool:
    """Whether `client` speaks to a cluster."""
    return isinstance(client, RedisCluster)


def _cluster(url: str, timeout_seconds: float) -> RedisCluster:
    return RedisCluster.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)


def greeting(client: Client) -> dict[str, Any]:
    """What a server says of itself to HELLO: `server`, `version`, `mode`, `role` and more."""
    reply = client.execute_command("HELLO")
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {_text(key): _text(value) for key, value in pairs}


def _text(value: object) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _check(client: Client, url: str) -> None:
    """Refuse a server on which an index would be lost or could not be written."""
    nodes = client.get_primaries() if is_cluster(client) else [None]
    for node in nodes:
        info = client.info(target_nodes=node) if node is not None else client.info()
        policy = info.get("maxmemory_policy", "noeviction")
        where = f"{redacted(url)}" + (f" (node {node.name})" if node is not None else "")
        if policy != "noeviction":
            raise ServerRefusedError(
                f"the server {where} evicts keys: its maxmemory-policy is {policy}",
                why="an index on it would lose buckets without an error",
                remedy="redis-cli CONFIG SET maxmemory-policy noeviction",
            )
        if info.get("role") == "slave":
            raise ServerRefusedError(
                f"the server {where} is a read-only replica",
                why="every write to it fails",
                remedy=f"use its primary: {info.get('master_host')}:{info.get('master_port')}",
            )
        version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2])
        if version < OLDEST_SERVER:
            raise ServerRefusedError(
                f"the server {where} is Redis {info.get('redis_version')}",
                why=f"the oldest supported is {'.'.join(map(str, OLDEST_SERVER))}",
                remedy="upgrade it, or use the embedded server: stream-hash up",
            )


def redacted(url: str) -> str:
    """`url` without its password, for messages."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"(://[^:@/]*):.*@", r"\1:***@", url))


@contextlib.contextmanager
def url_errors(url: str) -> Iterator[None]:
    """Translate what redis-py raises for a URL that it cannot parse."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"the URL {redacted(url)} cannot be used",
            # What could not be parsed may be a piece of a password.
            why=str(error) if url == redacted(url) else "it does not parse: has its password a / or a %?",
            remedy="write it as redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH",
        ) from error


@contextlib.contextmanager
def redis_errors(url: str = "") -> Iterator[None]:
    """Translate redis-py's errors into ours, with what to do about each."""
    where = redacted(url) if url else "the server"
    try:
        yield
    except (
        exceptions.AuthenticationError,
        exceptions.AuthorizationError,
        exceptions.NoPermissionError,
    ) as error:
        raise ServerUnreachableError(
            f"{where} refuses the user or password",
            why=str(error),
            remedy="set STREAM_HASH_URL to redis://USER:PASSWORD@HOST:PORT",
        ) from error
    except exceptions.ReadOnlyError as error:
        raise ServerRefusedError(f"{where} is a read-only replica", why=str(error), remedy="use its primary") from error
    except exceptions.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"{where} is out of memory", why=str(error), remedy="raise maxmemory, or delete items"
        ) from error
    except exceptions.BusyLoadingError as error:
        raise ServerUnreachableError(
            f"{where} is still loading its data", why=str(error), remedy="try again in a moment"
        ) from error
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise ServerUnreachableError(
            f"no server answers at {where}" if url else "the server went away",
            why=str(error),
            remedy="start the embedded server with: stream-hash up, or name another with --url",
        ) from error
    except exceptions.RedisError as error:
        if "OOM" in str(error) or "used memory" in str(error):
            raise OutOfMemoryError(
                f"{where} is out of memory", why=str(error), remedy="raise maxmemory, or delete items"
            ) from error
        if "WRONGPASS" in str(error) or "NOAUTH" in str(error):
            raise ServerUnreachableError(
                f"{where} refuses the user or password",
                why=str(error),
                remedy="set STREAM_HASH_URL to redis://USER:PASSWORD@HOST:PORT",
            ) from error
        raise ServerRefusedError(
            f"{where} refuses what is asked of it", why=str(error), remedy="mend what it complains of, then try again"
        ) from error
