"""The ledger: every accepted batch, from its acceptance to its receipt.

RQ alone loses jobs (a worker killed at the wrong moment, an expired hash), so a batch lives here, and the
RQ job that carries its name is only a message that it is time to look.

Rules (each is held by one script; tests remove it and see the loss)
1. A batch is accepted once, whatever its producer or redis-py repeats, and is numbered when accepted.
2. It stays pending until it is finished; everything that finishing changes, changes at once.
3. accepted = applied + pending + dead, counted in items, at every moment.
4. A pending batch whose lease has run out may be delivered again; applying it twice is harmless.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stream_hash.errors import BackPressureError, UsageError
from stream_hash.settings import MAX_BATCH_ITEMS, MAX_PAYLOAD_BYTES
from stream_hash.storage.codec import Batch, encode_batch
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts

RECEIPT_SECONDS: Final = 3_600
"""How long after it was finished a batch id is still known, and so may be repeated harmlessly."""


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
    """Items that could not be applied. first : sequence number of the first. payload : a batch of them."""

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

    @property
    def holds(self) -> bool:
        """The invariant: accepted = applied + pending + dead."""
        return self.accepted == self.applied + self.pending + self.dead


class Ledger:
    """The ledger of one index. All methods are safe to repeat."""

    def __init__(self, client: Client, index: str, *, scripts: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def accept(self, batch_id: str, batch: Batch, *, lease_until: int, max_pending: int = 0) -> Accepted:
        """Make a batch durable. Raises BackPressureError when `max_pending` batches are pending already.

        lease_until : Unix milliseconds before which the sweep leaves the batch to whoever accepted it. UsageError when
        the batch is larger than any worker would take.
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
        args = [batch_id, len(batch), payload, lease_until, max_pending, frees]
        answer, number = self._scripts("accept", [self._keys.pending], args)
        if answer == b"FULL":
            raise BackPressureError(
                f"{int(number)} batches are pending in index {self._keys.index!r}",
                why=f"the bound is {max_pending}",
                remedy="start more hash workers (stream-hash worker), or let the producer block",
            )
        return Accepted(int(number), answer == b"KNOWN")

    def begin(self, batch_id: str, *, lease_until: int) -> Delivery | None:
        """Lease a pending batch and count the attempt; None when it is finished already."""
        reply = self._scripts("begin", [self._keys.pending], [batch_id, lease_until])
        if reply is None:
            return None
        payload, first, attempts, items, failure, settings = reply
        return Delivery(batch_id, payload, int(first), int(attempts), int(items), failure.decode(), settings)

    def finish(self, batch_id: str, dead: Sequence[DeadLetter] = ()) -> bool:
        """Record that a batch is applied, but for its dead letters. False when it was finished before."""
        args: list[str | int | bytes] = [batch_id, RECEIPT_SECONDS]
        for letter in dead:
            args += [letter.first, letter.items, _encode_letter(letter)]
        return bool(self._scripts("finish", [self._keys.pending], args))

    def release(self, batch_id: str, *, now: int, failure: str, blame_server: bool) -> None:
        """Give a batch back after a failed attempt, which does not count when the server was at fault."""
        self._scripts("release", [self._keys.pending], [batch_id, now, failure, int(blame_server)])

    def lease_overdue(self, now: int, lease_until: int, limit: int = 1_000) -> list[str]:
        """Take up to `limit` pending batches whose lease ran out before `now` (Unix milliseconds)."""
        batches = self._scripts("lease", [self._keys.pending], [now, lease_until, limit])
        return [batch.decode() for batch in batches]

    def horizon(self) -> int:
        """Every write with a lower sequence number has been applied."""
        return int(self._scripts("horizon", [self._keys.pending], []))

    def still_pending(self, batch_ids: Sequence[str]) -> list[str]:
        """Those of `batch_ids` that are not finished, in one round trip."""
        if not batch_ids:
            return []
        scores = self._client.zmscore(self._keys.pending, list(batch_ids))
        return [batch for batch, score in zip(batch_ids, scores, strict=True) if score is not None]

    def balance(self) -> Balance:
        """The counts, read in one atomic call."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(self._keys.counters, "accepted", "applied", "dead")
        pipeline.hvals(self._keys.sizes)
        counters, sizes = pipeline.execute()
        accepted, applied, dead = (int(count or 0) for count in counters)
        return Balance(accepted, applied, sum(map(int, sizes)), dead, len(sizes))

    def dead_letters(self, limit: int = 100, *, after: int = 0) -> list[DeadLetter]:
        """Up to `limit` dead letters whose sequence number is above `after`, oldest first."""
        names = sorted(number for number in map(int, self._client.hkeys(self._keys.dead)) if number > after)[:limit]
        texts = self._client.hmget(self._keys.dead, names) if names else []
        return [_decode_letter(name, text) for name, text in zip(names, texts, strict=True) if text is not None]

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
