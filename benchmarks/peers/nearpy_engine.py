"""NearPy on the server: a list of pickled vectors a bucket, in every table anew.

It needs numpy 1, hence an interpreter of its own. It pickles, and is run here only against a server that this
benchmark has started.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator

import redis
from nearpy import Engine
from nearpy.distances import CosineDistance
from nearpy.filters import NearestFilter, UniqueFilter
from nearpy.hashes import RandomBinaryProjections
from nearpy.storage import RedisStorage

from benchmarks.memory import settled_memory
from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import K, Task
from benchmarks.peers.timing import forked

DISTRIBUTIONS = ("NearPy", "numpy", "redis")
NOTE = "On the server, which holds each vector once a table. Bytes: used_memory, less one vector an item."
BUILDS = ((8, 8), (8, 6), (8, 4))
"""(tables, bits). It keeps 6 kB a vector and table, so 16 tables of this data set would be 6 GB."""


def builds(task: Task, url: str) -> Iterator[Built]:
    """One for each number of tables; there is nothing to choose at a query."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of numpy 1 for tostring and fromstring, one a vector
    with redis.Redis.from_url(url) as client:
        for tables, bits in BUILDS:
            client.flushall()
            before = settled_memory(client)["used_memory"]
            start = time.perf_counter()
            forked(task.limits.processes, lambda number, shape=(tables, bits): _feeder(task, url, shape, number))
            seconds = time.perf_counter() - start
            size = (settled_memory(client)["used_memory"] - before) / len(task.items) - task.vector_bytes
            yield Built(f"{tables} × {bits}", seconds, size, {"": _opener(task, url, (tables, bits))})


def _opened(task: Task, url: str, shape: tuple[int, int]) -> Engine:
    tables, bits = shape
    return Engine(
        task.items.shape[1],
        lshashes=[RandomBinaryProjections(f"h{table}", bits, rand_seed=table) for table in range(tables)],
        distance=CosineDistance(),
        fetch_vector_filters=[UniqueFilter()],
        vector_filters=[NearestFilter(K)],
        storage=RedisStorage(redis.Redis.from_url(url)),
    )


def _feeder(task: Task, url: str, shape: tuple[int, int], number: int) -> Callable[[], None]:
    engine = _opened(task, url, shape)

    def feed() -> None:
        for row in range(number, len(task.items), task.limits.processes):
            engine.store_vector(task.items[row], row)

    return feed


def _opener(task: Task, url: str, shape: tuple[int, int]) -> Callable[[], Search]:
    def opened() -> Search:
        engine = _opened(task, url, shape)
        return lambda query: [row for _, row, _ in engine.neighbours(query)]

    return opened
