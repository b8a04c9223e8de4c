"""Query clients: processes that ask one held-out query after the other, and note what came of each."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.live.plan import BUDGET, INDEX, K, Place
from benchmarks.live.record import Record
from stream_hash.client import Index
from workers.tuning import tune

START_SECONDS = 60.0


@dataclass(frozen=True)
class QueryLog:
    """Of each query that was answered: moment (when it began, on the monotonic clock), seconds, generation, results
    (how many), different (of them), precision (share of K that have the query's class). failures : what was raised, a
    sentence each.
    """

    moment: NDArray[np.float64]
    seconds: NDArray[np.float64]
    generation: NDArray[np.int64]
    results: NDArray[np.int64]
    different: NDArray[np.int64]
    precision: NDArray[np.float64]
    failures: list[str]

    @classmethod
    def joined(cls, logs: list[QueryLog]) -> QueryLog:
        """Of all clients, in the order of time."""
        names = [field.name for field in fields(cls) if field.name != "failures"]
        order = np.argsort(np.concatenate([log.moment for log in logs]), kind="stable")
        arrays = {name: np.concatenate([getattr(log, name) for log in logs])[order] for name in names}
        return cls(**arrays, failures=[failure for log in logs for failure in log.failures])


class Clients:
    """The running clients."""

    def __init__(self, stop: Event, pipes: list[Any]) -> None:
        self._stop, self._pipes = stop, pipes

    def end(self) -> QueryLog:
        """Stop them; what they noted."""
        self._stop.set()
        return QueryLog.joined([pipe.recv() for pipe in self._pipes])


@contextmanager
def querying(place: Place, count: int, seed: int, *, pause_seconds: float) -> Iterator[Clients]:
    """`count` client processes, each of which has had its first answer. pause_seconds : between two queries."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pairs = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_ask, args=(place, [seed, 2, number], pause_seconds, stop, theirs), daemon=True)
        for number, (_, theirs) in enumerate(pairs)
    ]
    for process in processes:
        process.start()
    try:
        for ours, _ in pairs:
            if not ours.poll(START_SECONDS):
                raise RuntimeError("a query client did not start")
            ours.recv()
        yield Clients(stop, [ours for ours, _ in pairs])
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _ask(place: Place, seed: list[int], pause_seconds: float, stop: Event, pipe: Any) -> None:
    tune()
    record, index = Record(place.folder), Index(INDEX, place.url)
    labels = np.array(record.labels)
    numbers = {item_id: number for number, item_id in enumerate(record.ids)}
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, float, int, int, int, float]] = []
    failures: list[str] = []
    while not stop.is_set():
        for query in rng.permutation(len(record.queries)).tolist():
            if stop.wait(pause_seconds):
                break
            moment = time.monotonic()
            try:
                answer = index.query(record.queries[query], K, budget=BUDGET)[0]
            except Exception as error:  # noqa: BLE001 - every failure counts, whatever it is
                failures.append(f"{type(error).__name__}: {error}")
                continue
            seconds = time.monotonic() - moment
            found = [numbers[result.id] for result in answer.results]
            right = int((labels[found] == record.query_labels[query]).sum()) / K
            rows.append((moment, seconds, answer.generation, len(found), len(set(found)), right))
            if len(rows) == 1:
                pipe.send("ready")
    columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
    moment_, seconds_, *counts, precision = columns
    pipe.send(QueryLog(moment_, seconds_, *(column.astype(np.int64) for column in counts), precision, failures))
