"""Building chunks by the hash workers, who have a stream to see to as well.

Rules
1. A chunk is sent to the front of the hash workers' queue, since it must not wait behind a long backlog; and few are
   sent at a time, since the backlog must not wait for all chunks. While batches wait, chunks get a share of the
   workers' time: few places, each of which rests between two chunks; otherwise each worker always has the next waiting.
2. What counts is the bit of a chunk that is built, not what becomes of a job. A job that is lost is sent again; after
   a few times it is left out, and whoever re-indexes builds it itself (reindex.py).
3. When no worker lives, or nothing comes of what was sent, chunks are built here.
4. Nothing here is exact, and need not be: a chunk may be built twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stream_hash.queue import HASH_QUEUE, ChunkArgument, SafeQueue, enqueue_chunk, live_workers
from stream_hash.service.handle import IndexHandle
from stream_hash.service.reindex import Chunk, in_process

POLL_SECONDS: Final = 0.03
"""A chunk takes a worker 30 to 60 ms, and another one waits for it."""

YIELD_SECONDS: Final = 0.25
"""Whoever is told of progress reads and writes the server for it."""

LOOK_SECONDS: Final = 1.0
STALL_SECONDS: Final = 5.0
RESEND_SECONDS: Final = 20.0
SENDINGS: Final = 3
CROWDED_SHARE: Final = 0.4
"""Of the hash workers' time, while batches wait; of the rest, a part goes into writing two generations, not one."""


@dataclass
class _Sent:
    """A chunk on its way. until : when it is given up for lost, on the monotonic clock."""

    since: float
    until: float


class Spread:
    """Runs chunks for `reindex`. One object for one run."""

    def __init__(self, handle: IndexHandle, broker: Any, *, throttle: float = 1.0) -> None:
        """throttle : share of the time that is spent building, above 0 and up to 1. Raises UsageError."""
        self._handle, self._throttle = handle, throttle
        self._here = in_process(handle, throttle=throttle)
        self._queue = SafeQueue(HASH_QUEUE, connection=broker)
        self._workers, self._looked = 0, -LOOK_SECONDS
        self._crowded = False

    def __call__(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        """Yields now and then."""
        waiting, sent = list(reversed(chunks)), dict[Chunk, _Sent]()
        sendings: dict[Chunk, int] = {}
        resting: list[float] = []  # until when a place is kept empty, to leave time to others
        yielded = moved = time.monotonic()
        while waiting or sent:
            moment = time.monotonic()
            done = self._done(sent)
            for chunk in done:
                if self._share < 1:
                    resting.append(moment + (moment - sent[chunk].since) * (1 / self._share - 1))
                del sent[chunk]
            if done:
                moved = moment
            if moment - yielded >= YIELD_SECONDS:
                yielded = moment
                yield
            self._look(moment)
            if not self._workers:
                # What was sent to workers that are gone comes first; should they come back, it is there already.
                waiting += sent
                sent.clear()
                if waiting:
                    self._build_here(waiting.pop())
                    yield
                continue
            for chunk in [chunk for chunk, late in sent.items() if late.until <= moment]:
                del sent[chunk]
                if sendings[chunk] < SENDINGS:
                    waiting.append(chunk)
            resting = [until for until in resting if until > moment]
            while waiting and len(sent) + len(resting) < self._places:
                chunk = waiting.pop()
                argument = ChunkArgument(chunk.partition, chunk.generation, chunk.number)
                enqueue_chunk(self._queue, self._handle.name, argument)
                sendings[chunk] = sendings.get(chunk, 0) + 1
                sent[chunk] = _Sent(moment, moment + RESEND_SECONDS)
            if sent and moment - moved >= STALL_SECONDS:
                self._build_here(next(iter(sent)))
                yield
                moved = time.monotonic()
            else:
                time.sleep(POLL_SECONDS)

    def _build_here(self, chunk: Chunk) -> None:
        for _ in self._here([chunk]):
            pass

    @property
    def _share(self) -> float:
        """Of its time, that a place is busy."""
        if not self._crowded:
            return self._throttle
        return min(self._throttle, CROWDED_SHARE * self._workers / self._places)

    @property
    def _places(self) -> int:
        """How many chunks may be on their way at a time."""
        if self._crowded:
            return math.ceil(self._workers * CROWDED_SHARE)
        return self._workers if self._throttle < 1 else 2 * self._workers

    def _look(self, moment: float) -> None:
        """See, now and then, who works and whether batches wait."""
        if moment - self._looked >= LOOK_SECONDS:
            self._looked = moment
            self._workers = len(live_workers(self._queue.connection, HASH_QUEUE))
        # Of ours, those that wait are fewer than are on their way.
        self._crowded = self._workers > 0 and self._queue.connection.llen(self._queue.key) > 2 * self._workers

    def _done(self, sent: Collection[Chunk]) -> list[Chunk]:
        """Which of the chunks on their way are built."""
        done: list[Chunk] = []
        for partition, generation in {(chunk.partition, chunk.generation) for chunk in sent}:
            own = [chunk for chunk in sent if chunk.partition == partition]
            built = self._handle.generations.built(partition, generation, 1 + max(chunk.number for chunk in own))
            done += [chunk for chunk in own if built[chunk.number]]
        return done
