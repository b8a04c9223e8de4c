"""usearch: another navigable graph in process, over its `expansion_search`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from usearch.index import Index

from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import K, Task

DISTRIBUTIONS = ("usearch",)
NOTE = "In process, one thread, float32. Bytes: its serialised length, less the vectors in it."
CONNECTIVITY, EXPANSION_ADD = 16, 128
EXPANSIONS = (16, 32, 64, 128, 256)


def builds(task: Task, url: str) -> Iterator[Built]:  # noqa: ARG001  # needs no server
    """One graph of the library's usual parameters."""
    start = time.perf_counter()
    index = Index(
        ndim=task.items.shape[1],
        metric="ip",
        dtype="f32",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
    )
    index.add(np.arange(len(task.items)), task.items, threads=1)
    seconds = time.perf_counter() - start

    def opener(expansion: int) -> Callable[[], Search]:
        def opened() -> Search:
            index.expansion_search = expansion
            return lambda query: index.search(query, K, threads=1).keys.tolist()

        return opened

    bytes_an_item = index.serialized_length / len(task.items) - task.vector_bytes
    searches = {f"expansion {expansion}": opener(expansion) for expansion in EXPANSIONS}
    yield Built(f"{CONNECTIVITY}, {EXPANSION_ADD}", seconds, bytes_an_item, searches)
