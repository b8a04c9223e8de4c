"""Chunks from rows that come one at a time, from text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_hash.errors import FormatError
from stream_hash.formats.records import MAX_CHUNK_BYTES, Chunk, Rejected
from stream_hash.formats.seen import SeenIds
from stream_hash.formats.values import to_float32
from stream_hash.settings import MAX_DIMENSION, Label


@dataclass(frozen=True)
class Row:
    """One item as a line states it. vector: (D,) float64, not checked yet."""

    where: str
    id: str
    vector: npt.NDArray[np.float64]
    label: Label | None = None
    metadata: dict[str, Any] | None = None


def gather(
    rows: Iterable[Row | Rejected], name: str, *, chunk_items: int, dimension: int | None = None
) -> Iterator[Chunk | Rejected]:
    """Chunks of the good rows, and those refused as soon as they are met.

    dimension : of every vector; by default the first good row fixes it. Raises FormatError when there is no row at all.
    """
    filling = _Filling()
    seen = SeenIds()
    wanted = "" if dimension is None else f"{dimension:,} are wanted"
    empty = True
    for row in rows:
        empty = False
        if isinstance(row, Rejected):
            yield row
            continue
        vector, reason = _checked(row, dimension, wanted)
        reason = reason or seen.repeated(row.id, row.where)
        if reason:
            yield Rejected(row.where, reason)
            continue
        dimension = vector.size
        filling.add(row, vector)
        if len(filling.ids) == min(chunk_items, max(1, MAX_CHUNK_BYTES // (4 * dimension))):
            yield filling.chunk()
            filling = _Filling()
    if filling.ids:
        yield filling.chunk()
    if empty:
        raise FormatError(f"{name} holds no vectors", why="no line has one", remedy="check what writes it")


def _checked(row: Row, dimension: int | None, wanted: str) -> tuple[npt.NDArray[np.float32], str]:
    """The vector in float32, and why it cannot be used; empty when it can."""
    single, reasons = to_float32(row.vector[np.newaxis])
    size = row.vector.size
    if not 1 <= size <= MAX_DIMENSION:
        return single[0], f"its vector has {size:,} coordinates: there must be 1 to {MAX_DIMENSION:,}"
    if dimension is not None and size != dimension:
        wanted = wanted or f"the first good one has {dimension:,}"
        return single[0], f"its vector has {size:,} coordinates and {wanted}"
    return single[0], reasons.get(0, "")


@dataclass
class _Filling:
    """A chunk in the making."""

    ids: list[str] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    labels: list[Label | None] = field(default_factory=list)
    metadata: list[dict[str, Any] | None] = field(default_factory=list)

    def add(self, row: Row, vector: npt.NDArray[np.float32]) -> None:
        self.ids.append(row.id)
        self.vectors.append(vector)
        self.labels.append(row.label)
        self.metadata.append(row.metadata)

    def chunk(self) -> Chunk:
        return Chunk(self.ids, np.stack(self.vectors), self.labels, self.metadata)
