"""Training: learn from recent labels, judge on held-out ones, publish what is better. Re-indexing comes after.

Rules
1. Learning and judging change nothing on the server. Then two calls do: the model is published (with its record, and as
   the target), and then the learner is stored with its cursor and the record of the run. Whoever dies before the second
   leaves the older learner with the older cursor: the next run learns the same labels from there, none twice.
2. The next run after a death between the two calls finds its model published: the same bytes are the same
   generation, and its record says live. If more labels came meanwhile, it judges and publishes another.
3. Held-out items (window.py) are learned from by nobody, ever.
4. Every call that changes something carries the token: a trainer that was paused and replaced gets FencedError.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.clock import now_seconds
from stream_hash.errors import UnlearnableError, UsageError
from stream_hash.service.candidates import LEARNERS, Candidate, continued, fresh, signature_for, stored_state
from stream_hash.service.handle import IndexHandle
from stream_hash.service.learner_state import LearnerState, identity_text
from stream_hash.service.newcomers import BarelyKnown, barely_known, seen_by
from stream_hash.service.quality import current
from stream_hash.service.rollback import live_generation, publish, rollback
from stream_hash.service.training_runs import Decision, TrainingRun, due, runs
from stream_hash.service.window import LOOK, SAMPLE, Examples, Labelled, load, recent, sample, stratified
from stream_hash.storage.codec import encode_model

if TYPE_CHECKING:  # scikit-learn, and SciPy with it, are imported only where training happens
    from stream_hash.numerics.gate import Verdict
    from stream_hash.numerics.model import Model

__all__ = ["TrainingPlan", "TrainingRun", "due", "rollback", "runs", "train"]

BUDGET_SHARE: Final = 0.03
LEAST_BUDGET: Final = 12
"""Candidates a query at the gate: 3 % of the held-out items, and 12 at least, for ten of them are results. With a
larger share any model finds most neighbours, and the gate cannot tell them apart. Set by that reasoning, in between: of
58,000 items a search looks at half a percent, of 5,000 at 6 %. No other share was measured."""

DOUBT: Final = 0.05
"""The chance of letting a model pass that is no better, shared among the candidates of a run."""


@dataclass(frozen=True)
class TrainingPlan:
    """learner : "pa" or "ridge", which go on from run to run; "svm" or "mlp", which learn the window anew.

    window : labelled items looked at, at most. least : labelled items to learn from below which nothing is trained.
    held_out : items to judge by, at most; the newest. margin : of precision@10, that a model must gain with confidence.
    force : go live whatever the gate says. dry_run : publish nothing and store nothing.
    """

    learner: str = "pa"
    window: int = 20_000
    least: int = 200
    held_out: int = 2_000
    margin: float = 0.01
    force: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a value that cannot be."""
        if self.learner not in LEARNERS:
            raise UsageError(f"the learner is {self.learner!r}", remedy=f"choose one of {', '.join(LEARNERS)}")
        for name in ("window", "least", "held_out"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", remedy="take a whole number of 1 or more")
        if not 0 <= self.margin < 1:
            raise UsageError(f"the margin is {self.margin}", remedy="take one from 0 to 1")


def train(
    handle: IndexHandle,
    token: int,
    plan: TrainingPlan,
    *,
    reason: str,
    on_step: Callable[[str], None] | None = None,
) -> TrainingRun:
    """Learn, judge, publish what is better as the target, store the learner and the record of the run.

    reason : why it was begun. on_step is called before each step ("reading", "learning", "judging", "publishing",
    "storing"): the place to renew a lease; an error that it raises ends the run, which may be repeated.

    Raises FencedError when a newer token was given out.
    """
    return _Training(handle, token, plan, reason, on_step or (lambda _: None)).run()


@dataclass(frozen=True)
class _Material:
    """What a run reads. new : labelled items above the cursor; window : all that may be learned from. newcomers : what
    the live model barely knows.
    """

    new: Examples
    window: Examples
    held_out: Examples
    newcomers: BarelyKnown
    sample: NDArray[np.float32]


class _Training:
    """One run."""

    def __init__(
        self, handle: IndexHandle, token: int, plan: TrainingPlan, asked: str, step: Callable[[str], None]
    ) -> None:
        self._handle, self._token, self._plan, self._step = handle, token, plan, step
        self._clock = time.perf_counter()
        self._parent = live_generation(handle)
        self._below = handle.ledger.horizon()
        self._rng = np.random.default_rng([handle.settings.seed, self._parent])
        self._record = TrainingRun(
            id=uuid.uuid4().hex,
            started=now_seconds(),
            seconds=0.0,
            learner=plan.learner,
            parent=self._parent,
            generation=None,
            trained=0,
            held_out=0,
            classes=0,
            decision="skipped",
            reason="",
            asked=asked,
            seen=self._below - 1,
        )

    def run(self) -> TrainingRun:
        self._step("reading")
        if not self._parent:
            return self._skipped("the index has no items yet")
        plan = self._plan
        state, afresh = stored_state(self._handle, plan.learner)
        labelled = recent(self._handle, LOOK * plan.window, self._below)
        open_to_learning = np.flatnonzero(~labelled.held_out)
        if len(open_to_learning) < plan.least:
            return self._skipped(
                f"{len(open_to_learning)} labelled items are too few to learn from, below {plan.least}"
            )
        above = labelled.sequences > (state.cursor if state else 0)
        if state and not above.any() and state.judged == self._parent and not (plan.force or plan.dry_run):
            return self._skipped("no label came since the run before")
        material = self._read(labelled, open_to_learning, above)
        self._step("learning")
        try:
            candidates, afresh = self._candidates(state, afresh, material)
        except UnlearnableError as error:
            return self._skipped(str(error))
        self._step("judging")
        live = self._handle.model(self._parent)
        best, verdict, figures = self._judged(live, candidates, material)
        figures |= _bit_figures(live, best.model, material) | {"seen": self._record.seen}
        self._record = replace(
            self._record,
            trained=best.trained,
            held_out=len(material.held_out),
            classes=best.classes,
            reason=verdict.reason + (f"; learned afresh: {afresh}" if afresh else ""),
            figures=figures,
        )
        return self._decided(best, verdict)

    def _read(self, labelled: Labelled, open_to_learning: NDArray[np.intp], above: NDArray[np.bool_]) -> _Material:
        plan = self._plan

        def chosen(positions: NDArray[np.intp]) -> NDArray[np.intp]:
            return positions[stratified([labelled.labels[p] for p in positions.tolist()], plan.window)]

        window = chosen(open_to_learning)
        held_out = np.flatnonzero(labelled.held_out)
        # by class, as the window: a new model must not be worse for a class that rests
        judged = held_out[stratified([labelled.labels[p] for p in held_out.tolist()], plan.held_out)]
        examples = load(self._handle, labelled, judged)
        seen, changed = seen_by(self._handle, self._parent), current(self._handle).classes.changed
        new = chosen(open_to_learning[above[open_to_learning]])
        return _Material(
            load(self._handle, labelled, new),
            load(self._handle, labelled, window),
            examples,
            barely_known(labelled.labels, labelled.sequences.tolist(), seen, changed),
            sample(self._handle, SAMPLE, self._rng),
        )

    def _candidates(self, state: LearnerState | None, afresh: str, material: _Material) -> tuple[list[Candidate], str]:
        """What may follow the live model, and why the stored learner does not, if it does not."""
        signature = signature_for(self._handle, self._handle.model(self._parent), material.sample)
        candidates = []
        if state and state.arrays:
            found = continued(self._handle, state, material.new, material.sample, signature)
            if isinstance(found, str):
                afresh = found
            else:
                candidates.append(found)
        candidates.append(
            fresh(
                self._handle,
                self._plan.learner,
                material.window,
                material.sample,
                signature,
                self._rng,
                changed=material.newcomers.changed,
            )
        )
        return candidates, afresh

    def _judged(
        self, live: Model, candidates: list[Candidate], material: _Material
    ) -> tuple[Candidate, Verdict, dict[str, Any]]:
        """The best candidate, the gate's verdict on it, and the figures."""
        from stream_hash.numerics.gate import judge

        held_out = material.held_out
        budget = gate_budget(len(held_out))
        order = self._rng.permutation(len(held_out))
        vectors, labels = held_out.vectors[order], [held_out.labels[position] for position in order.tolist()]
        places = zip(labels, held_out.sequences[order].tolist(), strict=True)
        of_class = {one: number for number, one in enumerate(sorted(material.newcomers.classes))}
        newcomers = np.array([of_class[p[0][0]] if material.newcomers.holds(*p) else -1 for p in places], dtype=np.intp)
        verdicts = [
            judge(
                live,
                candidate.model,
                vectors,
                labels,
                budget,
                rng=np.random.default_rng(self._handle.settings.seed),
                newcomers=newcomers,
                margin=self._plan.margin,
                confidence=1 - DOUBT / len(candidates),
            )
            for candidate in candidates
        ]
        # of equals the first: it was continued, and changes fewer codes. What was not measured is not a number.
        best = max(range(len(candidates)), key=lambda at: _merit(verdicts[at]))
        verdict = verdicts[best]
        figures: dict[str, Any] = {
            "live_precision": _known(verdict.live_precision),
            "challenger_precision": _known(verdict.challenger_precision),
            "difference": _known(verdict.difference),
            "lower_bound": _known(verdict.lower_bound),
            "newcomers": verdict.newcomers,
            "newcomers_difference": _known(verdict.newcomers_difference),
            "newcomers_bound": _known(verdict.newcomers_bound),
            "budget": budget,
            "candidate": candidates[best].name,
        }
        if len(candidates) > 1:
            figures["other_precision"] = _known(verdicts[1 - best].challenger_precision)
        return candidates[best], verdict, figures

    def _decided(self, best: Candidate, verdict: Verdict) -> TrainingRun:
        handle, arrays = self._handle, best.model.to_arrays()
        target = handle.trainer.target()
        records = {record.generation: record for record in handle.models.records()}
        published = target in records and records[target].sha256 == encode_model(arrays)[1]
        decision: Decision = "refused"
        if verdict.accepted or published:
            decision = "live"
        elif self._plan.force:
            decision = "forced"
        if published and not verdict.accepted:
            self._record = replace(self._record, reason=f"generation {target} is this very model, published before")
        if self._plan.dry_run:
            would = {"live": "would go live", "forced": "would be forced", "refused": "would be refused"}[decision]
            return self._finished("dry run", f"{would}: {self._record.reason}")
        generation = None
        self._step("publishing")
        if decision != "refused":
            generation = publish(
                handle,
                self._token,
                arrays,
                kind=f"grh-{self._plan.learner}",
                parent=self._parent,
                figures=self._record.figures,
            )
        self._step("storing")
        state = LearnerState(
            self._plan.learner,
            identity_text(handle.identity),
            cursor=self._below - 1,
            judged=generation or self._parent,
            arrays=best.arrays(),
        )
        self._record = replace(self._record, generation=generation)
        return self._finished(decision, self._record.reason, state)

    def _skipped(self, why: str) -> TrainingRun:
        return self._finished("dry run" if self._plan.dry_run else "skipped", why)

    def _finished(self, decision: Decision, reason: str, state: LearnerState | None = None) -> TrainingRun:
        """The record of the run, stored with the learner unless nothing is to be stored."""
        seconds = time.perf_counter() - self._clock
        record = replace(self._record, decision=decision, reason=reason, seconds=seconds)
        if not self._plan.dry_run:
            stored = None if state is None else state.to_bytes()
            self._handle.trainer.checkpoint(self._token, learner=stored, run=record.to_dict())
        return record


def _merit(verdict: Verdict) -> tuple[bool, float]:
    """By what the best candidate is chosen. The mean over all hardly shows newcomers, so their own is added to it."""
    return verdict.accepted, float(np.nan_to_num(verdict.difference) + np.nan_to_num(verdict.newcomers_difference))


def gate_budget(held_out: int) -> int:
    """Candidates a query at the gate, of so many held-out items."""
    return max(LEAST_BUDGET, math.ceil(BUDGET_SHARE * held_out))


def _bit_figures(live: Model, challenger: Model, material: _Material) -> dict[str, Any]:
    """How much changes, on the sample, and what the bits are worth, on the held-out items."""
    from stream_hash.numerics.bit_health import bit_health, churn

    sampled = material.sample if len(material.sample) else material.window.vectors
    changed = churn(live.encode(sampled).margins >= 0, challenger.encode(sampled).margins >= 0)
    known = material.held_out if len(material.held_out) else material.window
    health = bit_health(challenger.encode(known.vectors).margins >= 0, known.labels)
    information = np.zeros(1) if health.information is None else health.information
    return {
        "churn": round(changed.bits, 6),
        "changed_codes": round(changed.codes, 6),
        "balance": round(float(np.minimum(health.balance, 1 - health.balance).min()), 6),
        "correlation": round(health.mean_correlation, 6),
        "information": round(float(information.mean()), 6),
        "constant_bits": len(health.constant),
        "duplicate_bits": len(health.duplicates),
    }


def _known(value: float) -> float | None:
    """A figure as JSON can hold it."""
    return None if math.isnan(value) else round(value, 6)
