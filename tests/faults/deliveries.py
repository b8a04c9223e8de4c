"""Who has which batch, and how often it was tried, kept beside the server by the rules of storage/ledger.py.

It is told each call of a script of the ledger with the reply, in the order in which the server applied them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class _Pending:
    """A batch. first : its first sequence number. until : of its lease. attempts : those that count. begun : the last
    attempt's name. failed : it was given back once, for the reason `failure`.
    """

    first: int
    until: int
    attempts: int = 0
    begun: str = ""
    failed: bool = False
    failure: Any = None


class Deliveries:
    """The batches of one index."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        self._first: dict[str, int] = {}
        self._letters: set[int] = set()
        self._last = 0

    def called(self, script: str, arguments: Sequence[Any], reply: Any) -> None:
        """Assert that a script answered as it must. Others than those of the ledger are passed over."""
        follow = getattr(self, f"_{script}", None)
        if follow is not None:
            follow(arguments, reply)

    def _accept(self, arguments: Sequence[Any], reply: Any) -> None:
        batch, items, bound = arguments[0], int(arguments[1]), int(arguments[4])
        if batch in self._first:
            assert reply == [b"KNOWN", b"%d" % self._first[batch]], f"{batch} was accepted before: {reply}"
        elif bound and len(self._pending) >= bound:
            assert reply[0] == b"FULL", f"{len(self._pending)} batches are pending, the bound is {bound}: {reply}"
        else:
            assert reply == [b"ACCEPTED", b"%d" % (self._last + 1)], f"{batch} after {self._last}: {reply}"
            self._first[batch] = self._last + 1
            self._pending[batch] = _Pending(self._last + 1, int(arguments[3]))
            self._last += items

    def _begin(self, arguments: Sequence[Any], reply: Any) -> None:
        pending = self._pending.get(arguments[0])
        assert (reply is None) == (pending is None), f"{arguments[0]}: {reply}"
        if pending is not None:
            pending.until = int(arguments[1])
            pending.attempts += arguments[2] != pending.begun
            pending.begun = arguments[2]
            assert reply[2] == pending.attempts, f"{arguments[0]} is begun as attempt {reply[2]}: {pending}"

    def _lease(self, arguments: Sequence[Any], reply: Any) -> None:
        for batch in map(bytes.decode, reply):
            pending = self._pending[batch]
            assert pending.until <= int(arguments[0]), f"{batch} is leased twice: {pending}, now {arguments[0]}"
            pending.until = int(arguments[1])

    def _release(self, arguments: Sequence[Any], reply: Any) -> None:
        pending = self._pending.get(arguments[0])
        assert reply == (pending is not None), f"{arguments[0]} is given back: {reply}"
        if pending is not None and (pending.until, pending.failure) != (int(arguments[1]), arguments[2]):
            pending.until, pending.failure = int(arguments[1]), arguments[2]
            pending.attempts -= int(arguments[3])
            pending.failed = True

    def _finish(self, arguments: Sequence[Any], reply: Any) -> None:
        pending = self._pending.pop(arguments[0], None)
        assert reply == (pending is not None), f"{arguments[0]} is finished: {reply}"
        if pending is not None:
            self._letters.update(map(int, arguments[3::3]))

    def _dead_retry(self, arguments: Sequence[Any], reply: Any) -> None:
        letter, batch = int(arguments[0]), arguments[1]
        if batch in self._first:
            assert reply == [b"KNOWN", b"%d" % self._first[batch]], f"letter {letter} was retried before: {reply}"
        elif letter not in self._letters:
            assert reply == [b"NONE"], f"{letter} is no letter: {reply}"
        else:
            assert reply == [b"PENDING", b"%d" % letter], f"letter {letter} is retried: {reply}"
            self._letters.remove(letter)
            self._first[batch] = letter
            self._pending[batch] = _Pending(letter, int(arguments[2]), failed=True)

    def _dead_drop(self, arguments: Sequence[Any], reply: Any) -> None:
        assert (reply > 0) == (int(arguments[0]) in self._letters), f"letter {arguments[0]} is dropped: {reply}"
        self._letters.discard(int(arguments[0]))

    def _floor(self, _: Sequence[Any], reply: Any) -> None:
        oldest = min([self._last + 1, *self._letters, *(pending.first for pending in self._pending.values())])
        assert int(reply) == oldest, f"the floor may rise to {reply}, and {oldest} may still be written"

    def _quality_add(self, arguments: Sequence[Any], reply: Any) -> None:
        pending = self._pending.get(arguments[0])
        may = pending is not None and pending.attempts == 1 and not pending.failed
        assert may or reply == 0, f"figures of {arguments[0]} are taken after its first attempt: {pending}"

    def _horizon(self, _: Sequence[Any], reply: Any) -> None:
        oldest = min((pending.first for pending in self._pending.values()), default=self._last + 1)
        assert int(reply) == oldest, f"the horizon is {reply}, and {oldest} is not applied"
