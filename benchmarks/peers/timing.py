"""Timing a search: one query after the other, then from several processes at once.

Processes are forked, so that an index in memory is there for each without being copied; each opens its own search.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.peer import Search
from benchmarks.peers.task import Limits

WARM_UP = 5
SHORTEST_SECONDS = 0.5
"""A rate that is counted for less is not one."""

PATIENCE_SECONDS = 600.0


def timed(opener: Callable[[], Search], queries: NDArray[np.float32], limits: Limits) -> dict[str, Any]:
    """Seconds of each query and what it found; and queries a second of one client, and of several at once."""
    search = opener()
    for query in queries[:WARM_UP]:
        search(query)
    seconds: list[float] = []
    found: list[list[int]] = []
    start = before = time.perf_counter()
    for query in queries:
        rows = search(query)
        now = time.perf_counter()
        seconds.append(now - before)
        found.append([int(row) for row in rows])
        if now - start > limits.seconds and len(found) >= limits.least:
            break
        before = time.perf_counter()
    length = min(max(sum(seconds), SHORTEST_SECONDS), limits.seconds)
    return {
        "found": found,
        "seconds": seconds,
        "queries_per_second": {
            "1": len(seconds) / sum(seconds),
            str(limits.processes): throughput(opener, queries, limits.processes, length),
        },
    }


def throughput(opener: Callable[[], Search], queries: NDArray[np.float32], processes: int, length: float) -> float:
    """Queries a second of that many processes, all asking for `length` seconds, and for one query at least."""
    rates = forked(processes, lambda number: _opened(opener, queries, number, processes, length))
    return float(sum(rates))


def forked(processes: int, opened: Callable[[int], Callable[[], Any]]) -> list[Any]:
    """What each process returns. opened : run in process `number`, makes what is then begun in all at once.

    Raises RuntimeError when one of them fails.
    """
    context = multiprocessing.get_context("fork")
    ready, answers = context.Barrier(processes), context.Queue()

    def work(number: int) -> None:
        try:
            run = opened(number)
            ready.wait(PATIENCE_SECONDS)
            answers.put((True, run()))
        except BaseException as error:
            ready.abort()
            answers.put((False, repr(error)))
            raise

    started = [context.Process(target=work, args=(number,)) for number in range(processes)]
    for process in started:
        process.start()
    done = [answers.get(timeout=2 * PATIENCE_SECONDS) for _ in started]
    for process in started:
        process.join()
    failed = [answer for good, answer in done if not good]
    if failed:
        raise RuntimeError(f"a process of the benchmark failed: {failed[0]}")
    return [answer for _, answer in done]


def _opened(
    opener: Callable[[], Search], queries: NDArray[np.float32], number: int, processes: int, length: float
) -> Callable[[], float]:
    search = opener()
    own = np.roll(queries, -number * len(queries) // processes, axis=0)  # not all the same query at once
    search(own[0])

    def run() -> float:
        answered = 0
        start = time.perf_counter()
        while True:
            search(own[answered % len(own)])
            answered += 1
            spent = time.perf_counter() - start
            if spent >= length:
                return answered / spent

    return run
