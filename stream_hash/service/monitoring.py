"""What a server and its indexes say of themselves to monitoring, at one moment or nearly so.

A look costs some ten round trips, however many indexes there are: the names, the processes of two queues, the memory of
each primary, and the four of storage/scrape.py. Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, get_args

import numpy as np

from stream_hash.clock import now_milliseconds
from stream_hash.errors import IntegrityError
from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE, SafeQueue, live_workers
from stream_hash.service.connections import Connections
from stream_hash.service.quality import Summary
from stream_hash.service.training_runs import Decision
from stream_hash.storage.connection import primaries, redis_errors
from stream_hash.storage.scrape import IndexScrape, scrape
from stream_hash.storage.store import index_names

INDEXES: Final = 200
"""Indexes told of one by one, the first by name: each is some fifty series."""

QUEUES: Final = {"hash": HASH_QUEUE, "train": TRAIN_QUEUE}
DECISIONS: Final[tuple[Decision, ...]] = get_args(Decision)


@dataclass(frozen=True)
class ServerView:
    """memory : (used, most) bytes by primary, most being 0 without a limit. workers : by (queue, state). jobs : those
    that wait, by queue. indexes : how many there are; views has INDEXES of them at most.
    """

    memory: dict[str, tuple[int, int]]
    workers: Counter[tuple[str, str]]
    jobs: dict[str, int]
    indexes: int
    views: list[IndexView]


class IndexView:
    """One index, in the numbers that monitoring asks for."""

    def __init__(self, scraped: IndexScrape, now: int) -> None:
        """now : Unix milliseconds."""
        self._scraped, self._now = scraped, now
        self._parts = scraped.partitions
        self.name = scraped.name
        self.counters, self.tallies, self.run = scraped.counters, scraped.tallies, scraped.run
        self.pending_batches, self.dead_letters = scraped.pending, scraped.dead_letters

    @property
    def items(self) -> int:
        return sum(part.items for part in self._parts)

    @property
    def labelled(self) -> int:
        return sum(part.labelled for part in self._parts)

    @property
    def pending_items(self) -> int:
        """By the ledger's invariant: accepted = applied + pending + dead + dropped."""
        counts = self.counters
        return counts["accepted"] - counts["applied"] - counts["dead"] - counts["dropped"]

    @property
    def lag_seconds(self) -> float:
        """How long ago the oldest pending batch was accepted, by the clocks of its producer and of this process."""
        oldest = self._scraped.oldest
        return 0.0 if oldest is None else max(0.0, (self._now - oldest) / 1e3)

    @property
    def live(self) -> int:
        """The newest generation that is live in a partition; 0 for none."""
        return max((part.live for part in self._parts), default=0)

    @property
    def building(self) -> int:
        """The generation that is on its way: the trainer's target, until it is live everywhere; 0 for none."""
        target = self._scraped.target
        return target if target and any(part.live != target for part in self._parts) else 0

    @property
    def reindexed(self) -> float:
        """The share of the items that the generation on its way has; 1 when there is none."""
        target, items = self.building, self.items
        if not target or not items:
            return 1.0 if not target else 0.0
        built = [
            part.items if part.live == target else part.built if part.building == target else 0 for part in self._parts
        ]
        return sum(built) / items

    @property
    def is_trained(self) -> bool:
        """Whether a trainer holds its lease."""
        return self._scraped.lease_until > self._now

    @property
    def precision(self) -> float | None:
        """The last mean of what arriving labelled items found; None before there is one."""
        try:
            shown = Summary.from_json(self._scraped.quality).shown()
        except IntegrityError:  # the sweep begins a new one, and logs it
            return None
        return None if shown is None else float(shown["precision"])

    @property
    def buckets(self) -> int:
        return sum(part.buckets for part in self._parts)

    @property
    def mean_bucket(self) -> float:
        members = sum(part.members for part in self._parts)
        return members / self.buckets if self.buckets else 0.0

    @property
    def largest_bucket(self) -> int:
        """The largest of the buckets that sampled items are in."""
        return max(self._scraped.bucket_sizes, default=0)

    @property
    def bucket_skew(self) -> float:
        """The mean size of the bucket that an item is in, over the mean size of a bucket: 1 when all are alike."""
        sizes = self._scraped.bucket_sizes
        return fmean(sizes) / self.mean_bucket if sizes and self.mean_bucket else 1.0


def look(connections: Connections, rng: np.random.Generator) -> ServerView:
    """Look at a server once. Raises StreamHashError when it does not answer."""
    with redis_errors():
        client, broker = connections.client, connections.broker
        names = index_names(client)
        workers = Counter(
            (queue, worker.state) for queue, name in QUEUES.items() for worker in live_workers(broker, name)
        )
        jobs = {queue: SafeQueue(name, connection=broker).count for queue, name in QUEUES.items()}
        memory = {_name(node): _memory(node) for node in primaries(client)}
        scraped = scrape(client, names[:INDEXES], rng)
    now = now_milliseconds()
    return ServerView(memory, workers, jobs, len(names), [IndexView(index, now) for index in scraped])


def _name(node: Any) -> str:
    """HOST:PORT of a server, or the path of its socket: never a user or a password."""
    options: dict[str, Any] = node.connection_pool.connection_kwargs
    return str(options["path"]) if "path" in options else f"{options.get('host')}:{options.get('port')}"


def _memory(node: Any) -> tuple[int, int]:
    info = node.info("memory")
    return int(info["used_memory"]), int(info["maxmemory"])
