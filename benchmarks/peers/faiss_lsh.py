"""faiss IndexLSH: all items ranked by Hamming distance of random codes, the best of them exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import faiss

from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import Task, best

DISTRIBUTIONS = ("faiss-cpu",)
NOTE = "In process, one thread; ranked exactly from the vectors in memory. Bytes: its serialised index, codes alone."
BITS = (64, 256)
RANKED = (100, 500, 2_000)


def builds(task: Task, url: str) -> Iterator[Built]:  # noqa: ARG001  # needs no server
    """One for each number of bits."""
    faiss.omp_set_num_threads(1)
    for bits in BITS:
        start = time.perf_counter()
        index = faiss.IndexLSH(task.items.shape[1], bits)
        index.add(task.items)
        seconds = time.perf_counter() - start
        size = len(faiss.serialize_index(index)) / len(task.items)
        searches = {f"{ranked:,} ranked": _opener(task, index, ranked) for ranked in RANKED}
        yield Built(f"{bits} bits", seconds, size, searches)


def _opener(task: Task, index: faiss.IndexLSH, ranked: int) -> Callable[[], Search]:
    wanted = min(ranked, len(task.items))
    return lambda: lambda query: best(task.items, query, index.search(query[None, :], wanted)[1][0])
