"""hnswlib: a navigable graph in process, over its `ef`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hnswlib

from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import K, Task

DISTRIBUTIONS = ("hnswlib",)
NOTE = "In process, one thread. Bytes: the file it saves, less the vectors in it."
M, EF_CONSTRUCTION = 16, 200
EF = (10, 20, 50, 100, 200)


def builds(task: Task, url: str) -> Iterator[Built]:  # noqa: ARG001  # needs no server
    """One graph of the library's usual parameters."""
    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=task.items.shape[1])
    index.init_index(max_elements=len(task.items), M=M, ef_construction=EF_CONSTRUCTION, random_seed=0)
    index.set_num_threads(1)
    index.add_items(task.items, num_threads=1)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph"
        index.save_index(str(path))
        size = path.stat().st_size
    k = min(K, len(task.items))

    def opener(ef: int) -> Callable[[], Search]:
        def opened() -> Search:
            index.set_ef(ef)
            return lambda query: index.knn_query(query, k=k, num_threads=1)[0][0].tolist()

        return opened

    bytes_an_item = size / len(task.items) - task.vector_bytes
    yield Built(f"M {M}, {EF_CONSTRUCTION}", seconds, bytes_an_item, {f"ef {ef}": opener(ef) for ef in EF})
