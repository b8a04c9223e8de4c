"""Dead letters, looked at and dealt with: what was accepted, and could not be stored.

A letter is one refused item, or a whole batch that failed each time it was tried; it is known by the sequence number of
its first item. The rules are the ledger's (storage/ledger.py, rule 5). In short:

1. Retried, a letter is pending again under the numbers it has. Whatever was written, labelled or deleted since then is
   newer, and stays: a retry repairs, it never rolls back. What cannot be stored now either is the same letter again.
2. A letter that has lapsed can be retried only `anew`: as if it were sent again now. Then it is the newest.
3. Dropped, it is gone, and its items are counted as dropped.
4. Each is one script, and may be repeated. A letter that was retried and whose job was not sent is found by the sweep.
"""

from __future__ import annotations

import math
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from stream_hash.errors import IntegrityError
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import LEASE_MILLISECONDS
from stream_hash.settings import parse_label, parse_metadata
from stream_hash.storage.codec import Batch, decode_batch
from stream_hash.storage.ledger import DeadLetter, Lapsed
from stream_hash.storage.server_clock import server_milliseconds

_AT_ONCE: Final = 100


@dataclass(frozen=True)
class Buried:
    """Items that no worker could store, or a change of them: a dead letter, for people.

    ids : of the items; none when the batch itself is damaged. reason : why. batch : it came in this one.
    first : sequence number of the first item. items : how many.
    """

    ids: list[str]
    reason: str
    batch: str
    first: int
    items: int


@dataclass(frozen=True)
class Reason:
    """letters, items : how many died of one reason. first : the oldest of these letters."""

    reason: str
    letters: int
    items: int
    first: int


@dataclass(frozen=True)
class Shown:
    """A dead letter with what it holds. retriable : whether it can be retried in its place.

    contents : for each item id, label, metadata and vector as far as the operation has them; None when the payload is
    damaged. Values that are no JSON are None.
    """

    letter: Buried
    retriable: bool
    operation: str | None
    contents: list[dict[str, Any]] | None


@dataclass
class Dealt:
    """What became of letters that were to be retried or dropped, by their first sequence number.

    batches : what retried letters are now: batch id → the numbers of its items.
    """

    letters: int = 0
    items: int = 0
    batches: dict[str, range] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    lapsed: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    @property
    def undone(self) -> int:
        """How many letters were left as they were, or not found."""
        return len(self.missing) + len(self.lapsed) + len(self.damaged)


def dead_letters(handle: IndexHandle, limit: int) -> list[Buried]:
    """The oldest dead letters, up to `limit`."""
    return [_buried(letter) for letter in handle.ledger.dead_letters(limit)]


def reasons(handle: IndexHandle) -> list[Reason]:
    """Why letters died, the reason of most items first."""
    found: dict[str, Reason] = {}
    for letter in each_letter(handle):
        so_far = found.get(letter.reason, Reason(letter.reason, 0, 0, letter.first))
        found[letter.reason] = Reason(
            letter.reason, so_far.letters + 1, so_far.items + letter.items, min(so_far.first, letter.first)
        )
    return sorted(found.values(), key=lambda one: (-one.items, one.first))


def show(handle: IndexHandle, number: int) -> Shown | None:
    """A dead letter and what it holds; None when there is none of that number."""
    found = handle.ledger.letters([number])
    if not found:
        return None
    (held,) = handle.ledger.held([number])
    batch = _payload(found[0])
    contents = None if batch is None else [_content(batch, position) for position in range(len(batch))]
    return Shown(_buried(found[0]), held and batch is not None, batch.operation if batch else None, contents)


def numbers_of(handle: IndexHandle, reason: str | None = None) -> list[int]:
    """The numbers of all dead letters, or of those whose reason contains a text; oldest first."""
    if reason is None:
        return handle.ledger.letter_numbers()
    return [letter.first for letter in each_letter(handle) if reason in letter.reason]


