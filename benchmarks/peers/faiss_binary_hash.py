"""faiss IndexBinaryHash: buckets by the first bits of a code within a Hamming ball, ranked by the whole code.

The nearest relative of ours among the indexes in process. Its codes are random hyperplanes, as IndexLSH makes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import faiss
import numpy as np

from benchmarks.peers.peer import Built, Search
from benchmarks.peers.task import Task, best

DISTRIBUTIONS = ("faiss-cpu",)
NOTE = (
    "In process, one thread; buckets of 12 bits, the best 500 by a code of 256 ranked exactly from the vectors in "
    "memory. Bytes: its serialised index."
)
CODE_BITS, BUCKET_BITS, RANKED = 256, 12, 500
FLIPS = (1, 2, 3, 4, 5, 6, 7)


def builds(task: Task, url: str) -> Iterator[Built]:  # noqa: ARG001  # needs no server
    """One, over the radius of its ball."""
    faiss.omp_set_num_threads(1)
    start = time.perf_counter()
    coder = faiss.IndexLSH(task.items.shape[1], CODE_BITS)
    index = faiss.IndexBinaryHash(CODE_BITS, BUCKET_BITS)
    index.add(coder.sa_encode(task.items))
    seconds = time.perf_counter() - start
    size = len(faiss.serialize_index_binary(index)) / len(task.items)
    searches = {f"nflip {flips}": _opener(task, coder, index, flips) for flips in FLIPS}
    yield Built(f"{BUCKET_BITS} of {CODE_BITS} bits", seconds, size, searches)


def _opener(task: Task, coder: faiss.IndexLSH, index: faiss.IndexBinaryHash, flips: int) -> Callable[[], Search]:
    wanted = min(RANKED, len(task.items))

    def search(query: np.ndarray) -> list[int]:
        rows = index.search(coder.sa_encode(query[None, :]), wanted)[1][0]
        return best(task.items, query, rows[rows >= 0])  # -1 where the ball held fewer

    def opened() -> Search:
        index.nflip = flips
        return search

    return opened
