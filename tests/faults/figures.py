"""Live quality as the server's scripts answered: what was measured before it was written, and is counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from history import History

from stream_hash.service.handle import IndexHandle
from stream_hash.service.quality import current


@dataclass
class Figures:
    """positions : of the figures that were added. folded : below which they are in the summary. wrong : what a script
    answered that it must not; kept until the end, since a worker goes on when scoring fails.
    """

    history: History
    positions: set[int] = field(default_factory=set)
    folded: int = 0
    wrong: list[str] = field(default_factory=list)

    def called(self, script: str, arguments: Sequence[Any], reply: Any) -> None:
        """Look on as a script answers."""
        if script == "quality_add":
            new = {int(position) for position in arguments[2::2]} - self.positions
            self._expect(reply in (0, len(new)), f"of {new} {reply} are new")
            if reply and new:
                self._expect(not new & self.history.effective, f"of {new} some were written before")
                self._expect(min(new) >= self.folded, f"{new} come after all below {self.folded} was folded")
                self.positions |= new
        elif script == "quality_fold" and reply:
            self._expect(int(arguments[1]) > self.folded, f"folded to {arguments[1]} after {self.folded}")
            self.folded = int(arguments[1])

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)

    def check(self, handle: IndexHandle) -> None:
        """At the end, after a sweep."""
        assert not self.wrong, self.wrong
        left = handle.quality.read().figures
        assert not left, f"{left} are not taken up"
        assert len(current(handle).series) == len(self.positions), "a figure was counted twice, or never"
