"""A generation that is learned without labels, live by a re-index: what `stream-hash train NAME --unlabelled` does."""

from __future__ import annotations

import time
from dataclasses import dataclass

from stream_hash.service.asking import train_here
from stream_hash.service.connections import Connections

SAMPLE_ITEMS = 10_000
LONGEST_SECONDS = 3_600.0


@dataclass(frozen=True)
class Switched:
    """generation : its number. learning_seconds : reading, learning and judging. reindex_seconds : until it was live
    and the one before was deleted, in one process.
    """

    generation: int
    learning_seconds: float
    reindex_seconds: float


def switch_to_itq(name: str, url: str) -> Switched:
    """Learn from some 10,000 items of the index, publish, re-index in this process, whatever the gate says."""
    start = time.perf_counter()
    plan = {"unlabelled": True, "force": True, "window": SAMPLE_ITEMS}
    run = train_here(Connections.open(url), name, plan, timeout_seconds=LONGEST_SECONDS, on_doing=lambda _: None)
    if run["generation"] is None:
        raise RuntimeError(f"index {name!r}: {run['reason']}")
    return Switched(run["generation"], run["seconds"], time.perf_counter() - start - run["seconds"])
