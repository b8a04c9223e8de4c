"""What is asked of every peer: vectors, queries and the true nearest. Needs numpy only, as old as a peer wants it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

K = 10
BLOCK_QUERIES = 100


@dataclass(frozen=True)
class Limits:
    """How much a measurement may take.

    seconds : for one setting, whose queries are cut short when they take longer, though never below `least`.
    processes : clients that ask at once, and that feed a server at once.
    """

    seconds: float = 20.0
    least: int = 100
    processes: int = 2


@dataclass(frozen=True)
class Task:
    """items, training, queries : (n, dimension) float32 of unit length. truth : (n_queries, K) int64, rows of items."""

    items: NDArray[np.float32]
    training: NDArray[np.float32]
    queries: NDArray[np.float32]
    truth: NDArray[np.int64]
    limits: Limits

    def save(self, folder: Path) -> None:
        """Leave it where the processes of peers find it."""
        for name in ("items", "training", "queries", "truth"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        (folder / "limits.json").write_text(json.dumps(asdict(self.limits)), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Task:
        limits = Limits(**json.loads((folder / "limits.json").read_text(encoding="utf-8")))
        arrays = [np.load(folder / f"{name}.npy") for name in ("items", "training", "queries", "truth")]
        return cls(*arrays, limits)

    @property
    def vector_bytes(self) -> int:
        return int(self.items.itemsize * self.items.shape[1])


def prepared(
    items: NDArray[np.float32], training: NDArray[np.float32], queries: NDArray[np.float32], limits: Limits
) -> Task:
    """The task of some vectors of unit length: about the mean of the training items, as the tutorial does, and of unit
    length again.
    """
    mean = training.mean(axis=0)
    own = [_unit(vectors - mean) for vectors in (items, training, queries)]
    return Task(own[0], own[1], own[2], nearest(own[0], own[2]), limits)


def nearest(items: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """The K items of the greatest inner product with each query, in no order. Returns (n_queries, K)."""
    found = [np.empty((0, min(K, len(items))), dtype=np.int64)]
    for start in range(0, len(queries), BLOCK_QUERIES):
        scores = queries[start : start + BLOCK_QUERIES] @ items.T
        found.append(np.argpartition(-scores, min(K, len(items) - 1), axis=1)[:, :K])
    return np.concatenate(found)


def best(items: NDArray[np.float32], query: NDArray[np.float32], candidates: NDArray[np.int64]) -> list[int]:
    """The K best candidates by cosine, best first: how peers that only find candidates are ranked here.

    candidates : rows of items, each once.
    """
    scores = items[candidates] @ query
    if len(candidates) > K:
        few = np.argpartition(-scores, K)[:K]
        candidates, scores = candidates[few], scores[few]
    return [int(row) for row in candidates[np.argsort(-scores)]]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
