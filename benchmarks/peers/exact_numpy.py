"""Exact search: one product of all vectors with the query."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.peers.peer import Built
from benchmarks.peers.task import K, Task

DISTRIBUTIONS = ("numpy",)
NOTE = "In process. Has no index: nothing to build, nothing beside the vectors."


def builds(task: Task, url: str) -> Iterator[Built]:  # noqa: ARG001  # needs no server
    """The one there is."""
    items = task.items

    def search(query: np.ndarray) -> list[int]:
        scores = items @ query
        few = np.argpartition(-scores, K)[:K] if len(scores) > K else np.arange(len(scores))
        return few[np.argsort(-scores[few])].tolist()

    yield Built("all items", 0.0, 0.0, {"": lambda: search})
