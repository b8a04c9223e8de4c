"""faiss IVF: vectors in lists by their nearest centroid, over how many lists are looked through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import faiss

from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import K, Task

DISTRIBUTIONS = ("faiss-cpu",)
NOTE = "In process, one thread, flat lists; it learns by k-means. Bytes: its serialised index less vectors."
MOST_LISTS = 256
PROBES = (1, 2, 4, 8, 16, 32, 64)


def builds(task: Task, url: str) -> Iterator[Built]:  # noqa: ARG001  # needs no server
    """One, of 256 lists, or of as many as a small set of items can fill."""
    faiss.omp_set_num_threads(1)
    lists = max(1, min(MOST_LISTS, len(task.items) // 40))  # faiss warns below 39 items a centroid
    dimension = task.items.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
    start = time.perf_counter()
    index.train(task.items)
    middle = time.perf_counter()
    index.add(task.items)
    end = time.perf_counter()
    size = len(faiss.serialize_index(index)) / len(task.items) - task.vector_bytes
    searches = {f"nprobe {probes}": _opener(index, probes) for probes in PROBES if probes <= lists}
    yield Built(f"{lists} lists", end - middle, size, searches, middle - start)


def _opener(index: faiss.IndexIVFFlat, probes: int) -> Callable[[], Search]:
    def opened() -> Search:
        index.nprobe = probes
        return lambda query: [row for row in index.search(query[None, :], K)[1][0].tolist() if row >= 0]

    return opened
