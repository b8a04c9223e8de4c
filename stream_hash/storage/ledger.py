"""The ledger: every accepted batch, from its acceptance to its receipt.

RQ alone loses jobs (a worker killed at the wrong moment, an expired hash), so a batch lives here, and the
RQ job that carries its name is only a message that it is time to look.

Rules (each is held by one script; tests remove it and see the loss)
1. A batch is accepted once, whatever its producer or redis-py repeats, and is numbered when accepted.
2. It stays pending until it is finished; everything that finishing changes, changes at once.
3. accepted = applied + pending + dead + dropped, counted in items, at every moment.
4. A pending batch whose lease has run out may be delivered again; applying it twice is harmless.
5. A dead letter can be retried under the sequence numbers it has, while it is *held*: no floor has risen above it, no
   tombstone newer than it has been forgotten. What was written since then stays, what was deleted stays deleted. One
   that has *lapsed* can be accepted anew, as the newest write of its ids, or be dropped.
6. Nothing is accepted, begun or retried in an index that was dropped.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stream_hash.clock import now_milliseconds
from stream_hash.errors import BackPressureError, UsageError
from stream_hash.settings import MAX_BATCH_ITEMS, MAX_PAYLOAD_BYTES
from stream_hash.storage.codec import Batch, encode_batch
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts
from stream_hash.storage.tallies import FailureKind

RECEIPT_SECONDS: Final = 3_600
"""How long after it was finished a batch id is still known, and so may be repeated harmlessly."""

COUNTERS: Final = ("accepted", "applied", "dead", "dropped")
"""What is counted of items since the index was created."""


@dataclass(frozen=True)
class Accepted:
    """first : sequence number of the batch's first item. known : it had been accepted before."""

    first: int
    known: bool


@dataclass(frozen=True)
class Delivery:
    """A batch handed to a worker. attempts counts this one; failure is why the last one failed; settings are the
    index's, as it stands now.
    """

    batch: str
    payload: bytes
    first: int
    attempts: int
    items: int
    failure: str
    settings: bytes


@dataclass(frozen=True)
class DeadLetter:
    """Items that could not be applied. first : sequence number of the first. payload : a batch of them.

    A letter is known by `first`: no other ever has the same.
    """

    first: int
    items: int
    batch: str
    reason: str
    payload: bytes


@dataclass(frozen=True)
class Balance:
    """Items and batches in the ledger at one moment."""

    accepted: int
    applied: int
    pending: int
    dead: int
    pending_batches: int
    dropped: int = 0

    @property
    def holds(self) -> bool:
        """The invariant: accepted = applied + pending + dead + dropped."""
        return self.accepted == self.applied + self.pending + self.dead + self.dropped


@dataclass(frozen=True)
class Retried:
    """A dead letter is pending again, in the batch of this id, whose first item has this sequence number."""

    batch: str
    first: int


@dataclass(frozen=True)
class Lapsed:
    """A dead letter has lost its place in the order of writes."""


