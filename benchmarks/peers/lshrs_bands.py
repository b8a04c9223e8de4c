"""LSHRS on the server: bands of random hyperplanes, a Redis set a bucket, read with a call each.

What favours it here: its candidates' vectors are fetched from its own memory, not from the server as ours are, and
several processes fill it, as several workers fill ours. Its own pool is of TCP connections; it is given a client of the
server's socket instead, as all others use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import redis
from lshrs import LSHRS
from lshrs.storage.redis import RedisStorage

from benchmarks.memory import settled_memory
from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import K, Task
from benchmarks.peers.timing import forked

DISTRIBUTIONS = ("lshrs",)
NOTE = "On the server, ranked by itself from vectors in its own process. Bytes: used_memory; it stores no vectors."
BUILDS = {(8, 6): (0, 1, 2), (16, 8): (0, 1, 2, 8), (32, 10): (0, 1, 4), (72, 12): (0, 1)}
"""(bands, bits) and its `probes`, further buckets a band: what finds half of the ten nearest at the fewest bytes, the
library's own example, and what does so with the fewest candidates; from there on to nine tenths."""


def builds(task: Task, url: str) -> Iterator[Built]:
    """One for each number of bands."""
    with redis.Redis.from_url(url) as client:
        for (bands, bits), probes in BUILDS.items():
            client.flushall()
            before = settled_memory(client)["used_memory"]
            start = time.perf_counter()
            forked(task.limits.processes, lambda number, shape=(bands, bits): _feeder(task, url, shape, number))
            seconds = time.perf_counter() - start
            size = (settled_memory(client)["used_memory"] - before) / len(task.items)
            searches = {f"probes {extra}": _opener(task, url, (bands, bits), extra) for extra in probes}
            yield Built(f"{bands} × {bits}", seconds, size, searches)


def _opened(task: Task, url: str, shape: tuple[int, int]) -> LSHRS:
    bands, bits = shape
    storage = RedisStorage(prefix="lsh")
    storage._client = redis.Redis.from_url(url)
    return LSHRS(
        dim=task.items.shape[1],
        num_perm=bands * bits,
        num_bands=bands,
        rows_per_band=bits,
        storage=storage,
        vector_fetch_fn=lambda rows: task.items[rows],
        seed=0,
    )


def _feeder(task: Task, url: str, shape: tuple[int, int], number: int) -> Callable[[], None]:
    index = _opened(task, url, shape)
    rows = range(number, len(task.items), task.limits.processes)
    return lambda: index.index(rows, task.items[rows])


def _opener(task: Task, url: str, shape: tuple[int, int], extra: int) -> Callable[[], Search]:
    def opened() -> Search:
        index = _opened(task, url, shape)
        return lambda query: [row for row, _ in index.query(query, top_k=K, top_p=1.0, probes=extra)]

    return opened
