"""The way in: a producer puts items on the queue and is told yes only when they are safe.

Rules
1. A batch is accepted by the ledger first and only then put on the queue. Once `flush` returns, its items
   will become searchable even if the producer, the queue or any worker dies now.
2. A batch may be submitted again under the same id: after a lost reply, a crash, a retry of the caller's.
3. What stands in the buffer is sent when the batch is full, when `flush` is called, and, given `flush_seconds`, so long
   after its first item at the latest, by a thread. What that thread cannot send stays buffered; it tries again, and
   the next call of the owner's raises what went wrong.
4. Over its bound of pending batches, or when the server is out of memory, a producer blocks, raises or
   sheds, whichever it was told; what was shed is counted and was never accepted.
"""

from __future__ import annotations

import logging
import reprlib
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from redis import exceptions

from stream_hash.errors import (
    BackPressureError,
    InvalidItemError,
    OutOfMemoryError,
    StreamHashError,
    UsageError,
)
from stream_hash.queue import HASH_QUEUE, SafeQueue, enqueue_batch
from stream_hash.service.checking import checked_upsert, id_list, real_array, whole_number
from stream_hash.service.connections import Connections
from stream_hash.service.flush_timer import FlushTimer
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import item_faults
from stream_hash.settings import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ITEMS,
    Label,
    check_name,
)
from stream_hash.storage.codec import Batch, Operation
from stream_hash.storage.connection import redis_errors
from stream_hash.storage.ledger import Accepted, DeadLetter
from stream_hash.storage.server_clock import server_milliseconds

WhenFull: TypeAlias = Literal["block", "raise", "shed"]

GRACE_MILLISECONDS = 10_000
"""How long after accepting a batch its producer may take to enqueue the job before the sweep does."""

PRUNE_AT = 4_096
"""Batch ids a producer remembers before it asks which of them are finished."""

log = logging.getLogger("stream_hash.producer")


