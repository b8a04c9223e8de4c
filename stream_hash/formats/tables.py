"""Chunks from arrays side by side: vectors, and perhaps ids and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from stream_hash.errors import FormatError, InvalidItemError
from stream_hash.formats.columns import Column
from stream_hash.formats.records import MAX_CHUNK_BYTES, Chunk, Rejected, reason_of
from stream_hash.formats.seen import SeenIds
from stream_hash.formats.values import check_vectors, dtype_name, id_of, label_of, scalars, to_float32
from stream_hash.settings import Label

MAX_TEXT_BYTES: Final = 65_536
"""One text of a fixed-width text array, as stored."""


@dataclass(frozen=True)
class Table:
    """vectors: (n, D) float or integer. ids, labels: (n,), or None where the file has none."""

    name: str
    vectors: Column
    ids: Column | None = None
    labels: Column | None = None

    def __post_init__(self) -> None:
        check_vectors(self.vectors.shape, self.vectors.dtype, self.name)
        for what, column in (("ids", self.ids), ("labels", self.labels)):
            if column is not None:
                _check_beside(self.vectors, column, what, self.name)

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory while it is read: its float32 vector, its id and its label."""
        beside = [column.dtype.itemsize for column in (self.ids, self.labels) if column is not None]
        return self.vectors.shape[1] * 4 + sum(beside)


def chunks(table: Table, *, chunk_items: int, limit: int | None, dimension: int | None) -> Iterator[Chunk | Rejected]:
    """The rows of `table` in order, those refused just before the chunk that they would be in.

    Raises FormatError when the vectors have not `dimension` coordinates, or the file ends before its arrays do.
    """
    width = table.vectors.shape[1]
    if dimension is not None and width != dimension:
        raise FormatError(
            f"the vectors in {table.name} have {width:,} coordinates",
            why=f"{dimension:,} are wanted",
            remedy="choose the file, or the index, that fits the other",
        )
    total = min(table.vectors.shape[0], limit or table.vectors.shape[0])
    rows = max(1, min(chunk_items, MAX_CHUNK_BYTES // table.row_bytes))
    seen = SeenIds()
    for start in range(0, total, rows):
        yield from _block(table, start, min(rows, total - start), seen)


def _block(table: Table, start: int, count: int, seen: SeenIds) -> Iterator[Chunk | Rejected]:
    vectors, reasons = to_float32(table.vectors.take(count))
    stored_ids = scalars(table.ids.take(count), table.name) if table.ids else None
    stored_labels = scalars(table.labels.take(count), table.name) if table.labels else [None] * count
    good: list[int] = []
    ids: list[str] = []
    labels: list[Label | None] = []
    for row in range(count):
        where = f"row {start + row}"
        try:
            item_id = str(start + row) if stored_ids is None else id_of(stored_ids[row])
            label = label_of(stored_labels[row])
        except InvalidItemError as error:
            yield Rejected(where, reason_of(error))
            continue
        reason = reasons.get(row, "")
        if not reason and stored_ids is not None:  # row numbers cannot repeat
            reason = seen.repeated(item_id, where)
        if reason:
            yield Rejected(where, reason)
            continue
        good.append(row)
        ids.append(item_id)
        labels.append(label)
    if good:
        yield Chunk(ids, vectors if len(good) == count else vectors[good], labels, [None] * len(good))


def _check_beside(vectors: Column, column: Column, what: str, name: str) -> None:
    if column.dtype.kind not in "iufUS":
        raise FormatError(
            f"the {what} in {name} are {dtype_name(column.dtype)}",
            why=f"{what} are whole numbers or text",
            remedy=f"save the {what} as an array of integers or of text",
        )
    if not 1 <= column.dtype.itemsize <= MAX_TEXT_BYTES:
        raise FormatError(
            f"the {what} in {name} are {column.dtype.itemsize:,} bytes wide",
            why=f"a text array has 1 to {MAX_TEXT_BYTES:,} bytes an entry",
            remedy=f"shorten the longest of the {what}",
        )
    if column.shape[0] != vectors.shape[0]:
        raise FormatError(
            f"{name} has {column.shape[0]:,} {what} and {vectors.shape[0]:,} vectors",
            why=f"there is one of the {what} for each row of an array of shape {vectors.shape}",
            remedy="transpose the vectors if they are its columns, else save as many of each",
        )
