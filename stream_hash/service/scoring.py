"""Scoring arriving items: each labelled one of a sample is a query first, as if somebody had asked for its like.

Rules
1. Nothing of a batch has been written when its items are queries: only the first attempt at a batch is scored, and the
   figures are stored before its first write. Of a batch whose worker died before that, they are lost.
2. Scoring takes SHARE of a process's time, and QUERIES a batch. The rest of the items is not scored; which are, follows
   from the batch's sequence number and from how many time allows.
3. What goes wrong here is logged, and no batch fails for it; for PAUSE_SECONDS nothing more is scored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from stream_hash.service.allowance import Allowance
from stream_hash.service.answer import Result
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import item_faults
from stream_hash.service.plan import Plan
from stream_hash.service.search import Searcher
from stream_hash.service.window import classes_of
from stream_hash.settings import Label, parse_label
from stream_hash.storage.codec import Batch
from stream_hash.storage.ledger import Delivery
from stream_hash.storage.live_quality import Figure

K: Final = 10
PLAN: Final = Plan(budget=300, widen=False)
QUERIES: Final = 4
SHARE: Final = 0.05
SAVED_SECONDS: Final = 0.1
"""What a worker that was idle may spend at once."""

PAUSE_SECONDS: Final = 30.0

log = logging.getLogger("stream_hash.scoring")


class Scorer:
    """Scores what a process applies, of any index."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._allowance = Allowance(SHARE, SAVED_SECONDS, clock)
        self._resume = clock()

    def score(self, handle: IndexHandle, delivery: Delivery, batch: Batch) -> None:
        """Score some items of a batch that is about to be written."""
        first_attempt = delivery.attempts == 1 and not delivery.failure
        if batch.operation != "upsert" or not batch.labels or not first_attempt or self._clock() < self._resume:
            return
        labelled = [position for position, text in enumerate(batch.labels) if text]
        count = self._allowance.grant(min(QUERIES, len(labelled)))
        if not count:
            return
        start = self._clock()
        try:
            drawn = np.random.default_rng(delivery.first).choice(labelled, size=count, replace=False)
            found = _figures(handle, batch, delivery.first, sorted(drawn.tolist()))
            if found:
                handle.quality.add(delivery.batch, found)
        except Exception:
            log.exception("index %s: batch %s is not scored", handle.name, delivery.batch)
            self._resume = self._clock() + PAUSE_SECONDS
        finally:
            self._allowance.spend(self._clock() - start, count)


def _figures(handle: IndexHandle, batch: Batch, first: int, positions: list[int]) -> list[Figure]:
    """What these items of a batch find; none for those that cannot be stored or find nothing to judge by."""
    faults = item_faults(batch.select(positions), handle.settings)
    asked = batch.select([position for at, position in enumerate(positions) if at not in faults])
    sequences = [first + position for at, position in enumerate(positions) if at not in faults]
    if not sequences or asked.vectors is None or asked.labels is None:
        return []
    # one more, for the item itself: an id that comes again is in the index already
    answers = Searcher(handle).search(asked.vectors, K + 1, PLAN)
    figures = []
    for sequence, item_id, text, answer in zip(sequences, asked.ids, asked.labels, answers, strict=True):
        found = precision(parse_label(text), [result for result in answer.results if result.id != item_id][:K])
        if found is not None:
            figures.append(Figure(sequence, answer.generation, round(found, 6), next(iter(classes_of(text)), "")))
    return figures


def precision(label: Label | None, results: Sequence[Result]) -> float | None:
    """The share of results that share a class with `label`; None when none can be judged.

    A result without a label is neither right nor wrong. Were it wrong, the figure would say how much is labelled.
    """
    own = _classes(label)
    judged = [_classes(result.label) for result in results if result.label is not None]
    return sum(bool(own & classes) for classes in judged) / len(judged) if judged else None


def _classes(label: Label | None) -> set[str | int]:
    if label is None:
        return set()
    return set(label) if isinstance(label, list) else {label}
