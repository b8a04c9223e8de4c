"""The producer, a process that is told what to do: stream items in, change them at full speed or slowly, or rest."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.live.plan import INDEX, Place
from benchmarks.live.record import Record
from stream_hash.producer import Producer

CALL_ITEMS = 256
SLOW_ITEMS = 64
SLOW_SECONDS = 0.1
MAX_PENDING = 64
"""Batches: the queue is never empty at full speed, and a change of speed is felt within a second."""

NOISE = 0.002
"""Of each coordinate of a changed vector, standard deviation: 0.045 of its length at 512 coordinates. Enough to move it
into another bucket, little enough to leave it among the same neighbours."""

CHANGES = ("upsert", "upsert", "upsert", "delete", "add again")


class Stream:
    """The producer process, as the run sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def ingest(self, start: int, end: int) -> float:
        """Stream the items from `start` to `end` in; seconds until the last of them is searchable."""
        return float(self._ask("ingest", start, end))

    def change(self, speed: str) -> None:
        """From now on upsert, delete and add again, "full" or "slow", or "rest", which is when all is searchable."""
        self._ask(speed)

    def totals(self) -> dict[str, Any]:
        """Accepted items, changes of each kind, and dead letters; the process ends."""
        return dict(self._ask("end"))

    def _ask(self, *command: Any) -> Any:
        self._pipe.send(command)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def streaming(place: Place, seed: int) -> Iterator[Stream]:
    """The producer process, resting."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_produce, args=(place, seed, theirs), daemon=True)
    process.start()
    try:
        yield Stream(ours)
    finally:
        process.terminate()
        process.join()


def _produce(place: Place, seed: int, pipe: Connection) -> None:
    try:
        _Producing(place, seed, pipe).run()
    except Exception as error:  # noqa: BLE001 - whoever waits for an answer is to hear of it, whatever it is
        pipe.send(RuntimeError(f"the producer failed: {type(error).__name__}: {error}"))


class _Producing:
    def __init__(self, place: Place, seed: int, pipe: Connection) -> None:
        self._pipe = pipe
        self._record = Record(place.folder, writable=True)
        self._producer = Producer(INDEX, place.url, max_pending=MAX_PENDING)
        self._rng = np.random.default_rng([seed, 1])
        shape = (4_096, self._record.vectors.shape[1])
        self._noise = NOISE * self._rng.standard_normal(shape, dtype=np.float32)
        self._changes: Counter[str] = Counter()

    def run(self) -> None:
        speed, step = "rest", 0
        while True:
            if speed == "rest" or self._pipe.poll():
                name, *arguments = self._pipe.recv()
                if name == "end":
                    break
                if name == "ingest":
                    self._pipe.send(self._ingest(*arguments))
                    continue
                speed = name
                if speed == "rest":
                    self._producer.wait()
                self._pipe.send(None)
                continue
            self._change(CHANGES[step % len(CHANGES)], CALL_ITEMS if speed == "full" else SLOW_ITEMS)
            step += 1
            if speed == "slow":
                self._producer.flush()
                time.sleep(SLOW_SECONDS)
        self._producer.wait()
        letters = sum(letter.items for letter in self._producer.dead_letters())
        self._pipe.send({"accepted": self._producer.accepted, "changes": dict(self._changes), "dead_letters": letters})

    def _ingest(self, start: int, end: int) -> float:
        moment = time.perf_counter()
        for first in range(start, end, 1_000):
            self._upsert(np.arange(first, min(first + 1_000, end)))
        self._producer.wait()
        return time.perf_counter() - moment

    def _change(self, kind: str, count: int) -> None:
        alive = self._record.alive
        positions = np.flatnonzero(~alive if kind == "add again" else alive)
        if kind != "upsert":
            count = count // 4
        if kind == "delete" and 10 * len(positions) < 9 * len(alive):
            return
        chosen = self._rng.choice(positions, min(count, len(positions)), replace=False)
        if not len(chosen):
            return
        if kind == "delete":
            self._producer.delete([self._record.ids[n] for n in chosen.tolist()])
            alive[chosen] = False
        else:
            noise = self._noise[(np.arange(len(chosen)) + self._rng.integers(len(self._noise))) % len(self._noise)]
            self._record.vectors[chosen] += noise
            self._upsert(chosen)
        self._changes[kind] += len(chosen)

    def _upsert(self, chosen: NDArray[np.intp]) -> None:
        record = self._record
        labels = [
            label if known else None
            for label, known in zip(record.labels[chosen].tolist(), record.labelled[chosen].tolist(), strict=True)
        ]
        self._producer.upsert_many([record.ids[n] for n in chosen.tolist()], record.vectors[chosen], labels)
        record.alive[chosen] = True
