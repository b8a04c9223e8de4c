"""What a trainer looks at: recent labelled items, those of them that are held out, and a sample of all items.

1. Only labels below the ledger's horizon are read: whatever has a lower sequence number has been applied, in every
   partition. One number is therefore a cursor: above it is what came since, and nothing below it comes late. (But for a
   label that overtook the first write of its item: it appears under its own, earlier number. It is in the window, and
   is passed over by who learns only what came since.) A label that changes gets a new number, and appears again.
2. Which side of the split an item is on follows from its id, so that it is on the same side for ever.
3. Ids and labels are read of LOOK times as many items as are wanted, their vectors only of those that are chosen.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.service.handle import IndexHandle
from stream_hash.settings import parse_label
from stream_hash.storage.reads import FETCH_VALUES

HELD_OUT_SHARE: Final = 0.2
"""Of all ids. A fifth: of the first hundred labels of a new class, twenty can be asked about alone (gate.py). Set by
that reasoning; no other share was measured."""

LOOK: Final = 4
"""How far beyond the window a rare class is looked for."""

SAMPLE: Final = 5_000


@dataclass(frozen=True)
class Labelled:
    """Labelled items, the newest label first, without their vectors.

    partitions, numbers, sequences : (n,) int64, where an item is and the sequence number of its label. labels : of
    each, the classes as JSON texts: `3` and `"3"` are two. held_out : (n,) bool, who must not be learned from.
    """

    partitions: NDArray[np.int64]
    numbers: NDArray[np.int64]
    sequences: NDArray[np.int64]
    ids: list[str]
    labels: list[list[str]]
    held_out: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Examples:
    """Items to learn from or to judge by. vectors : (n, dimension) float32. labels, sequences : as in `Labelled`."""

    vectors: NDArray[np.float32]
    labels: list[list[str]]
    sequences: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def is_held_out(item_id: str) -> bool:
    """Whether an item is never learned from; independent of the partition it is in."""
    digest = hashlib.blake2b(item_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2**64


def recent(handle: IndexHandle, count: int, below: int) -> Labelled:
    """The `count` newest labelled items of the whole index, or all if there are fewer.

    below : the ledger's horizon, read before this. About 0.15 kB of traffic an item. An item that is written
    while this reads is left out, unless its label stays the same.
    """
    found = [handle.reader.labelled(p, below=below, count=count) for p in range(handle.settings.partitions)]
    partitions = np.repeat(np.arange(len(found)), [len(numbers) for numbers, _ in found])
    numbers = np.concatenate([numbers for numbers, _ in found])
    sequences = np.concatenate([sequences for _, sequences in found])
    newest = np.argsort(-sequences, kind="stable")[:count]
    partitions, numbers, sequences = partitions[newest], numbers[newest], sequences[newest]
    ids: list[str | None] = [None] * len(newest)
    for partition in range(handle.settings.partitions):
        here = np.flatnonzero(partitions == partition)
        for position, item_id in zip(here.tolist(), handle.reader.ids(partition, numbers[here]), strict=True):
            ids[position] = item_id
    there = [position for position, item_id in enumerate(ids) if item_id is not None]
    records = handle.reader.records([ids[position] or "" for position in there])
    kept, labels = [], []
    for position, record in zip(there, records, strict=True):
        if record and (record.number, record.label_sequence) == (numbers[position], sequences[position]):
            kept.append(position)
            labels.append(classes_of(record.label))
    names = [ids[position] or "" for position in kept]
    held_out = np.array([is_held_out(name) for name in names], dtype=np.bool_)
    return Labelled(partitions[kept], numbers[kept], sequences[kept], names, labels, held_out)


def stratified(labels: Sequence[Sequence[str]], count: int) -> NDArray[np.intp]:
    """Positions of at most `count` items, ascending. labels : of each item, the newest first; its first one counts.

    Each of m classes keeps its newest ⌊count/m⌋ items, or all if it has fewer; what room is left goes to the newest of
    the others.
    """
    if len(labels) <= count:
        return np.arange(len(labels))
    _, classes = np.unique(np.array([several[0] for several in labels]), return_inverse=True)
    by_class = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[by_class], np.arange(classes.max() + 1))
    rank = np.empty(len(labels), dtype=np.intp)
    rank[by_class] = np.arange(len(labels)) - starts[classes[by_class]]
    first = rank < count // (classes.max() + 1)
    others = np.flatnonzero(~first)[: count - int(first.sum())]
    return np.sort(np.concatenate([np.flatnonzero(first), others]))


def load(handle: IndexHandle, labelled: Labelled, positions: NDArray[np.intp]) -> Examples:
    """The items at these positions with their vectors; without those that were deleted meanwhile."""
    kept: list[NDArray[np.intp]] = []
    vectors = [np.empty((0, handle.settings.dimension), dtype=np.float32)]
    for partition in range(handle.settings.partitions):
        here = positions[labelled.partitions[positions] == partition]
        for start in range(0, len(here), FETCH_VALUES):
            piece = here[start : start + FETCH_VALUES]
            values = handle.reader.values([(partition, labelled.numbers[piece])])[0]
            at = dict(zip(labelled.numbers[piece].tolist(), piece.tolist(), strict=True))
            found = [at[number] for number in values.numbers.tolist()]
            same = [row for row, position in enumerate(found) if values.ids[row] == labelled.ids[position]]
            vectors.append(values.vectors[same])
            kept.append(np.array([found[row] for row in same], dtype=np.intp))
    order = np.concatenate(kept) if kept else np.empty(0, dtype=np.intp)
    newest = np.argsort(order)
    found_at = order[newest]
    labels = [labelled.labels[position] for position in found_at.tolist()]
    return Examples(np.concatenate(vectors)[newest], labels, labelled.sequences[found_at])


def sample(handle: IndexHandle, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Vectors of about `count` items drawn from the whole index, none of them held out. (n, dimension) float32."""
    vectors = [np.empty((0, handle.settings.dimension), dtype=np.float32)]
    for partition, numbers in _drawn(handle, count, rng):
        for start in range(0, len(numbers), FETCH_VALUES):
            values = handle.reader.values([(partition, numbers[start : start + FETCH_VALUES])])[0]
            vectors.append(values.vectors[[not is_held_out(item_id) for item_id in values.ids]])
    return np.concatenate(vectors)


