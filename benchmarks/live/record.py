"""The producer's own record of what it sent, in files that the other processes read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import Dataset
from benchmarks.live.plan import LABELLED_SHARE
from benchmarks.writers import item_ids


class Record:
    """vectors : (n, dimension) float32, the last that was sent of each item. alive : (n,) bool. labels : (n,) int64,
    the classes. labelled : (n,) bool, whose class is sent along. queries, query_labels : held out.
    """

    def __init__(self, folder: Path, *, writable: bool = False) -> None:
        def opened(name: str, mode: Any = "r") -> NDArray[Any]:
            return np.load(folder / f"{name}.npy", mmap_mode=mode)

        mode = "r+" if writable else "r"
        self.vectors, self.alive = opened("vectors", mode), opened("alive", mode)
        self.labels, self.labelled = opened("labels"), opened("labelled")
        self.queries, self.query_labels = opened("queries"), opened("query_labels")
        self.ids = item_ids(len(self.vectors))


def new_record(folder: Path, data: Dataset, rng: np.random.Generator) -> None:
    """The record of a run in which nothing was sent yet."""
    arrays = {
        "vectors": data.items,
        "alive": np.zeros(len(data.items), dtype=np.bool_),
        "labels": data.labels,
        "labelled": rng.random(len(data.items)) < LABELLED_SHARE,
        "queries": data.queries,
        "query_labels": data.query_labels,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
