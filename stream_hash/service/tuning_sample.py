"""What tuning asks, and what the right answers are: items of the index itself, each left out of its own answers.

1. Queries are drawn from all items with equal chances; for a precision, from those that have a label.
2. Their neighbours are found by exact search, over all items or over a random sample of them. Of a share f of the items
   the nearest ⌊k·f + ½⌋ stand for the nearest k of all; so the sample must hold one in k at the least.
3. Items that are written or deleted meanwhile make answers look worse than they are: tune while little is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import StreamHashError, UsageError
from stream_hash.numerics.ranking import NearestK
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import Label, parse_label
from stream_hash.storage.codec import Values
from stream_hash.storage.reads import FETCH_VALUES

LOOK: Final = 20
"""How many items are looked at for each labelled query that is wanted."""

LEAST_QUERIES: Final = 10


@dataclass(frozen=True)
class Asked:
    """The queries. ids, labels : of the items they are. vectors : (n, dimension) float32."""

    ids: list[str]
    vectors: NDArray[np.float32]
    labels: list[Label | None]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Truth:
    """nearest : of each query, the ids of the items nearest to it, itself apart. k : how many these are.

    scanned : among how many items they were found. whole : whether these are all.
    """

    nearest: list[list[str]]
    k: int
    scanned: int
    whole: bool


def draw(handle: IndexHandle, count: int, rng: np.random.Generator, *, labelled: bool) -> Asked:
    """Up to `count` items to ask for; with `labelled` only such as have a label. Raises StreamHashError for too few."""
    ids: list[str] = []
    vectors = [np.empty((0, handle.settings.dimension), dtype=np.float32)]
    labels: list[Label | None] = []
    given = sum(numbers for _, numbers in handle.reader.sizes())
    drawn = rng.choice(given, size=min(given, LOOK * count), replace=False) if given else np.empty(0, dtype=np.int64)
    for start in range(0, len(drawn), count):
        if len(ids) >= count:
            break
        for values in _values(handle, np.sort(drawn[start : start + count])):
            records = handle.reader.records(values.ids)
            kept = [row for row, record in enumerate(records) if record and (record.label or not labelled)]
            ids += [values.ids[row] for row in kept]
            vectors.append(values.vectors[kept])
            labels += [parse_label(record.label) for row in kept if (record := records[row])]
    if len(ids) < LEAST_QUERIES:
        kind = "labelled items" if labelled else "items"
        raise StreamHashError(
            f"index {handle.name!r} has too few {kind} to tune on",
            why=f"{len(ids)} were found among {len(drawn)}, and {LEAST_QUERIES} are needed",
            remedy="label some: stream-hash label, or tune for --target-recall" if labelled else "ingest more",
        )
    chosen = np.sort(rng.choice(len(ids), size=min(count, len(ids)), replace=False))
    rows = chosen.tolist()
    return Asked([ids[row] for row in rows], np.concatenate(vectors)[chosen], [labels[row] for row in rows])


def truth_of(
    handle: IndexHandle, asked: Asked, k: int, sample: int | None, rng: np.random.Generator, show: Callable[[str], None]
) -> Truth:
    """The nearest items to each query. sample : among so many items drawn at random; None for all of them.

    Raises UsageError for a sample below one item in k.
    """
    given = sum(numbers for _, numbers in handle.reader.sizes())
    whole = sample is None or sample >= given
    if not whole and k * (sample or 0) < given:
        raise UsageError(
            f"the sample is {sample} of {given} items",
            why=f"then less than one of the {k} nearest is in it",
            remedy=f"take {-(-given // k)} or more, or all",
        )
    share = 1.0 if whole else (sample or 0) / given
    nearest_k = max(1, int(k * share + 0.5))
    drawn = None if whole else np.sort(rng.choice(given, size=sample, replace=False))
    found = [NearestK(query, nearest_k + 1, handle.settings.metric) for query in asked.vectors]
    scanned = 0
    for values in _all(handle) if drawn is None else _values(handle, drawn):
        scanned += len(values.ids)
        show(f"exact search: {scanned} items for {len(asked)} queries")
        for one in found:
            one.offer(values.ids, values.vectors)
    ranked = [[item_id for item_id, _ in one.ranked()] for one in found]
    nearest = [without(own, ids)[:nearest_k] for own, ids in zip(asked.ids, ranked, strict=True)]
    return Truth(nearest, nearest_k, scanned, whole)


def without(item_id: str, ids: list[str]) -> list[str]:
    """The others, in their order."""
    return [other for other in ids if other != item_id]


def _all(handle: IndexHandle) -> Iterator[Values]:
    for partition in range(handle.settings.partitions):
        yield from handle.reader.scan_values(partition)


def _values(handle: IndexHandle, drawn: NDArray[np.int64]) -> Iterator[Values]:
    """The items at positions among all item numbers, one partition after the other. drawn : ascending."""
    ends = np.cumsum([numbers for _, numbers in handle.reader.sizes()])
    for partition, end in enumerate(ends.tolist()):
        first = ends[partition - 1] if partition else 0
        numbers = drawn[(drawn >= first) & (drawn < end)] - first
        for start in range(0, len(numbers), FETCH_VALUES):
            yield handle.reader.values([(partition, numbers[start : start + FETCH_VALUES])])[0]