def retry(handle: IndexHandle, broker: Any, numbers: Sequence[int], *, anew: bool = False) -> Dealt:
    """Have dead letters applied after all. anew : as the newest write of their ids, also those that have lapsed.

    A letter whose payload is damaged is left where it is: it would only die again.
    """
    # RQ is imported by what needs it: a process may ask one question and end
    from stream_hash.queue import HASH_QUEUE, SafeQueue, enqueue_batch

    dealt, send = Dealt(), partial(enqueue_batch, SafeQueue(HASH_QUEUE, connection=broker), handle.name)
    for start in range(0, len(numbers), _AT_ONCE):
        some = numbers[start : start + _AT_ONCE]
        letters = {letter.first: letter for letter in handle.ledger.letters(some)}
        for number in some:
            letter = letters.get(number)
            if letter is None:
                dealt.missing.append(number)
            elif _payload(letter) is None:
                dealt.damaged.append(number)
            else:
                _retry(handle, send, letter, dealt, anew=anew)
    return dealt


def _retry(handle: IndexHandle, send: Callable[[str], object], letter: DeadLetter, dealt: Dealt, *, anew: bool) -> None:
    now, batch_id = server_milliseconds(handle.client, handle.name), f"retry-{letter.first}-{secrets.token_hex(8)}"
    outcome = handle.ledger.retry(letter.first, batch_id, now=now, lease_until=now + LEASE_MILLISECONDS, anew=anew)
    if outcome is None:
        dealt.missing.append(letter.first)
    elif isinstance(outcome, Lapsed):
        dealt.lapsed.append(letter.first)
    else:
        send(batch_id)
        dealt.batches[batch_id] = range(outcome.first, outcome.first + letter.items)
        dealt.letters += 1
        dealt.items += letter.items


def dead_again(handle: IndexHandle, dealt: Dealt) -> int:
    """How many items of retried letters, once their batches are finished, have died again."""
    retried = sorted((numbers.start, numbers.stop) for numbers in dealt.batches.values())
    died = 0
    for letter in each_letter(handle):
        at = bisect_right(retried, (letter.first, math.inf)) - 1
        if at >= 0 and letter.first < retried[at][1]:
            died += letter.items
    return died


def drop(handle: IndexHandle, numbers: Sequence[int]) -> Dealt:
    """Give dead letters up for good."""
    dealt = Dealt()
    for number in numbers:
        items = handle.ledger.drop(number)
        if items:
            dealt.letters += 1
            dealt.items += items
        else:
            dealt.missing.append(number)
    return dealt


def each_letter(handle: IndexHandle) -> Iterator[DeadLetter]:
    """All dead letters, oldest first, some at a time."""
    numbers = handle.ledger.letter_numbers()
    for start in range(0, len(numbers), _AT_ONCE):
        yield from handle.ledger.letters(numbers[start : start + _AT_ONCE])


def _buried(letter: DeadLetter) -> Buried:
    batch = _payload(letter)
    return Buried([] if batch is None else batch.ids, letter.reason, letter.batch, letter.first, letter.items)


def _payload(letter: DeadLetter) -> Batch | None:
    """What a letter holds; None when it is damaged."""
    try:
        batch = decode_batch(letter.payload)
    except IntegrityError:
        return None
    return batch if len(batch) == letter.items else None


def _content(batch: Batch, position: int) -> dict[str, Any]:
    found: dict[str, Any] = {"id": batch.ids[position]}
    if batch.operation != "delete":
        found["label"] = _parsed(parse_label, batch.labels[position] if batch.labels else "")
    if batch.vectors is not None:
        found["metadata"] = _parsed(parse_metadata, batch.metadata[position] if batch.metadata else "")
        # NaN and infinity are no JSON, and may be why it died
        found["vector"] = [x if math.isfinite(x) else str(x) for x in batch.vectors[position].tolist()]
    return found


def _parsed(parse: Any, text: str) -> Any:
    """A label or metadata; the text itself when it is none, which may be why it died."""
    try:
        return parse(text)
    except (ValueError, RecursionError):
        return text[:200]
