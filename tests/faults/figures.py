"""Live quality as the server's scripts answered: what was measured before it was written, and is counted once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from history import History

from stream_hash.service.handle import IndexHandle
from stream_hash.service.quality import current


@dataclass
class Figures:
    """kept : how many wait at the most. waiting : positions not in the summary. folded : below which all are. counted :
    how many the summary holds. dropped : how many went since too many waited. wrong : what a script answered that it
    must not; kept until the end, since a worker goes on when scoring fails.
    """

    history: History
    kept: int
    waiting: set[int] = field(default_factory=set)
    folded: int = 0
    counted: int = 0
    dropped: int = 0
    wrong: list[str] = field(default_factory=list)

    def called(self, script: str, arguments: Sequence[Any], reply: Any, *, late: bool) -> None:
        """Look on as a script answers. late : what was measured before a write arrives after it."""
        if script == "quality_add":
            new = {int(position) for position in arguments[2::2]} - self.waiting
            self._expect(reply in (0, len(new)), f"of {new} {reply} are new")
            if reply:
                self._expect(late or not new & self.history.effective, f"of {new} some were written before")
                self._expect(min(new) >= self.folded, f"{new} come after all below {self.folded} was folded")
                newest = set(sorted(self.waiting | new)[-self.kept :])
                self.dropped += len(self.waiting | new) - len(newest)
                self.waiting = newest
        elif script == "quality_fold" and reply:
            self._expect(int(arguments[2]) > self.folded, f"folded to {arguments[2]} after {self.folded}")
            self.folded = int(arguments[2])
            taken = {position for position in self.waiting if position < self.folded}
            self.waiting -= taken
            self.counted += len(taken)

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)

    def check_waiting(self, stored: Iterable[tuple[bytes, float]]) -> None:
        """At any moment. stored : the figures that the server keeps, with their positions."""
        positions = {int(position) for _, position in stored}
        assert positions == self.waiting, f"figures of {positions} wait, and should of {self.waiting}"

    def check(self, handle: IndexHandle) -> None:
        """At the end, after a sweep."""
        assert not self.wrong, self.wrong
        left = handle.quality.read().figures
        assert not left, f"{left} are not taken up"
        more = len(current(handle).series) - self.counted
        # what is dropped may have been read by then by who takes it up
        assert 0 <= more <= self.dropped, f"a figure was counted twice, or never: {more}, {self.dropped} were dropped"
