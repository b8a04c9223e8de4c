"""Single items: read them, delete them, label them.

Deletes and labels go through the ledger like any batch, so that they are ordered with the upserts still on
their way, but are applied here and now instead of waiting for a worker. Should this process die between
the two, the sweep applies them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError, InvalidItemError
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import LEASE_MILLISECONDS, Applied, apply_batch
from stream_hash.settings import (
    MAX_BATCH_ITEMS,
    Label,
    check_id,
    label_text,
    parse_label,
    parse_metadata,
)
from stream_hash.storage.codec import Batch, Record, Values
from stream_hash.storage.keys import partition_of
from stream_hash.storage.server_clock import server_milliseconds
from stream_hash.storage.store import HELD

READ_RETRIES = 16


@dataclass(frozen=True)
class Item:
    """A stored item. vector : (dimension,) float32. sequence : number of the write that stored it."""

    id: str
    vector: NDArray[np.float32]
    label: Label | None
    metadata: dict[str, Any] | None
    sequence: int


def get_items(handle: IndexHandle, ids: Sequence[str]) -> list[Item | None]:
    """The items with these ids, None for those that are not there. Two round trips.

    A record and a value are read one after the other; when their sequence numbers differ, the item was
    written in between and is read again. Raises InvalidItemError on an id that can be none.
    """
    for item_id in ids:
        check_id(item_id)
    found: list[Item | None] = [None] * len(ids)
    open_positions = list(range(len(ids)))
    for _ in range(READ_RETRIES):
        records = handle.reader.records([ids[p] for p in open_positions])
        live = [(p, r) for p, r in zip(open_positions, records, strict=True) if r and r.number is not None]
        open_positions = _read_values(handle, ids, live, found)
        if not open_positions:
            return found
    raise IntegrityError(
        f"item {ids[open_positions[0]]!r} of index {handle.name!r} cannot be read",
        why="its record and its value do not belong together",
        remedy=f"stream-hash verify {handle.name}",
    )


def _read_values(
    handle: IndexHandle, ids: Sequence[str], live: Sequence[tuple[int, Record]], found: list[Item | None]
) -> list[int]:
    """Fill in the items whose value matches their record; returns the positions to be read again."""
    by_partition: dict[int, list[tuple[int, Record]]] = {}
    for position, record in live:
        partition = partition_of(ids[position], handle.settings.partitions)
        by_partition.setdefault(partition, []).append((position, record))
    wanted = [
        (partition, np.array([record.number for _, record in members], dtype=np.int64))
        for partition, members in by_partition.items()
    ]
    changed = []
    for members, values in zip(by_partition.values(), handle.reader.values(wanted), strict=True):
        rows = {number: row for row, number in enumerate(values.numbers.tolist())}
        for position, record in members:
            row = rows.get(record.number)
            if row is None or (values.ids[row], values.sequences[row]) != (ids[position], record.sequence):
                changed.append(position)
            else:
                found[position] = _item(values, row, record)
    return changed


def _item(values: Values, row: int, record: Record) -> Item:
    label, metadata = parse_label(record.label), parse_metadata(record.metadata)
    vector = values.vectors[row].copy()  # not a view, which would keep the whole reply
    return Item(values.ids[row], vector, label, metadata, record.sequence)


def delete_items(handle: IndexHandle, ids: Sequence[str]) -> list[str]:
    """Delete items; returns the ids that had no item. Raises InvalidItemError on an id that can be none."""
    return _apply_now(handle, Batch("delete", [check_id(i) for i in ids]))


def label_items(handle: IndexHandle, ids: Sequence[str], labels: Sequence[Label | None]) -> list[str]:
    """Set labels (None takes one away); returns the ids that have no item yet: their label is held for
    writes of them that are still on their way. Raises InvalidItemError on what can be no id or no label.
    """
    texts = [label_text(label) for label in labels]
    return _apply_now(handle, Batch("label", [check_id(i) for i in ids], labels=texts))


def _apply_now(handle: IndexHandle, batch: Batch) -> list[str]:
    missing = []
    for start in range(0, len(batch), MAX_BATCH_ITEMS):
        part = batch.select(range(start, min(start + MAX_BATCH_ITEMS, len(batch))))
        batch_id = uuid.uuid4().hex
        lease_until = server_milliseconds(handle.client, handle.name) + LEASE_MILLISECONDS
        handle.ledger.accept(batch_id, part, lease_until=lease_until)
        applied = apply_batch(handle, batch_id) or Applied({}, {})
        for position, reason in applied.rejected.items():
            raise InvalidItemError(f"item {part.ids[position]!r} was refused", why=reason)
        missing += [part.ids[position] for position, outcome in applied.outcomes.items() if outcome == HELD]
    return missing