def held_out_sample(handle: IndexHandle, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Vectors of at most `count` held-out items drawn from the whole index; some fewer where items were deleted.

    Returns (n, dimension) float32, in an order that says nothing.
    """
    vectors = [np.empty((0, handle.settings.dimension), dtype=np.float32)]
    # ids are read of more items, since a share of them is held out; vectors only of those that are
    for partition, numbers in _drawn(handle, math.ceil(1.1 * count / HELD_OUT_SHARE), rng):
        ids = handle.reader.ids(partition, numbers)
        wanted = numbers[[item_id is not None and is_held_out(item_id) for item_id in ids]]
        for start in range(0, len(wanted), FETCH_VALUES):
            vectors.append(handle.reader.values([(partition, wanted[start : start + FETCH_VALUES])])[0].vectors)
    found = np.concatenate(vectors)
    return found[rng.permutation(len(found))[:count]]


def _drawn(handle: IndexHandle, count: int, rng: np.random.Generator) -> list[tuple[int, NDArray[np.int64]]]:
    """At most `count` item numbers drawn from all that were ever given out, ascending, by partition."""
    given = [numbers for _, numbers in handle.reader.sizes()]
    ends = np.cumsum(given)
    drawn = np.sort(rng.choice(int(ends[-1]), size=min(count, int(ends[-1])), replace=False))
    firsts = ends - given
    return [
        (partition, drawn[(drawn >= first) & (drawn < end)] - first)
        for partition, (first, end) in enumerate(zip(firsts.tolist(), ends.tolist(), strict=True))
    ]


def classes_of(text: str) -> list[str]:
    """A label's classes, each as the JSON text it has alone."""
    label = parse_label(text)
    several = label if isinstance(label, list) else [label]
    return [json.dumps(one, ensure_ascii=False) for one in dict.fromkeys(several)]
