"""What a run is to be, and what all of its processes have to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stream_hash.settings import IndexSettings

INDEX = "live"
K = 10
BUDGET = 300
LABELLED_SHARE = 0.1


@dataclass(frozen=True)
class LivePlan:
    """minutes : how long items arrive and change, at least. switches : of generations, at least; half of them while
    the items stream in. pause_seconds : of a client between two queries. verifications : at random moments.
    """

    settings: IndexSettings
    minutes: float = 10.0
    switches: int = 8
    clients: int = 4
    workers: int = 2
    verifications: int = 20
    learner: str = "pa"
    pause_seconds: float = 0.0
    seed: int = 0

    @property
    def seconds(self) -> float:
        return 60 * self.minutes

    @property
    def patience_seconds(self) -> float:
        """How long is waited for the server's memory to be back where it was."""
        return min(60.0, self.seconds / 10)

    @property
    def window_seconds(self) -> float:
        """How long calm is looked at before and after each training."""
        return min(8.0, max(0.5, self.seconds / 40))


@dataclass(frozen=True)
class Place:
    """Where the processes find the index, and each other's files."""

    url: str
    folder: Path
