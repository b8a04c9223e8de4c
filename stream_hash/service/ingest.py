"""Applying a batch: validate each item, hash all at once, write each partition, finish.

All of it may happen twice, or stop anywhere and begin again: writes are ordered by their sequence numbers
and the ledger finishes a batch once. Items that can never be stored become dead letters, each with its
reason; the others live.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import GenerationGoneError, IntegrityError, InvalidItemError, PartitionFullError
from stream_hash.numerics.validation import vector_faults
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import (
    MAX_LABEL_BYTES,
    MAX_METADATA_BYTES,
    IndexSettings,
    check_id,
    label_text,
    metadata_text,
    parse_label,
    parse_metadata,
)
from stream_hash.storage.codec import Batch, Operation, decode_batch, encode_batch, encode_values
from stream_hash.storage.keys import partition_of
from stream_hash.storage.ledger import DeadLetter, Delivery
from stream_hash.storage.places import encode_places
from stream_hash.storage.server_clock import server_milliseconds
from stream_hash.storage.store import IGNORED, WRITE_ITEMS, Identity, Stale, State
from stream_hash.storage.tallies import BurialKind

if TYPE_CHECKING:  # it needs what is here
    from stream_hash.service.scoring import Scorer

LEASE_MILLISECONDS: Final = 30_000
"""How long a worker has a batch to itself: many times what the largest batch takes."""

MAX_DELIVERIES: Final = 3
"""After so many attempts, none of them the server's fault, a batch becomes a dead letter."""

WRITE_BYTES: Final = 1 << 20
"""Bytes of values in a call of the write script; with WRITE_ITEMS and WRITE_PLACES it bounds the call's server time."""

WRITE_PLACES: Final = 400
"""Buckets that the items of a call are put into: an item moved to another costs the server 9 µs for each."""

MEAN_SAMPLE: Final = 100
"""Vectors a first batch must hold for its mean to be worth freezing in generation 1."""


_WRITTEN_NAME: Final[dict[Operation, str]] = {"upsert": "upserted", "delete": "deleted", "label": "labelled"}


@dataclass(frozen=True)
class Applied:
    """outcomes : of each item that was written, by position in the batch. rejected : reason by position."""

    outcomes: dict[int, int]
    rejected: dict[int, str]


def apply_batch(handle: IndexHandle, batch_id: str, *, scorer: Scorer | None = None) -> Applied | None:
    """Apply a pending batch and finish it; None when somebody else has finished it.

    scorer : told of the batch before anything of it is written.
    """
    lease_until = server_milliseconds(handle.client, handle.name) + LEASE_MILLISECONDS
    delivery = handle.ledger.begin(batch_id, lease_until=lease_until)
    if delivery is None:
        return None
    if Identity.of(delivery.settings) != handle.identity:
        handle.reopen()
    if delivery.attempts > MAX_DELIVERIES:
        why = delivery.failure or "the worker died each time"
        return _bury(handle, delivery, f"delivered {MAX_DELIVERIES} times without success; {why}", "exhausted")
    try:
        batch = decode_batch(delivery.payload)
        if len(batch) != delivery.items:
            raise IntegrityError(f"the payload holds {len(batch)} items, not {delivery.items}")
    except IntegrityError as error:
        return _bury(handle, delivery, f"{error}: {error.why}" if error.why else str(error), "damaged")
    if scorer is not None:
        scorer.score(handle, delivery, batch)
    application = _Application(handle, batch, delivery.first)
    applied = application.run()
    letters = [
        DeadLetter(delivery.first + position, 1, batch_id, reason, encode_batch(batch.select([position])))
        for position, reason in sorted(applied.rejected.items())
    ]
    handle.ledger.finish(batch_id, letters, tallies=application.tallies())
    return applied


def _bury(handle: IndexHandle, delivery: Delivery, reason: str, kind: BurialKind) -> Applied:
    letter = DeadLetter(delivery.first, delivery.items, delivery.batch, reason, delivery.payload)
    handle.ledger.finish(delivery.batch, [letter], tallies={f"buried:{kind}": delivery.items})
    return Applied({}, dict.fromkeys(range(delivery.items), reason))


