"""What a run of training is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from stream_hash.errors import UsageError
from stream_hash.service.candidates import LEARNERS


@dataclass(frozen=True)
class TrainingPlan:
    """learner : "pa" or "ridge", which go on from run to run; "svm" or "mlp", which learn the window anew.

    window : labelled items looked at, at most. least : labelled items to learn from below which nothing is trained.
    held_out : items to judge by, at most; the newest. margin : of precision@10, that a model must gain with confidence.
    force : go live whatever the gate says. dry_run : publish nothing and store nothing. unlabelled : learn without
    labels (unlabelled.py): `learner` means nothing then, window and least count items of any kind, margin is of
    recall@10.
    """

    learner: str = "pa"
    window: int = 20_000
    least: int = 200
    held_out: int = 2_000
    margin: float = 0.01
    force: bool = False
    dry_run: bool = False
    unlabelled: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a value that cannot be."""
        if self.learner not in LEARNERS:
            raise UsageError(f"the learner is {self.learner!r}", remedy=f"choose one of {', '.join(LEARNERS)}")
        for name in ("window", "least", "held_out"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", remedy="take a whole number of 1 or more")
        if not 0 <= self.margin < 1:
            raise UsageError(f"the margin is {self.margin}", remedy="take one from 0 to 1")
