"""The verifier, a process that verifies the index at random moments; and what is held against the producer's record."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.live.plan import INDEX, Place
from benchmarks.live.record import Record
from stream_hash.client import Index
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from workers.tuning import tune

PIECE = 1_000


@dataclass(frozen=True)
class Verified:
    """One verification. start, end : on the monotonic clock."""

    start: float
    end: float
    items: int
    violations: list[str]


class Verifier:
    """The running verifier."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def end(self) -> list[Verified]:
        """All verifications, when the last is done."""
        return list(self._pipe.recv())


@contextmanager
def verifying(place: Place, moments: list[float]) -> Iterator[Verifier]:
    """A process that verifies at each of these moments of the monotonic clock, or as soon after as it can."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_verify, args=(place, moments, theirs), daemon=True)
    process.start()
    try:
        yield Verifier(ours)
    finally:
        process.terminate()
        process.join()


def _verify(place: Place, moments: list[float], pipe: Any) -> None:
    tune()
    index = Index(INDEX, place.url)
    done = []
    for moment in sorted(moments):
        time.sleep(max(0.0, moment - time.monotonic()))
        start = time.monotonic()
        report = index.verify()
        done.append(Verified(start, time.monotonic(), report.items, report.violations))
    pipe.send(done)


def account(place: Place) -> dict[str, int]:
    """The index against the record, when nothing is pending: items that are lost, doubled, there though deleted, or
    have another vector or label than was sent last; and what the ledger says.
    """
    record = Record(place.folder)
    handle = IndexHandle(Connections.open(place.url).client, INDEX)
    index = Index(INDEX, place.url)
    found: list[str] = []
    for partition in range(handle.settings.partitions):
        for values in handle.reader.scan_values(partition):
            found += values.ids
    present = set(found)
    alive = [record.ids[n] for n in np.flatnonzero(record.alive).tolist()]
    lost = [item_id for item_id in alive if item_id not in present]
    other = 0
    for start in range(0, len(alive), PIECE):
        numbers = np.flatnonzero(record.alive)[start : start + PIECE].tolist()
        for number, item in zip(numbers, index.get([record.ids[n] for n in numbers]), strict=True):
            label = int(record.labels[number]) if record.labelled[number] else None
            if item is None or item.label != label or not np.array_equal(item.vector, record.vectors[number]):
                other += 1
    balance = handle.ledger.balance()
    return {
        "items": len(alive),
        "lost": len(lost),
        "doubled": len(found) - len(present),
        "deleted_and_there": len(present.difference(alive)),
        "not_as_sent_last": other,
        "accepted": balance.accepted,
        "applied": balance.applied,
        "pending": balance.pending,
        "dead": balance.dead,
    }
