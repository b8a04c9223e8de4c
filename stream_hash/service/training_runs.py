"""The records of training: what each run did and why; and whether the next one is due."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from stream_hash.errors import IntegrityError
from stream_hash.service.handle import IndexHandle

Decision: TypeAlias = Literal["live", "refused", "skipped", "forced", "dry run", "rolled back"]


@dataclass(frozen=True)
class TrainingRun:
    """One run of training; or a rollback, from which everything counts anew as it does from a run.

    started : Unix seconds. learner : of the bits; "itq" learns without labels. asked : why it was begun. parent : the
    generation that was live, 0 for none. generation : the one that was published, or None. trained : labelled items
    that its learner has newly learned from, or without labels all items. held_out : those it was judged by. classes :
    how many its learner knows. reason : a sentence on the decision. seen : the highest sequence number of a label that
    it, or an earlier run, could have looked at.

    figures, as far as they were measured: live_precision, challenger_precision (without labels live_recall and
    challenger_recall), difference, lower_bound (of the difference), budget (candidates a query); candidate
    ("continued" or "fresh") and other_precision (of the candidate not taken); churn and changed_codes (share of bits,
    and of codes, that change); balance (share of ones of the most one-sided bit, or of zeros if fewer), correlation
    (mean size), information (mean, in bits), constant_bits, duplicate_bits.
    """

    id: str
    started: float
    seconds: float
    learner: str
    parent: int
    generation: int | None
    trained: int
    held_out: int
    classes: int
    decision: Decision
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)
    asked: str = ""
    seen: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> TrainingRun:
        """The run that `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingRun:
        return cls(**{name.name: values[name.name] for name in fields(cls) if name.name in values})


def checked_run(values: Mapping[str, Any]) -> TrainingRun:
    """A run from values of any origin. Raises IntegrityError when they are not those of a run."""
    try:
        run = TrainingRun.from_dict(values)
    except TypeError as error:
        raise IntegrityError("a run of training lacks a value", why=str(error)) from error
    counts = (run.parent, run.trained, run.held_out, run.classes, run.seen)
    sound = (
        all(isinstance(text, str) for text in (run.id, run.learner, run.reason, run.asked))
        and all(type(count) is int and 0 <= count < 2**53 for count in counts)
        and (run.generation is None or (type(run.generation) is int and 0 < run.generation < 2**53))
        and all(type(value) in (int, float) and 0 <= value < 2**33 for value in (run.started, run.seconds))
        and run.decision in get_args(Decision)
        and isinstance(run.figures, dict)
        and all(value is None or isinstance(value, (str, int, float)) for value in run.figures.values())
    )
    if not sound:
        raise IntegrityError("a run of training has a value that none can have", why=f"{values!r:.200}")
    return run


def runs(handle: IndexHandle) -> list[TrainingRun]:
    """The last runs that were recorded, newest first."""
    return [TrainingRun.from_dict(record) for record in handle.trainer.runs()]


def due(handle: IndexHandle, *, interval: float, labels: int, now: float) -> str | None:
    """Why training is due, or None if it is not.

    interval : seconds after which any new label is reason enough. labels : new labels that are reason enough at once.
    now : Unix seconds. Three round trips and a short script.
    """
    newest = handle.trainer.runs(1)
    last = TrainingRun.from_dict(newest[0]) if newest else None
    asked = handle.trainer.asked()
    if asked is not None and (last is None or asked[0] > last.started):
        return asked[1] or "somebody asked"
    new = handle.reader.count_labelled(above=last.seen if last else 0, below=handle.ledger.horizon())
    if new >= max(1, labels):
        return f"{new} new labels"
    since = last.started if last else min((record.created for record in handle.models.records()), default=now)
    if new and now - since >= interval:
        return f"{now - since:.0f} seconds passed, and {new} labels came"
    return None
