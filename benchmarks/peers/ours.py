"""Ours on the server: random hyperplanes, then ITQ's, over the budget; and against the tutorial's loop.

All that is known of our search's parameters stands here: `PLANS`, and `_supported`, which leaves out what the search
of this version has not.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import redis

from benchmarks.memory import settled_memory
from benchmarks.peers.against_loop import against_loop
from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import K, Task
from benchmarks.peers.unlabelled_training import switch_to_itq
from benchmarks.services import running_workers
from benchmarks.writers import CALL_ITEMS, item_ids
from stream_hash.client import Index
from stream_hash.producer import Producer
from stream_hash.settings import IndexSettings

DISTRIBUTIONS = ("stream-hash", "numpy", "redis")
NOTE = (
    "On the server, which holds the vectors; filled by a producer and its hash workers. ITQ: learned without labels "
    "from 10,000 items, live by a re-index. Bytes: used_memory, less the vectors."
)
INDEX = "peers"
LOOP_RADII = (2, 8)
LSH_BITS, FEWER_BITS = 16, 14

PLANS: tuple[dict[str, int], ...] = (
    {"budget": 300},
    {"budget": 1_000},
    {"budget": 3_000},
    {"budget": 6_000},
    {"budget": 10_000},
    {"budget": 1_000, "fetch": 200},
    {"budget": 2_000, "fetch": 300},
    {"budget": 4_000, "fetch": 400},
    {"budget": 6_000, "fetch": 600},
    {"budget": 10_000, "fetch": 800},
)
"""fetch : how many of the candidates are fetched, chosen by their signatures; without it, as many as the search takes
by itself."""

ID_DIGITS = slice(5, None)
"""Of an item's id, `item-00000000017`: its row."""


def builds(task: Task, url: str) -> Iterator[Built]:
    """LSH of 16 bits; the same index under ITQ; and ITQ of 14 bits, whose buckets are larger."""
    with redis.Redis.from_url(url) as client:
        before, seconds = _fill(task, url, client, LSH_BITS)
        facts = {"loop": [against_loop(task, Index(INDEX, url), radius) for radius in LOOP_RADII]}
        plans: list[dict[str, Any]] = [{"radius": radius, "widen": False} for radius in LOOP_RADII]
        searches = _searches(url, [*plans, *PLANS])
        yield Built(f"LSH, {LSH_BITS} bits", seconds, _index_bytes(task, client, before), searches, facts=facts)
        for bits in (LSH_BITS, FEWER_BITS):
            if bits != LSH_BITS:
                before, seconds = _fill(task, url, client, bits)
            switched = switch_to_itq(INDEX, url)
            size, learning = _index_bytes(task, client, before), switched.learning_seconds + switched.reindex_seconds
            yield Built(f"ITQ, {bits} bits", seconds, size, _searches(url, PLANS), learning, asdict(switched))


def _fill(task: Task, url: str, client: Any, bits: int) -> tuple[int, float]:
    """An index of all items; returns the memory in use before, and the seconds until the last was searchable."""
    client.flushall()
    Index.create(INDEX, IndexSettings(task.items.shape[1], bits=bits), url, sample=task.training)
    ids = item_ids(len(task.items))
    with running_workers(url, task.limits.processes), Producer(INDEX, url) as producer:
        before = settled_memory(client)["used_memory"]
        start = time.perf_counter()
        for first in range(0, len(ids), CALL_ITEMS):
            piece = slice(first, first + CALL_ITEMS)
            producer.upsert_many(ids[piece], task.items[piece])
        producer.wait()
        seconds = time.perf_counter() - start
    stored = Index(INDEX, url).status()["items"]
    if stored != len(ids):
        raise RuntimeError(f"{stored} of {len(ids)} items are in the index")
    return before, seconds


def _index_bytes(task: Task, client: Any, before: int) -> float:
    return (settled_memory(client)["used_memory"] - before) / len(task.items) - task.vector_bytes


def _searches(url: str, plans: Sequence[dict[str, Any]]) -> dict[str, Callable[[], Search]]:
    return {_shown(plan): _opener(url, plan) for plan in plans if _supported(plan)}


def _supported(plan: dict[str, Any]) -> bool:
    return set(plan) <= set(inspect.signature(Index.query).parameters)


def _shown(plan: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in plan.items() if name != "widen")


def _opener(url: str, plan: dict[str, Any]) -> Callable[[], Search]:
    def opened() -> Search:
        index = Index(INDEX, url)

        def search(query: Any) -> list[int]:
            (answer,) = index.query(query, K, **plan)
            return [int(result.id[ID_DIGITS]) for result in answer.results]

        return search

    return opened