class Producer:
    """Streams items into one index.

    >>> with Producer("photos") as producer:                                   # doctest: +SKIP
    ...     producer.upsert("cat.jpg", vector, label="cat", metadata={"width": 640})

    A producer is for one thread; open one in each. Leaving the `with` block flushes what is buffered, unless
    it is left by an error.
    """

    def __init__(
        self,
        index: str,
        connections: Connections | str | None = None,
        *,
        batch_items: int = 256,
        max_pending: int = 1_000,
        when_full: WhenFull = "block",
        timeout_seconds: float = 60.0,
        flush_seconds: float | None = None,
    ) -> None:
        """connections : opened connections, a URL, or None for the server that the environment names.

        batch_items : items a batch. max_pending : pending batches of the index over which the producer holds
        back, 0 for no bound. timeout_seconds : how long to block before BackPressureError is raised. flush_seconds :
        how long an item may wait for its batch to be full; None: until somebody flushes.

        Raises IndexMissingError when there is no such index, ServerUnreachableError when no server answers.
        """
        if when_full not in ("block", "raise", "shed"):
            raise UsageError(f"when_full is {when_full!r}", why="it is block, raise or shed", remedy="choose one")
        self._connections = Connections.given(connections)
        with redis_errors():
            self._handle = IndexHandle(self._connections.client, index)
        self.settings = self._handle.settings
        room = MAX_BATCH_BYTES // (4 * self.settings.dimension)
        batch_items, max_pending = whole_number(batch_items, "batch_items"), whole_number(max_pending, "max_pending")
        if not 1 <= batch_items <= min(MAX_BATCH_ITEMS, room):
            raise UsageError(
                f"batch_items is {batch_items}",
                why=f"at {self.settings.dimension} coordinates it must be from 1 to {min(MAX_BATCH_ITEMS, room)}",
                remedy="choose another size",
            )
        self._queue = SafeQueue(HASH_QUEUE, connection=self._connections.broker)
        self._batch_items = batch_items
        self._max_pending = max_pending
        self._when_full = when_full
        self._timeout_seconds = timeout_seconds
        self._lock = threading.RLock()
        self._timer = None if flush_seconds is None else FlushTimer(_seconds(flush_seconds), self._flush_in_time)
        self._late: Exception | None = None
        self._buffer: list[Batch] = []
        self._buffered = 0
        self._buffer_id: str | None = None
        self._outstanding: list[str] = []
        self._prune_at = PRUNE_AT
        self._name = uuid.uuid4().hex
        self._sent = 0
        self._first: int | None = None
        self.accepted = 0
        self.shed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        elif self._timer is not None:
            self._timer.disarm()

    def upsert(
        self,
        item_id: str,
        vector: NDArray[np.floating[Any]] | Sequence[float],
        *,
        label: Label | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Store an item, replacing whatever stood under its id. Raises InvalidItemError."""
        row = real_array(vector, "the coordinates", error=InvalidItemError)
        self.upsert_many([item_id], row[None, ...], [label], [metadata])

    def upsert_many(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.floating[Any]],
        labels: Sequence[Label | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        skip_invalid: bool = False,
    ) -> dict[int, str]:
        """Store items. vectors : (n, dimension), of any real dtype; stored as the index says.

        Returns what is wrong with which positions; these are left out if `skip_invalid`. Otherwise the first
        of them is raised as InvalidItemError, and no item of the call is taken.
        """
        batch, faults = checked_upsert(self.settings, ids, vectors, labels, metadata)
        if faults and not skip_invalid:
            position = min(faults)
            raise InvalidItemError(
                f"item {reprlib.repr(batch.ids[position])} (position {position}) cannot be stored",
                why=faults[position],
                remedy="mend it, or leave it out",
            )
        if faults:
            batch = batch.select([p for p in range(len(batch)) if p not in faults])
        self._add(batch)
        return faults

    def faults(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.floating[Any]],
        labels: Sequence[Label | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> dict[int, str]:
        """What `upsert_many` would refuse, a reason by position. Nothing is sent."""
        return checked_upsert(self.settings, ids, vectors, labels, metadata)[1]

    def delete(self, ids: Sequence[str]) -> None:
        """Delete items once all that was sent before is applied; see `Index.delete` to delete at once."""
        batch = Batch("delete", id_list(ids))
        for position, fault in item_faults(batch, self.settings).items():
            raise InvalidItemError(
                f"the id at position {position} cannot be deleted", why=fault, remedy="mend it, or leave it out"
            )
        self._add(batch)

    def _add(self, batch: Batch) -> None:
        """Buffer items, sending each batch that is full. Another operation first sends what is buffered."""
        with self._lock:
            self._raise_what_came_late()
            if self._buffer and self._buffer[0].operation != batch.operation:
                self.flush()
            start = 0
            while start < len(batch):
                if self._buffered == self._batch_items:  # a flush has failed before
                    self.flush()
                part = batch.piece(start, start + self._batch_items - self._buffered)
                self._buffer.append(part)
                self._buffered += len(part)
                start += len(part)
                if self._buffered == self._batch_items:
                    self.flush()
            if self._buffered and self._timer is not None:
                self._timer.arm()

    def _raise_what_came_late(self) -> None:
        """Raise what the timer's thread could not: its items are buffered still, and the next flush sends them."""
        late, self._late = self._late, None
        if late is not None:
            raise late

    def _flush_in_time(self) -> None:
        """What the timer's thread calls."""
        with self._lock:
            try:
                self.flush()
            except Exception as error:  # whatever it is, its place is in the owner's thread
                log.warning("what is buffered for index %s is not sent yet", self._handle.name, exc_info=True)
                self._late = error
                if self._timer is not None:
                    self._timer.arm()

    def flush(self) -> None:
        """Send what is buffered; when this returns it is accepted (or shed).

        When it raises, the batch stays buffered, and the next flush sends it under the same id: whether it had
        been accepted before its reply was lost, or not, it is then accepted once.
        """
        with self._lock:
            self._late = None  # sent now, or raised anew
            if self._buffered:
                self._buffer = [_joined(self._buffer)]
                self._buffer_id = self._buffer_id or self._next_id()
                self.submit(self._buffer[0], self._buffer_id)
                self._buffer, self._buffered, self._buffer_id = [], 0, None
            if self._timer is not None:
                self._timer.disarm()

    def _next_id(self) -> str:
        self._sent += 1
        return f"{self._name}-{self._sent}"

    def submit(self, batch: Batch, batch_id: str | None = None) -> bool:
        """Have a batch accepted and delivered, once per `batch_id`. False when it was shed.

        Raises BackPressureError or OutOfMemoryError when the bound is reached and the producer raises, or has
        blocked for `timeout_seconds`; nothing of the batch is accepted then.
        """
        with self._lock:
            return self._submit(batch, batch_id)

    def _submit(self, batch: Batch, batch_id: str | None) -> bool:
        if len(self._outstanding) >= self._prune_at:
            self._prune_at = max(PRUNE_AT, 2 * self.outstanding())
        batch_id = check_name(batch_id or self._next_id(), "batch id")
        try:
            accepted = self._accept(batch_id, batch)
        except (BackPressureError, OutOfMemoryError):
            if self._when_full != "shed":
                raise
            self.shed += len(batch)
            return False
        if not accepted.known:
            self.accepted += len(batch)
        if self._first is None:
            self._first = accepted.first
        self._outstanding.append(batch_id)
        try:
            enqueue_batch(self._queue, self._handle.name, batch_id)
        except exceptions.RedisError:
            # the batch is safe; the sweep of any worker puts it on the queue
            log.warning("batch %s is accepted but could not be put on the queue", batch_id, exc_info=True)
        return True

    def _accept(self, batch_id: str, batch: Batch) -> Accepted:
        deadline = time.monotonic() + self._timeout_seconds
        pause_seconds = 0.002
        while True:
            try:
                with redis_errors():
                    now = server_milliseconds(self._handle.client, self._handle.name)
                    lease_until = now + GRACE_MILLISECONDS
                    return self._handle.ledger.accept(
                        batch_id, batch, lease_until=lease_until, max_pending=self._max_pending
                    )
            except (BackPressureError, OutOfMemoryError):
                if self._when_full != "block" or time.monotonic() + pause_seconds > deadline:
                    raise
            time.sleep(pause_seconds)
            pause_seconds = min(0.1, pause_seconds * 1.5)

    def outstanding(self) -> int:
        """How many of this producer's batches are accepted and not yet finished. One round trip."""
        with self._lock, redis_errors():
            self._outstanding = self._handle.ledger.still_pending(self._outstanding)
            return len(self._outstanding)

    def wait(self, timeout_seconds: float = 600.0) -> None:
        """Flush, and return when every item sent is searchable (or a dead letter).

        Raises StreamHashError when it takes longer than `timeout_seconds`; the items stay accepted.
        """
        self.flush()
        deadline = time.monotonic() + timeout_seconds
        pause_seconds = 0.002
        while pending := self.outstanding():
            if time.monotonic() > deadline:
                raise StreamHashError(
                    f"{pending} batches of index {self._handle.name!r} are still pending",
                    why=f"no worker finished them in {timeout_seconds:g} s",
                    remedy="start a hash worker: stream-hash worker",
                )
            time.sleep(pause_seconds)
            pause_seconds = min(0.05, pause_seconds * 1.5)

    def dead_letters(self) -> list[DeadLetter]:
        """What this producer sent and no worker could store, as far as that is known yet.

        Batches submitted under an id of the caller's own are not looked for.
        """
        letters: list[DeadLetter] = []
        after = self._first - 1 if self._first is not None else 0
        with redis_errors():
            while self._first is not None and (page := self._handle.ledger.dead_letters(after=after)):
                letters += [letter for letter in page if letter.batch.startswith(self._name)]
                after = page[-1].first
        return letters


def _seconds(value: object) -> float:
    if isinstance(value, (int, float)) and 0 < value < threading.TIMEOUT_MAX:
        return float(value)
    raise UsageError(f"flush_seconds is {value!r}", why="it is a number of seconds above 0", remedy="choose another")


def _joined(parts: Sequence[Batch]) -> Batch:
    """One batch of all parts, which have the same operation."""
    if len(parts) == 1:
        return parts[0]
    operation: Operation = parts[0].operation
    ids = [item_id for part in parts for item_id in part.ids]
    if operation == "delete":
        return Batch(operation, ids)
    return Batch(
        operation,
        ids,
        np.concatenate([part.vectors for part in parts if part.vectors is not None]),
        [text for part in parts for text in part.labels or ()],
        [text for part in parts for text in part.metadata or ()],
    )