class Ledger:
    """The ledger of one index. All methods are safe to repeat."""

    def __init__(self, client: Client, index: str, *, scripts: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def accept(
        self, batch_id: str, batch: Batch, *, lease_until: int, max_pending: int = 0, now: int | None = None
    ) -> Accepted:
        """Make a batch durable. Raises BackPressureError when `max_pending` batches are pending already.

        lease_until : Unix milliseconds before which the sweep leaves the batch to whoever accepted it. now : the same,
        the clock's by default. Raises IndexMissingError when the index was dropped, UsageError when the batch is larger
        than any worker would take.
        """
        payload = encode_batch(batch)
        for what, size, most in (
            ("items", len(batch), MAX_BATCH_ITEMS),
            ("bytes", len(payload), MAX_PAYLOAD_BYTES),
        ):
            if size > most:
                raise UsageError(
                    f"a batch has {size} {what}", why=f"the limit is {most}", remedy="send it in several batches"
                )
        frees = int(batch.operation == "delete")
        args: list[str | int | bytes] = [batch_id, len(batch), payload, lease_until, max_pending, frees]
        args.append(now_milliseconds() if now is None else now)
        answer, number = self._scripts("accept", [self._keys.pending], args)
        if answer == b"FULL":
            raise BackPressureError(
                f"{int(number)} batches are pending in index {self._keys.index!r}",
                why=f"the bound is {max_pending}",
                remedy="start more hash workers (stream-hash worker), or let the producer block",
            )
        return Accepted(int(number), answer == b"KNOWN")

    def begin(self, batch_id: str, *, lease_until: int) -> Delivery | None:
        """Lease a pending batch and count the attempt; None when it is finished already.

        Each call is an attempt of its own, and counts once, however often the client sends it.
        """
        reply = self._scripts("begin", [self._keys.pending], [batch_id, lease_until, secrets.token_hex(8)])
        if reply is None:
            return None
        payload, first, attempts, items, failure, settings = reply
        return Delivery(batch_id, payload, int(first), int(attempts), int(items), failure.decode(), settings)

    def finish(
        self, batch_id: str, dead: Sequence[DeadLetter] = (), *, tallies: Mapping[str, int] | None = None
    ) -> bool:
        """Record that a batch is applied, but for its dead letters. False when it was finished before.

        tallies : what to add to the index's (tallies.py), with it and so once.
        """
        args: list[str | int | bytes] = [batch_id, RECEIPT_SECONDS, json.dumps(dict(tallies or {}))]
        for letter in dead:
            args += [letter.first, letter.items, _encode_letter(letter)]
        return bool(self._scripts("finish", [self._keys.pending], args))

    def release(
        self, batch_id: str, *, now: int, failure: str, blame_server: bool, kind: FailureKind = "error"
    ) -> None:
        """Give a batch back after a failed attempt, which does not count when the server was at fault.

        kind : under which the failure is tallied.
        """
        self._scripts("release", [self._keys.pending], [batch_id, now, failure, int(blame_server), kind])

    def lease_overdue(self, now: int, lease_until: int, limit: int = 1_000) -> list[str]:
        """Take up to `limit` pending batches whose lease ran out before `now` (Unix milliseconds)."""
        batches = self._scripts("lease", [self._keys.pending], [now, lease_until, limit])
        return [batch.decode() for batch in batches]

    def horizon(self) -> int:
        """Every write with a lower sequence number has been applied."""
        return int(self._scripts("horizon", [self._keys.pending], []))

    def floor(self) -> int:
        """How far the partitions' floors may rise: no write with a lower sequence number is applied any more."""
        return int(self._scripts("floor", [self._keys.pending], []))

    def oldest_arrival(self) -> int | None:
        """When the batch that has been pending for longest was accepted or retried (Unix milliseconds)."""
        return min(map(int, self._client.hvals(self._keys.arrived)), default=None)

    def still_pending(self, batch_ids: Sequence[str]) -> list[str]:
        """Those of `batch_ids` that are not finished, in one round trip."""
        if not batch_ids:
            return []
        scores = self._client.zmscore(self._keys.pending, list(batch_ids))
        return [batch for batch, score in zip(batch_ids, scores, strict=True) if score is not None]

    def balance(self) -> Balance:
        """The counts, read in one atomic call."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(self._keys.counters, *COUNTERS)
        pipeline.hvals(self._keys.sizes)
        counters, sizes = pipeline.execute()
        accepted, applied, dead, dropped = (int(count or 0) for count in counters)
        return Balance(accepted, applied, sum(map(int, sizes)), dead, len(sizes), dropped)

    def dead_letters(self, limit: int = 100, *, after: int = 0) -> list[DeadLetter]:
        """Up to `limit` dead letters whose sequence number is above `after`, oldest first."""
        return self.letters([number for number in self.letter_numbers() if number > after][:limit])

    def letter_numbers(self) -> list[int]:
        """The first sequence number of each dead letter, oldest first."""
        return sorted(map(int, self._client.hkeys(self._keys.dead)))

    def letters(self, numbers: Sequence[int]) -> list[DeadLetter]:
        """The dead letters of these first sequence numbers, without those that are not there. One round trip."""
        texts = self._client.hmget(self._keys.dead, list(numbers)) if numbers else []
        return [_decode_letter(name, text) for name, text in zip(numbers, texts, strict=True) if text is not None]

    def held(self, numbers: Sequence[int]) -> list[bool]:
        """Whether each dead letter can be retried in its place, in one round trip."""
        scores = self._client.zmscore(self._keys.held, list(numbers)) if numbers else []
        return [score is not None for score in scores]

    def retry(self, letter: int, batch_id: str, *, now: int, lease_until: int, anew: bool) -> Retried | Lapsed | None:
        """Make a dead letter pending again, as a batch of an id that was never used; None when there is no such letter.

        anew : accept its payload as the newest write of its ids, under new sequence numbers. now, lease_until : Unix
        milliseconds.
        """
        reply = self._scripts("dead_retry", [self._keys.pending], [letter, batch_id, lease_until, now, int(anew)])
        if reply[0] == b"NONE":
            return None
        return Lapsed() if reply[0] == b"LAPSED" else Retried(batch_id, int(reply[1]))

    def drop(self, letter: int) -> int:
        """Give a dead letter up. Returns how many items it held, 0 when there is no such letter (any more)."""
        return int(self._scripts("dead_drop", [self._keys.pending], [letter]))

    def holds_letters(self) -> bool:
        """Whether any dead letter keeps the floor down."""
        return bool(self._client.zcard(self._keys.held))

    def lapse(self, below: int) -> int:
        """Let dead letters below a sequence number lose their place. Returns how many did."""
        return int(self._client.zremrangebyscore(self._keys.held, "-inf", f"({below}"))

    def last_sequence(self) -> int:
        """The last sequence number given out; 0 before the first."""
        return int(self._client.get(self._keys.sequence) or 0)


def _encode_letter(letter: DeadLetter) -> bytes:
    header = {"items": letter.items, "batch": letter.batch, "reason": letter.reason}
    return json.dumps(header).encode() + b"\n" + letter.payload


def _decode_letter(first: int, raw: bytes) -> DeadLetter:
    header, _, payload = raw.partition(b"\n")
    fields = json.loads(header)
    return DeadLetter(first, fields["items"], fields["batch"], fields["reason"], payload)
