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

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import UnlearnableError
from stream_hash.service.candidates import Candidate, continued, fresh, signature_for, stored_state
from stream_hash.service.handle import IndexHandle
from stream_hash.service.learner_state import LearnerState, identity_text
from stream_hash.service.newcomers import BarelyKnown, barely_known, seen_by
from stream_hash.service.one_run import OneRun, bit_figures, gate_budget, measured
from stream_hash.service.quality import current
from stream_hash.service.rollback import rollback
from stream_hash.service.training_plan import TrainingPlan
from stream_hash.service.training_runs import TrainingRun, due, runs
from stream_hash.service.unlabelled import KIND, Unlabelled
from stream_hash.service.window import LOOK, SAMPLE, Examples, Labelled, load, recent, sample, stratified

if TYPE_CHECKING:  # scikit-learn, and SciPy with it, are imported only where training happens
    from stream_hash.numerics.gate import Verdict
    from stream_hash.numerics.model import Model

__all__ = ["TrainingPlan", "TrainingRun", "due", "gate_budget", "rollback", "runs", "train"]

DOUBT: Final = 0.05
"""The chance of letting a model pass that is no better, shared among the candidates of a run."""


def train(
    handle: IndexHandle,
    token: int,
    plan: TrainingPlan,
    *,
    reason: str,
    run_id: str | None = None,
    on_step: Callable[[str], None] | None = None,
) -> TrainingRun:
    """Learn, judge, publish what is better as the target, store the learner and the record of the run.

    reason : why it was begun. run_id : of the record; None for a new one. on_step is called before each step
    ("reading", "learning", "judging", "publishing", "storing"): the place to renew a lease; an error that it raises
    ends the run, which may be repeated.

    Raises FencedError when a newer token was given out.
    """
    step = on_step or (lambda _: None)
    if plan.unlabelled:
        return Unlabelled(handle, token, plan, reason, step, learner=KIND, run_id=run_id).run()
    return _Training(handle, token, plan, reason, step, learner=plan.learner, run_id=run_id).run()


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


class _Training(OneRun):
    """One run that learns from labels."""

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
        known = material.held_out if len(material.held_out) else material.window
        sampled = material.sample if len(material.sample) else material.window.vectors
        figures |= bit_figures(live, best.model, sampled, known.vectors, known.labels) | {"seen": self._record.seen}
        self._record = replace(
            self._record,
            trained=best.trained,
            held_out=len(material.held_out),
            classes=best.classes,
            reason=verdict.reason + (f"; learned afresh: {afresh}" if afresh else ""),
            figures=figures,
        )
        return self._decided(
            best.model,
            accepted=verdict.accepted,
            kind=f"grh-{plan.learner}",
            learner=lambda generation: self._state(best, generation),
        )

    def _state(self, best: Candidate, generation: int) -> LearnerState:
        """What is stored of the learner. generation : the generation that it became, or was compared with."""
        return LearnerState(
            self._plan.learner,
            identity_text(self._handle.identity),
            cursor=self._below - 1,
            judged=generation,
            arrays=best.arrays(),
        )

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
            "live_precision": measured(verdict.live_precision),
            "challenger_precision": measured(verdict.challenger_precision),
            "difference": measured(verdict.difference),
            "lower_bound": measured(verdict.lower_bound),
            "newcomers": verdict.newcomers,
            "newcomers_difference": measured(verdict.newcomers_difference),
            "newcomers_bound": measured(verdict.newcomers_bound),
            "budget": budget,
            "candidate": candidates[best].name,
        }
        if len(candidates) > 1:
            figures["other_precision"] = measured(verdicts[1 - best].challenger_precision)
        return candidates[best], verdict, figures


def _merit(verdict: Verdict) -> tuple[bool, float]:
    """By what the best candidate is chosen. The mean over all hardly shows newcomers, so their own is added to it."""
    return verdict.accepted, float(np.nan_to_num(verdict.difference) + np.nan_to_num(verdict.newcomers_difference))
