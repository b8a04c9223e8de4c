"""Ours against the tutorial's loop: the same hyperplanes, the same radius, in turns; and the same candidates.

Our search returns at most 10,000 results, so that is how many of the candidates are compared by name: the number of
candidates has to be equal, all that is returned has to be among the loop's, and none of the loop's that is missing
may rank before the last that is returned. At radius 2 that is nearly always all of them.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.task import K, Task
from benchmarks.peers.tutorial_loop import TutorialLoop
from stream_hash.client import Index
from stream_hash.numerics.model import lsh_model
from stream_hash.service.answer import Answer, Result
from stream_hash.settings import MAX_RESULTS

TIMED_QUERIES = {2: 200}
FEWER_QUERIES = 30
"""A query of the loop at radius 8 takes half a second."""

COMPARED_QUERIES = 30
ROUNDING = 1e-5
"""Two ways to compute a cosine in float32 differ by less."""


def against_loop(task: Task, index: Index, radius: int) -> dict[str, Any]:
    """Seconds of both, and how many queries had the same candidates. index : live under its first generation.

    Raises AssertionError when the candidates of a query differ.
    """
    loop = TutorialLoop(lsh_model(index.settings, task.training), task.items)
    index.query(task.queries[0], K, radius=radius, widen=False)  # loads the model, once
    whole = {"fetch": len(task.items)} if "fetch" in inspect.signature(Index.query).parameters else {}
    compared = task.queries[:COMPARED_QUERIES]
    results = 0
    for query in compared:
        (answer,) = index.query(query, min(MAX_RESULTS, len(task.items)), radius=radius, widen=False, **whole)
        check_same(task.items, query, loop.candidates(query, radius), answer)
        results += len(answer.results)
    seconds: dict[str, list[float]] = {"own": [], "as_printed": [], "ranked_once": []}
    for query in task.queries[: TIMED_QUERIES.get(radius, FEWER_QUERIES)]:
        for name, ask in (
            ("own", lambda: index.query(query, K, radius=radius, widen=False)),  # noqa: B023  # asked at once
            ("as_printed", lambda: loop.query_as_printed(query, radius)),  # noqa: B023
            ("ranked_once", lambda: loop.query(query, radius)),  # noqa: B023
        ):
            start = time.perf_counter()
            ask()
            seconds[name].append(time.perf_counter() - start)
    return {
        "radius": radius,
        "seconds": seconds,
        "queries_compared": len(compared),
        "candidates_compared": results,
    }


def check_same(items: NDArray[np.float32], query: NDArray[np.float32], rows: set[int], answer: Answer) -> None:
    """Raise AssertionError when the candidates of an answer are not these rows."""
    found = {int(result.id.rpartition("-")[2]) for result in answer.results}
    if answer.candidates != len(rows):
        raise AssertionError(f"{answer.candidates} candidates, the loop has {len(rows)}")
    if not found <= rows:
        raise AssertionError(f"the loop does not have {sorted(found - rows)[:5]}")
    missing = np.array(sorted(rows - found), dtype=np.int64)
    if len(missing) and (len(found) < MAX_RESULTS or _best(items, query, missing) > _last(answer.results) + ROUNDING):
        raise AssertionError(f"only the loop has {missing[:5].tolist()}")


def _best(items: NDArray[np.float32], query: NDArray[np.float32], rows: NDArray[np.int64]) -> float:
    return float((items[rows] @ query).max())


def _last(results: Sequence[Result]) -> float:
    return results[-1].score
