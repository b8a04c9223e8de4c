"""Opening connections to a server we can trust, and naming what is wrong with one we cannot.

Rules
1. One client holds the index (a single server or a cluster), another carries the queue: building an RQ
   worker on a client changes that client's socket timeout.
2. A server that may evict keys is refused: under `allkeys-lru` an index loses buckets without an error.
3. A command is sent again when its connection breaks, three times within a second. Every command of ours
   may therefore run twice: scripts are keyed by our own batch ids and sequence numbers, plain commands are
   idempotent.
4. A command that is not answered in `timeout_seconds` is not sent again: a server that hangs is not asked
   more, and SIGINT is heard after one timeout. A cluster's client knows no such difference, so it repeats
   only CLUSTER_RETRIES times, each time with a new map of the slots.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import redis
from redis import exceptions
from redis.backoff import ExponentialBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from stream_hash.errors import OutOfMemoryError, ServerRefusedError, ServerUnreachableError, UsageError
from stream_hash.storage.certificates import tls_fault
from stream_hash.storage.urls import check_url, redacted

# redis-py types every reply as a union with Awaitable, for its asyncio twin; the types of replies are
# therefore stated where they are decoded, not here.
Client: TypeAlias = Any
"""A `redis.Redis`, a `redis.cluster.RedisCluster` or a `fakeredis.FakeRedis`."""

OLDEST_SERVER = (7, 0)

READ_BYTES: Final = 256 * 1024
"""Read from a socket at a time: as much as it holds, most often. A query's vectors are 400 kB; redis-py's 32 kB at a
time took a fifth more of the client's time for them."""

RETRIES: Final = 3
CLUSTER_RETRIES: Final = 2


def connect(url: str, *, timeout_seconds: float = 10.0, checked: bool = True) -> Client:
    """A client for the server or cluster at `url`. checked : refuse one on which an index would not be safe.

    Raises ServerUnreachableError (exit code 4) when nothing usable answers, and ServerRefusedError when the
    server evicts keys, is a replica, is older than Redis 7.0, or the URL switches certificate checks off;
    UsageError when the URL is none, or sets an option that we cannot work with.
    """
    check_url(url)
    with redis_errors(url):
        with url_errors(url):
            client: Client = redis.Redis.from_url(url, **_options(timeout_seconds, RETRIES))
            hello = greeting(client)
        if hello.get("mode") == "cluster":
            client.close()
            client = _cluster(url, timeout_seconds)
        if checked:
            _check(client, url)
    return client


def is_cluster(client: Client) -> bool:
    """Whether `client` speaks to a cluster."""
    return isinstance(client, RedisCluster)


def primaries(client: Client) -> list[Any]:
    """A client for each primary of a cluster; for a single server the client itself."""
    if is_cluster(client):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def _cluster(url: str, timeout_seconds: float) -> RedisCluster:
    return RedisCluster.from_url(url, **_options(timeout_seconds, CLUSTER_RETRIES))


def _options(timeout_seconds: float, retries: int) -> dict[str, Any]:
    """How long a client waits, and how it sends again (rules 3 and 4)."""
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "socket_read_size": READ_BYTES,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries, (exceptions.ConnectionError,)),
    }


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


@contextlib.contextmanager
def url_errors(url: str) -> Iterator[None]:
    """Translate what redis-py raises for a URL that it cannot parse."""
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the URL {redacted(url)} cannot be used",
            # What could not be parsed may be a piece of a password.
            why=str(error) if url == redacted(url) else "it does not parse: has its password a / or a %?",
            remedy="write it as redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH",
        ) from (error if url == redacted(url) else None)


@contextlib.contextmanager
def redis_errors(url: str = "") -> Iterator[None]:
    """Translate redis-py's errors into ours, with what to do about each."""
    where = redacted(url) if url else "the server"
    try:
        yield
    except exceptions.NoPermissionError as error:
        raise ServerRefusedError(
            f"{where} does not let this user do that",
            why=str(error),
            remedy="use an account whose role may, or renew its rights: stream-hash acl",
        ) from error
    except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
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
        if fault := tls_fault(error):
            raise ServerUnreachableError(
                f"no encrypted connection to {where} can be made", why=fault[0], remedy=fault[1]
            ) from error
        raise ServerUnreachableError(
            f"no server answers at {where}" if url else "the server went away",
            why=str(error),
            remedy=_scheme_hint(url, error)
            or "start the embedded server with: stream-hash up, or name another with --url",
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


def _scheme_hint(url: str, error: Exception) -> str:
    """What to try when one side may speak TLS and the other not; empty when nothing hints at it.

    A server without TLS waits for the rest of what it takes for a command; one with TLS hangs up.
    """
    if url.startswith("rediss:") and isinstance(error, exceptions.TimeoutError):
        return "see that the server runs, and that this port of it speaks TLS: one that does not is redis://"
    if url.startswith("redis:") and re.search("closed by server|while reading|reset by peer", str(error)):
        return "write rediss:// if the server speaks TLS"
    return ""
