"""An index of handwritten digits, for tests of training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

import numpy as np
from sklearn.datasets import load_digits

from stream_hash.client import Index
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.reindex import reindex
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.trainer_state import Lead


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 vectors of 64 coordinates, and their classes, in an order that is not the file's."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(x))
    return x[order].astype(np.float32), y[order]


def opened(client: Client, **changes: object) -> IndexHandle:
    settings = IndexSettings(64, **{"bits": 8, **changes})  # type: ignore[arg-type]  # checked by it
    Index.create("x", settings, Connections(client, None))
    return IndexHandle(client, "x")


def lead(handle: IndexHandle, holder: str = "t") -> int:
    found = handle.trainer.lead(holder, now=0, until=0)
    assert isinstance(found, Lead)
    return found.token


def name(position: int) -> str:
    return f"i{position:05}"


def store(handle: IndexHandle, x: np.ndarray, y: Sequence[object] | np.ndarray, first: int = 0) -> None:
    """Items `first` and following, with their labels; None for none."""
    labels = ["" if label is None else json.dumps(label) for label in np.asarray(y, dtype=object).tolist()]
    for start in range(0, len(x), 500):
        part = slice(start, min(len(x), start + 500))
        names = [name(first + position) for position in range(part.start, part.stop)]
        batch = f"b{first + start}-{handle.ledger.last_sequence()}"
        handle.ledger.accept(batch, Batch("upsert", names, x[part], labels[part], None), lease_until=0)
        apply_batch(handle, batch)


def go_live(handle: IndexHandle, token: int, generation: int | None) -> None:
    assert generation is not None
    reindex(handle, token, generation)


def precision(client: Client, x: np.ndarray, y: np.ndarray, budget: int = 60) -> float:
    """Mean precision@10 of queries, each of them an item of the index that finds itself first."""
    index = Index("x", Connections(client, None))
    hits = []
    for answer, label in zip(index.query(x, k=11, budget=budget), y.tolist(), strict=True):
        others = [result for result in answer.results if result.score < 1 - 1e-6][:10]
        hits.append(np.mean([result.label == label for result in others]))
    return float(np.mean(hits))
