"""What a peer is: a module with `builds`, which makes one index after the other.

A module of a peer has

    DISTRIBUTIONS   what it needs installed, by the names pip knows: their versions are reported
    NOTE            what a reader has to know to compare its figures with others'
    builds(task, url)   yields a `Built` for each way of building; what was yielded last may be thrown away at the
                    next. url : of an empty server; empty itself for peers that need none (catalogue)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.task import Task

Search = Callable[[NDArray[np.float32]], Sequence[int]]
"""A query's vector in; out come the rows of items found, best first."""


@dataclass(frozen=True)
class Built:
    """An index that can be asked.

    name : how it was built. ingest_seconds : from the first vector to the last one searchable. index_bytes : an item,
    vectors apart. searches : for each setting what opens a search, in the process that will ask: connections are not
    shared. learning_seconds : once, before or after ingest: k-means, or hash functions and the re-index to them.
    facts : what else is to be kept with the figures.
    """

    name: str
    ingest_seconds: float
    index_bytes: float
    searches: dict[str, Callable[[], Search]]
    learning_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


class Peer(Protocol):
    """A module of a peer."""

    DISTRIBUTIONS: Sequence[str]
    NOTE: str

    def builds(self, task: Task, url: str) -> Iterator[Built]:
        """All its indexes, one after the other."""
