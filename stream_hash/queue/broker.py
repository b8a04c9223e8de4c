"""The connection that carries the queue.

Rules
1. RQ gets a client of its own: it changes the socket timeout of the client it is given.
2. RQ knows no clusters: it reads attributes that a RedisCluster lacks, and its transactions touch several
   keys. On a cluster all its keys must share one slot, and its client is pinned to that slot's primary. They
   share one when RQ_KEY_PREFIX, which rq reads when it is imported, holds a hash tag such as `{rq}`.
3. A pinned client does not follow a failover. A worker then ends with an error, and finds the new primary
   when it is started again (workers/supervisor.py does that).
4. Few retries: a worker waits for an absent server in a loop of its own, in which it still hears SIGTERM;
   redis-py's ten retries would keep it deaf for minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
from redis.backoff import ExponentialBackoff
from redis.crc import key_slot
from redis.retry import Retry
from rq.defaults import RQ_KEY_PREFIX

from stream_hash.errors import StreamHashError

if TYPE_CHECKING:
    from redis.cluster import RedisCluster

HASH_QUEUE: Final = "stream-hash"
"""Batches waiting to be hashed into the index."""

TRAIN_QUEUE: Final = "stream-hash-train"
"""Indexes waiting to learn a new generation. One queue a process: never give a worker both."""

SOCKET_TIMEOUT_SECONDS: Final = 10.0


def broker_for(target: str | RedisCluster) -> redis.Redis:
    """A new client for the queue: at the URL `target`, or on the cluster `target`.

    Raises StreamHashError when the server is a cluster and RQ_KEY_PREFIX holds no hash tag. Errors of redis-py
    pass through: the caller knows which URL to name in a message.
    """
    if not isinstance(target, str):
        return _pinned(target)
    client = redis.Redis.from_url(target, **_options())
    if _mode(client) != "cluster":
        return client
    client.close()
    from redis.cluster import RedisCluster

    cluster = RedisCluster.from_url(target, **_options())
    try:
        return _pinned(cluster)
    finally:
        cluster.close()


def tag_of(prefix: str) -> str:
    """The hash tag of a key prefix with its braces, as Redis reads it; empty when it has none."""
    start = prefix.find("{")
    end = prefix.find("}", start + 1)
    return prefix[start : end + 1] if start >= 0 and end > start + 1 else ""


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
    }


def _mode(client: Any) -> str:
    greeting = client.execute_command("HELLO")
    flat = [part for pair in greeting.items() for part in pair] if isinstance(greeting, dict) else greeting
    texts = [part.decode() if isinstance(part, bytes) else part for part in flat]
    return str(dict(zip(texts[::2], texts[1::2], strict=True)).get("mode", ""))


def _pinned(cluster: RedisCluster) -> redis.Redis:
    if not tag_of(RQ_KEY_PREFIX):
        raise StreamHashError(
            f"RQ's keys cannot be placed on a cluster: their prefix is {RQ_KEY_PREFIX!r}",
            why="the keys of a queue must share one hash slot, so their prefix needs a hash tag",
            remedy="set RQ_KEY_PREFIX={rq} for every producer and worker, or give a --broker-url of its own",
        )
    node: Any = cluster.nodes_manager.get_node_from_slot(key_slot(RQ_KEY_PREFIX.encode()))
    pool = cluster.get_redis_connection(node).connection_pool
    # The node's own settings carry the password and the certificates; the retries are ours (rule 4).
    settings = pool.connection_kwargs | _options()
    return redis.Redis(connection_pool=redis.ConnectionPool(pool.connection_class, **settings))
