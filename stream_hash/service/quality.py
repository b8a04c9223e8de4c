"""Live quality, summed up: the series along the stream, a detector of drops, and a mean for each generation.

1. Figures are taken up in the order of their positions, below the ledger's horizon only (storage/live_quality.py): the
   summary follows from the figures alone, whoever takes them up, and when.
2. A drop that lasts, of all answers or of one class's, asks for training; a run of training that begins later grants
   that (training_runs.due). A drop that shows in what a generation from before a rollback answered asks for nothing:
   it was gone back to do away with it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from stream_hash.clock import now_seconds
from stream_hash.errors import IntegrityError
from stream_hash.numerics.drift import Adwin
from stream_hash.numerics.prequential import PrequentialSeries
from stream_hash.service.class_quality import ClassQuality
from stream_hash.service.handle import IndexHandle
from stream_hash.storage.live_quality import Figure, Stored

TREND_POINTS: Final = 4
GENERATIONS: Final = 20
"""Of the newest, means are kept: more than there are models."""

log = logging.getLogger("stream_hash.quality")


@dataclass
class Summary:
    """by_generation : (sum, count) of the figures that each generation answered. classes : which became worse."""

    series: PrequentialSeries = field(default_factory=PrequentialSeries)
    drift: Adwin = field(default_factory=Adwin)
    by_generation: dict[int, tuple[float, int]] = field(default_factory=dict)
    classes: ClassQuality = field(default_factory=ClassQuality)

    def add(self, figure: Figure) -> str | None:
        """Take a figure up, no older than those before. Returns a sentence if answers have become worse by now."""
        self.series.add(figure.position, figure.precision)
        total, count = self.by_generation.get(figure.generation, (0.0, 0))
        self.by_generation[figure.generation] = (total + figure.precision, count + 1)
        for old in sorted(self.by_generation)[:-GENERATIONS]:
            del self.by_generation[old]
        of_class = self.classes.add(figure)
        before = self.drift.mean
        if not self.drift.add(figure.precision):
            return of_class
        return f"answers became worse: precision@10 fell from {before:.2f} to {self.drift.mean:.2f}"

    def shown(self) -> dict[str, Any] | None:
        """As plain JSON values; None before there is a mean.

        precision : the last mean. trend : that of the last means less that of as many before them. points : position
        and mean, oldest first. figures : how many there were.
        """
        points = self.series.points
        if not points:
            return None
        means = [point.mean for point in points]
        width = min(TREND_POINTS, len(means) // 2)
        trend = fmean(means[-width:]) - fmean(means[-2 * width : -width]) if width else None
        return {
            "precision": round(means[-1], 6),
            "trend": None if trend is None else round(trend, 6),
            "position": points[-1].position,
            "figures": len(self.series),
            "points": [[point.position, round(point.mean, 6)] for point in points],
        }

    def of_generation(self, generation: int) -> dict[str, Any] | None:
        """As plain JSON values: the mean of the figures that a generation answered, and how many they were."""
        total, count = self.by_generation.get(generation, (0.0, 0))
        return {"precision": round(total / count, 6), "figures": count} if count else None

    def to_json(self) -> str:
        by_generation = [[generation, *sums] for generation, sums in sorted(self.by_generation.items())]
        state = {"series": self.series.to_dict(), "drift": self.drift.to_dict(), "by_generation": by_generation}
        state |= {"classes": self.classes.to_dict()}
        return json.dumps(state)

    @classmethod
    def from_json(cls, text: bytes) -> Summary:
        """The summary that `to_json` wrote; an empty one for no text. Raises IntegrityError when it is damaged."""
        if not text:
            return cls()
        try:
            state = json.loads(text)
            sums = {int(g): (float(total), int(count)) for g, total, count in state["by_generation"]}
            # a summary of an earlier version knows no classes
            classes = ClassQuality.from_dict(state["classes"]) if "classes" in state else ClassQuality()
            return cls(PrequentialSeries.from_dict(state["series"]), Adwin.from_dict(state["drift"]), sums, classes)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError("the summary of live quality is damaged", why=str(error)) from error


def fold(handle: IndexHandle, horizon: int) -> bool:
    """Take the figures below the ledger's horizon up into the summary, and ask for training if they have dropped.

    horizon : read before. False when there was nothing to take up, or somebody else did. One round trip; two when
    there is something.
    """
    stored = handle.quality.read(below=horizon)
    if not stored.figures:
        return False
    summary = _continued(handle.name, stored)
    drops = _added(summary, stored.figures)
    ask = _wish(handle, drops) if drops else None
    folded = handle.quality.fold(stored.folded, horizon, summary.to_json(), ask=ask)
    if folded and ask:
        log.info("index %s: %s", handle.name, ask[1])
    return folded


def current(handle: IndexHandle) -> Summary:
    """The summary with all figures there are, also those that wait to be taken up."""
    stored = handle.quality.read()
    summary = _continued(handle.name, stored)
    _added(summary, stored.figures)
    return summary


def _continued(index: str, stored: Stored) -> Summary:
    """The stored summary; an empty one if it is damaged: it is for people, and begins anew rather than ends."""
    try:
        return Summary.from_json(stored.summary)
    except IntegrityError as error:
        log.warning("index %s: %s (%s); it begins anew", index, error, error.why)
        return Summary()


def _added(summary: Summary, figures: Iterable[Figure]) -> list[tuple[int, str]]:
    """The drops that were seen, with the generation whose answer showed each."""
    return [(figure.generation, drop) for figure in figures if (drop := summary.add(figure))]


def _wish(handle: IndexHandle, drops: list[tuple[int, str]]) -> tuple[float, str] | None:
    """When (Unix seconds) and why training is asked for, if it is: for the last drop since there was a rollback."""
    moment = now_seconds()  # before it is looked for one: a wish from before a rollback is void
    back = max((record.generation for record in handle.models.records() if record.origin is not None), default=0)
    since = [drop for generation, drop in drops if generation >= back]
    return (moment, since[-1]) if since else None
