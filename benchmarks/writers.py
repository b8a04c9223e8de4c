"""The two clients of `ingest`, each timed in a process of its own: the producer, and the raw pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import redis
from numpy.typing import NDArray

from stream_hash.producer import Producer

CALL_ITEMS = 1_000
"""Items the producer is given at a time, as a reader of files gives them."""

PIPELINE_ITEMS = 256


def save_items(
    folder: Path, vectors: NDArray[np.float32], codes: NDArray[np.uint64], labels: NDArray[np.int64]
) -> None:
    """Leave the items where the timed processes read them."""
    np.savez(folder / "items.npz", vectors=vectors, codes=codes, labels=labels)


def _load_items(folder: Path) -> tuple[NDArray[np.float32], list[int], list[int]]:
    with np.load(folder / "items.npz") as archive:
        return archive["vectors"], archive["codes"].tolist(), archive["labels"].tolist()


def item_ids(count: int) -> list[str]:
    """Ids of 16 characters."""
    return [f"item-{number:011d}" for number in range(count)]


def stream_through_queue(url: str, index: str, folder: Path, labelled: bool) -> float:
    """Seconds from the first upsert until every item is searchable."""
    vectors, _, classes = _load_items(folder)
    labels: Sequence[int] | None = classes if labelled else None
    ids = item_ids(len(vectors))
    producer = Producer(index, url)
    start = time.perf_counter()
    for first in range(0, len(ids), CALL_ITEMS):
        piece = slice(first, first + CALL_ITEMS)
        producer.upsert_many(ids[piece], vectors[piece], labels=labels[piece] if labels else None)
    producer.wait()
    return time.perf_counter() - start


def write_raw(url: str, folder: Path) -> float:
    """Seconds for a SET of each vector's bytes and a SADD of 8 bytes to its bucket, pipelined."""
    vectors, codes, _ = _load_items(folder)
    client = redis.Redis.from_url(url)
    client.ping()
    start = time.perf_counter()
    for first in range(0, len(codes), PIPELINE_ITEMS):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, min(first + PIPELINE_ITEMS, len(codes))):
            pipeline.set(f"value:{number}", vectors[number].tobytes())
            pipeline.sadd(f"bucket:{codes[number]}", number.to_bytes(8, "little"))
        pipeline.execute()
    return time.perf_counter() - start
