"""Newcomers: labels of classes that the live model barely knows. Some tens of them are a reason to train.

Rules
1. A class is barely known while SHARE of its labels, or more, are newer than what the model has seen: one that it has
   never seen, and as well one that it learned from 80 labels when there are 120. Of a class that has changed its look
   (class_quality.py) only the labels since then count. So a class is learned again whenever its labels are half as many
   again, which are as many runs as its labels have powers of 1.5.
2. What a model has seen are the labels up to `seen`, stored with its generation. Of one that has no such figure (the
   first, which learns nothing) no class is new: it is replaced in the ordinary course.
3. The first run is due when there are ENOUGH newcomers. One that was refused is tried again after AGAIN more, or a
   GROWTH of them if that is more: each has more to learn from and to be judged by.
4. A wish to train (live quality dropped, or somebody asked) that no model has gone live for is tried again too, after
   each REPEAT_LABELS labels and WISH_RUNS times at most: when answers become worse, labels of the new look are few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stream_hash.service.handle import IndexHandle
from stream_hash.service.quality import current
from stream_hash.service.training_runs import TrainingRun
from stream_hash.service.window import recent

SHARE: Final = 1 / 3
ENOUGH: Final = 75
"""New labels of barely known classes. A fifth is held out, and of fewer than 15 the gate does not ask."""

AGAIN: Final = 25
GROWTH: Final = 0.25

WINDOW: Final = 20_000
"""Labels by which it is told how well classes are known."""

REPEAT_LABELS: Final = 50
WISH_RUNS: Final = 10


@dataclass(frozen=True)
class BarelyKnown:
    """classes : as JSON texts. changed : class → the sequence number that its present look begins with."""

    classes: frozenset[str]
    changed: Mapping[str, int]

    def holds(self, several: Sequence[str], sequence: int) -> bool:
        """Whether an item of these classes, with a label of this sequence number, is a newcomer."""
        return bool(several) and all(one in self.classes and sequence >= self.changed.get(one, 0) for one in several)


def barely_known(
    labels: Sequence[Sequence[str]], sequences: Sequence[int], seen: int, changed: Mapping[str, int]
) -> BarelyKnown:
    """What a model barely knows, as far as these labels tell.

    labels, sequences : as of `Labelled`. seen : the highest sequence number of a label that it could have learned from.
    """
    old: Counter[str] = Counter()
    new: Counter[str] = Counter()
    if seen:
        for several, sequence in zip(labels, sequences, strict=True):
            (new if sequence > seen else old).update(one for one in several if sequence >= changed.get(one, 0))
    return BarelyKnown(frozenset(one for one, count in new.items() if count >= SHARE * (count + old[one])), changed)


def seen_by(handle: IndexHandle, generation: int) -> int:
    """The highest sequence number of a label that a generation's model could have learned from; 0 for none."""
    records = {record.generation: record for record in handle.models.records()}
    return int(records[generation].figures.get("seen", 0)) if generation in records else 0


@dataclass
class _Looked:
    """What was read of one index: labels up to `until`, oldest first. since, new, why : of the last look."""

    nonce: str
    until: int = 0
    labels: list[list[str]] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    since: int = 0
    new: int = 0
    why: str | None = None


class Newcomers:
    """Looks at one index after another, and remembers the labels that it has read: each is read once."""

    def __init__(self) -> None:
        self._looked: dict[str, _Looked] = {}

    def due(self, handle: IndexHandle) -> str | None:
        """Why training is due, or None. Three round trips; and the new labels are read as often as there are AGAIN / 2
        more of them.
        """
        runs = [TrainingRun.from_dict(run) for run in handle.trainer.runs(WISH_RUNS + 1)]
        if not runs:
            return None
        horizon = handle.ledger.horizon()
        since = runs[0].seen
        new = handle.reader.count_labelled(above=since, below=horizon)
        if new >= REPEAT_LABELS and _unmet(handle, runs):
            return f"{new} new labels, and nothing went live since training was asked for"
        if new < AGAIN:
            return None
        looked = self._looked.get(handle.name)
        if looked is None or looked.nonce != handle.identity.nonce:
            looked = self._looked[handle.name] = _Looked(handle.identity.nonce)
        if looked.since != since or new >= looked.new + AGAIN // 2:
            looked.since, looked.new = since, new
            looked.why = _strange(handle, looked, horizon)
        return looked.why


def _strange(handle: IndexHandle, looked: _Looked, horizon: int) -> str | None:
    seen = seen_by(handle, max(state.live for state in handle.states))
    if not seen:
        return None
    count = min(WINDOW, handle.reader.count_labelled(above=looked.until, below=horizon))
    found = recent(handle, count, horizon)
    looked.labels = (looked.labels + found.labels[::-1])[-WINDOW:]
    looked.sequences = (looked.sequences + found.sequences.tolist()[::-1])[-WINDOW:]
    looked.until = horizon - 1
    known = barely_known(looked.labels, looked.sequences, seen, current(handle).classes.changed)
    newcomers = [
        sequence
        for several, sequence in zip(looked.labels, looked.sequences, strict=True)
        if known.holds(several, sequence)
    ]
    late = sum(sequence > looked.since for sequence in newcomers)
    if len(newcomers) < ENOUGH or late < max(AGAIN, GROWTH * len(newcomers)):
        return None
    return f"{late} new labels are of classes that the model barely knows"


def _unmet(handle: IndexHandle, runs: list[TrainingRun]) -> bool:
    """Whether what was asked for last came to nothing, and is to be tried again. runs : newest first."""
    asked = handle.trainer.asked()
    if asked is None:
        return False
    since = [run for run in runs if run.started >= asked[0]]
    return 0 < len(since) <= WISH_RUNS and all(run.decision == "refused" for run in since)