class _Application:
    """One batch being written."""

    def __init__(self, handle: IndexHandle, batch: Batch, first: int) -> None:
        self._handle = handle
        self._first = first
        self._applied = Applied({}, {})
        self._full = 0
        self._places: dict[int, NDArray[np.uint8]] = {}
        self._batch = batch
        if batch.vectors is not None and handle.settings.dtype == "float16":
            # what is hashed and ranked is what is stored
            with np.errstate(over="ignore"):
                rounded = batch.vectors.astype(np.float16).astype(np.float32)
            self._batch = Batch(batch.operation, batch.ids, rounded, batch.labels, batch.metadata)

    def run(self) -> Applied:
        self._applied.rejected.update(item_faults(self._batch, self._handle.settings))
        by_partition: dict[int, list[int]] = {}
        for position, item_id in enumerate(self._batch.ids):
            if position not in self._applied.rejected:
                partition = partition_of(item_id, self._handle.settings.partitions)
                by_partition.setdefault(partition, []).append(position)
        for partition, positions in by_partition.items():
            step = self._items_a_call(partition)
            for start in range(0, len(positions), step):
                self._write(partition, positions[start : start + step])
        return self._applied

    def tallies(self) -> dict[str, int]:
        """What was done, once it is: counts by name (storage/tallies.py)."""
        written = sum(outcome != IGNORED for outcome in self._applied.outcomes.values())
        counts = {
            _WRITTEN_NAME[self._batch.operation]: written,
            "ignored": len(self._applied.outcomes) - written,
            "buried:full": self._full,
            "buried:invalid": len(self._applied.rejected) - self._full,
        }
        return {name: count for name, count in counts.items() if count}

    def _items_a_call(self, partition: int) -> int:
        settings = self._handle.settings
        generations = max(1, len(self._handle.states[partition].writable))
        most = min(WRITE_ITEMS, WRITE_PLACES // (settings.tables * generations))
        if self._batch.vectors is not None:
            most = min(most, WRITE_BYTES // (4 * settings.dimension))
        return max(1, most)

    def _write(self, partition: int, positions: list[int]) -> None:
        """Write items of one partition, reloading what is live until the partition agrees."""
        call = self._call(positions)
        while True:
            state = self._handle.states[partition]
            if self._batch.operation == "upsert" and not state.live:
                self._handle.begin_first_generation(self._mean_sample())
                continue
            try:
                outcome = call(partition, state)
            except GenerationGoneError:
                continue  # the states were read anew
            except PartitionFullError as error:
                if len(positions) == 1:
                    self._applied.rejected[positions[0]] = f"{error}: {error.why}"
                    self._full += 1
                else:  # updates of items that are there still have a place
                    for position in positions:
                        self._write(partition, [position])
                return
            if isinstance(outcome, Stale):
                self._handle.states[partition] = outcome.state
                continue
            self._applied.outcomes.update(zip(positions, outcome, strict=True))
            return

    def _call(self, positions: list[int]) -> Callable[[int, State], list[int] | Stale]:
        """The write of the items at `positions`, still to be told the partition and its generations."""
        batch, store = self._batch, self._handle.store
        ids = [batch.ids[p] for p in positions]
        sequences = [self._first + p for p in positions]
        labels = [batch.labels[p] for p in positions] if batch.labels else [""] * len(ids)
        if batch.operation == "delete":
            return lambda partition, state: store.delete(partition, state, ids, sequences)
        if batch.operation == "label":
            return lambda partition, state: store.label(partition, state, ids, sequences, labels)
        assert batch.vectors is not None  # noqa: S101 - decode_batch gives every upsert its vectors
        metadata = [batch.metadata[p] for p in positions] if batch.metadata else [""] * len(ids)
        values = encode_values(
            np.array(sequences, dtype=np.int64), batch.vectors[positions], ids, self._handle.settings.dtype
        )

        def upsert(partition: int, state: State) -> list[int] | Stale:
            places = [self._hash(generation)[positions] for generation in state.writable]
            return store.upsert(partition, state, ids, sequences, values, labels, metadata, places)

        return upsert

    def _hash(self, generation: int) -> NDArray[np.uint8]:
        """The places under a generation's model; the whole batch is hashed the first time they are asked for."""
        if generation not in self._places:
            encoded = self._handle.model(generation).encode(self._valid_vectors(fill=1.0))
            places = encode_places(encoded.codes, encoded.signatures, self._handle.settings)
            self._places[generation] = places
        return self._places[generation]

    def _valid_vectors(self, fill: float) -> NDArray[np.float32]:
        """The batch's vectors with rejected rows overwritten, so that positions stay what they are."""
        assert self._batch.vectors is not None  # noqa: S101 - only upserts come here
        if not self._applied.rejected:
            return self._batch.vectors
        vectors = self._batch.vectors.copy()
        vectors[list(self._applied.rejected)] = fill
        return vectors

    def _mean_sample(self) -> NDArray[np.float32]:
        """What generation 1 takes its mean from: the valid vectors of this batch, if they are enough."""
        assert self._batch.vectors is not None  # noqa: S101 - only upserts come here
        valid = np.delete(self._batch.vectors, list(self._applied.rejected), axis=0)
        return valid if len(valid) >= MEAN_SAMPLE else valid[:0]


def item_faults(batch: Batch, settings: IndexSettings) -> dict[int, str]:
    """What is wrong with which items of a batch: a sentence by position. Empty when all can be stored."""
    if batch.vectors is not None and batch.vectors.shape[1] != settings.dimension:
        reason = f"the vector has {batch.vectors.shape[1]} coordinates; the index has {settings.dimension}"
        return dict.fromkeys(range(len(batch)), reason)
    faults = {} if batch.vectors is None else vector_faults(batch.vectors, settings.metric)
    for position, item_id in enumerate(batch.ids):
        try:
            check_id(item_id)
            if batch.labels and batch.labels[position]:
                _check_text(batch.labels[position], "label", MAX_LABEL_BYTES)
                _check_label(batch.labels[position])
            if batch.metadata and batch.metadata[position]:
                _check_text(batch.metadata[position], "metadata", MAX_METADATA_BYTES)
                metadata_text(parse_metadata(batch.metadata[position]))
        except InvalidItemError as error:
            faults[position] = f"{error}; {error.why}"
        except (ValueError, RecursionError) as error:
            faults[position] = f"its label or metadata is not JSON: {error}"
    return faults


@lru_cache(maxsize=1_024)
def _check_label(text: str) -> None:
    """Refuse a text that is no label. Remembered, since many items share a label."""
    if not label_text(parse_label(text)):
        raise InvalidItemError("a label is null", why="an item without a label has none")


def _check_text(text: str, what: str, limit_bytes: int) -> None:
    """Refuse a text too long before it is parsed."""
    length = len(text.encode(errors="replace"))
    if length > limit_bytes:
        raise InvalidItemError(f"an item's {what} is {length} bytes of JSON", why=f"the limit is {limit_bytes}")
