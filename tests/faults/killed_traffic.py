"""Traffic while processes are killed: a producer that never gives up, and queries whose answers are known.

Rules
1. One thread produces, so the order in which its batches are accepted is the order in which they were sent, and what
   was sent last of an id is what has to be there in the end.
2. A batch is sent under one id until it is known to be accepted, however often the server dies meanwhile.
3. The first FIXED items are never changed: each is its own nearest neighbour at every moment. The next OFTEN are
   changed all the time: a batch that is applied late, or twice, meets later writes of its items.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash import Index, Producer
from stream_hash.errors import ServerUnreachableError
from stream_hash.service.connections import Connections
from stream_hash.storage.codec import Batch

DIMENSION: Final = 16
CLASSES: Final = 4
ITEMS: Final = 4_000
FIXED: Final = 1_000
OFTEN: Final = 300
BATCH_ITEMS: Final = 24
PAUSE_SECONDS: Final = 0.02
K: Final = 10


def vectors_of(rng: np.random.Generator, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Made-up vectors of these classes. (n, DIMENSION) float32."""
    centres = np.random.default_rng(7).normal(size=(CLASSES, DIMENSION))
    return (centres[classes] + rng.normal(size=(len(classes), DIMENSION))).astype(np.float32)


def upsert(rng: np.random.Generator, ids: list[str]) -> Batch:
    """New vectors under these ids; every other one is labelled with its class."""
    classes = rng.integers(CLASSES, size=len(ids))
    labels = [str(one) if position % 2 else "" for position, one in enumerate(classes.tolist())]
    return Batch("upsert", ids, vectors_of(rng, classes), labels, None)


class Record:
    """What was accepted: how many items, and the last vector of each id."""

    def __init__(self) -> None:
        self.accepted = 0
        self.vectors: dict[str, NDArray[np.float32]] = {}

    def add(self, batch: Batch) -> None:
        self.accepted += len(batch)
        for position, item_id in enumerate(batch.ids):
            if batch.vectors is None:
                self.vectors.pop(item_id, None)
            else:
                self.vectors[item_id] = batch.vectors[position]


class Repeating(threading.Thread):
    """Repeats a step until it is stopped; what goes wrong in it is raised by `end`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                self.step()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits for this one
            self._failure = error

    def step(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self.ended.set()
        self.join()
        if self._failure is not None:
            raise self._failure


class Stream(Repeating):
    """Upserts of new and of old ids, and now and then a batch of deletions."""

    def __init__(self, index: str, url: str, record: Record, name: str) -> None:
        super().__init__()
        self._producer = Producer(index, url)
        self._record, self._name = record, name
        self._rng = np.random.default_rng(list(name.encode()))
        self._sent = 0

    def step(self) -> None:
        self._sent += 1
        batch, batch_id = self._next(), f"{self._name}-{self._sent}"
        while True:
            try:
                self._producer.submit(batch, batch_id)
                break
            except ServerUnreachableError:
                time.sleep(PAUSE_SECONDS)
        self._record.add(batch)
        time.sleep(PAUSE_SECONDS)

    def _next(self) -> Batch:
        old = list(self._record.vectors)[FIXED : FIXED + OFTEN]
        if self._sent % 8 == 5:
            return Batch("delete", self._rng.choice(old, size=BATCH_ITEMS // 2, replace=False).tolist())
        if self._sent % 2:
            return upsert(self._rng, self._rng.choice(old, size=BATCH_ITEMS, replace=False).tolist())
        return upsert(self._rng, [f"{self._name}-{self._sent}-{n}" for n in range(BATCH_ITEMS)])


GRACE_SECONDS: Final = 2.0
"""How long after the server is back a query may still fail: its client has been waiting to send it again."""


@dataclass(frozen=True)
class Failed:
    """A query that was not answered. moment : Unix seconds, when it failed."""

    moment: float
    why: str


class Queries(Repeating):
    """Asks for fixed items, each of which has to come first in its answer."""

    def __init__(self, index: str, url: str, record: Record) -> None:
        super().__init__()
        self._index = Index(index, Connections.open(url))
        self._record = record
        self._rng = np.random.default_rng(0)
        self.answered = 0
        self.failed: list[Failed] = []
        self.wrong: list[str] = []

    def step(self) -> None:
        item_id = f"item-{self._rng.integers(FIXED)}"
        try:
            (answer,) = self._index.query(self._record.vectors[item_id], k=K)
        except ServerUnreachableError as error:
            self.failed.append(Failed(time.time(), f"{error}: {error.why}"))
        else:
            self.answered += 1
            self._judge(item_id, answer)
        time.sleep(PAUSE_SECONDS)

    def failed_outside(self, away: Iterable[tuple[float, float]]) -> list[str]:
        """Why those failed that did so while the server was up. away : from when to when it was not, Unix seconds."""
        outages = [(down, back + GRACE_SECONDS) for down, back in away]
        return [one.why for one in self.failed if not any(down <= one.moment <= back for down, back in outages)]

    def _judge(self, item_id: str, answer: Any) -> None:
        found = [result.id for result in answer.results]
        if len(set(found)) != K or found[0] != item_id:
            self.wrong.append(f"the query for {item_id} found {found}: {answer}")
