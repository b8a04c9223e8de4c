"""What every run of training does, whatever it learns from: it begins a record, publishes what passed, stores both.

The rules are at the head of training.py.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.clock import now_seconds
from stream_hash.service.handle import IndexHandle
from stream_hash.service.learner_state import LearnerState
from stream_hash.service.rollback import live_generation, publish
from stream_hash.service.training_plan import TrainingPlan
from stream_hash.service.training_runs import Decision, TrainingRun
from stream_hash.storage.codec import encode_model

if TYPE_CHECKING:  # SciPy is imported only where training happens
    from stream_hash.numerics.model import Model

BUDGET_SHARE: Final = 0.03
LEAST_BUDGET: Final = 12
"""Candidates a query at the gate: 3 % of the held-out items, and 12 at least, for ten of them are results. With a
larger share any model finds most neighbours, and the gate cannot tell them apart. Set by that reasoning, in between: of
58,000 items a search looks at half a percent, of 5,000 at 6 %. No other share was measured."""


class OneRun:
    """One run: its record so far, and what ends it."""

    def __init__(
        self,
        handle: IndexHandle,
        token: int,
        plan: TrainingPlan,
        asked: str,
        step: Callable[[str], None],
        *,
        learner: str,
        run_id: str | None = None,
    ) -> None:
        self._handle, self._token, self._plan, self._step = handle, token, plan, step
        self._clock = time.perf_counter()
        self._parent = live_generation(handle)
        self._below = handle.ledger.horizon()
        # of the live generation: who repeats a run that died draws the same sample
        self._rng = np.random.default_rng([handle.settings.seed, self._parent])
        self._record = TrainingRun(
            id=run_id or uuid.uuid4().hex,
            started=now_seconds(),
            seconds=0.0,
            learner=learner,
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

    def _decided(
        self, model: Model, *, accepted: bool, kind: str, learner: Callable[[int], LearnerState] | None = None
    ) -> TrainingRun:
        """Publish the model if it may go live, and store the record.

        kind : of the generation. learner : what is to be continued next time, given the generation that is live then.
        """
        handle, arrays = self._handle, model.to_arrays()
        target = handle.trainer.target()
        records = {record.generation: record for record in handle.models.records()}
        published = target in records and records[target].sha256 == encode_model(arrays)[1]
        decision: Decision = "refused"
        if accepted or published:
            decision = "live"
        elif self._plan.force:
            decision = "forced"
        if published and not accepted:
            self._record = replace(self._record, reason=f"generation {target} is this very model, published before")
        if self._plan.dry_run:
            would = {"live": "would go live", "forced": "would be forced", "refused": "would be refused"}[decision]
            return self._finished("dry run", f"{would}: {self._record.reason}")
        generation = None
        self._step("publishing")
        if decision != "refused":
            generation = publish(
                handle, self._token, arrays, kind=kind, parent=self._parent, figures=self._record.figures
            )
        self._step("storing")
        self._record = replace(self._record, generation=generation)
        state = learner(generation or self._parent) if learner else None
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


def gate_budget(held_out: int) -> int:
    """Candidates a query at the gate, of so many held-out items."""
    return max(LEAST_BUDGET, math.ceil(BUDGET_SHARE * held_out))


def bit_figures(
    live: Model, challenger: Model, sampled: NDArray[np.float32], known: NDArray[np.float32], labels: Any = None
) -> dict[str, Any]:
    """How much changes, on a sample, and what the bits are worth, on held-out items.

    sampled, known : (n, dimension) float32. labels : of those that are known, as in labels.py.
    """
    from stream_hash.numerics.bit_health import bit_health, churn

    changed = churn(live.encode(sampled).margins >= 0, challenger.encode(sampled).margins >= 0)
    health = bit_health(challenger.encode(known).margins >= 0, labels)
    figures: dict[str, Any] = {
        "churn": round(changed.bits, 6),
        "changed_codes": round(changed.codes, 6),
        "balance": round(float(np.minimum(health.balance, 1 - health.balance).min()), 6),
        "correlation": round(health.mean_correlation, 6),
        "constant_bits": len(health.constant),
        "duplicate_bits": len(health.duplicates),
    }
    if health.information is not None:
        figures["information"] = round(float(health.information.mean()), 6)
    return figures


def measured(value: float) -> float | None:
    """A figure as JSON can hold it."""
    return None if math.isnan(value) else round(value, 6)
