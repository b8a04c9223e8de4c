"""Training without labels: hash functions that find the nearest items, whatever they are called.

Learned by ITQ from a sample of all items (numerics/unlabelled.py) and judged by recall on others (recall_gate.py); all
else is as in a run that learns from labels. It is for streams that have none: the schedule never begins one, and
where labels come, a run that learns from them is judged by precision, and may replace what this one made.

A run has looked at no label: `seen` stays what it was, and so do the stored learner and its cursor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from stream_hash.errors import UnlearnableError
from stream_hash.service.one_run import OneRun, bit_figures, gate_budget, measured
from stream_hash.service.training_runs import TrainingRun
from stream_hash.service.window import held_out_sample, sample

KIND: Final = "itq"


class Unlabelled(OneRun):
    """One run that learns without labels."""

    def run(self) -> TrainingRun:
        newest = self._handle.trainer.runs(1)
        self._record = replace(self._record, seen=TrainingRun.from_dict(newest[0]).seen if newest else 0)
        self._step("reading")
        if not self._parent:
            return self._skipped("the index has no items yet")
        plan = self._plan
        learned_from = sample(self._handle, plan.window, self._rng)
        if len(learned_from) < plan.least:
            return self._skipped(f"{len(learned_from)} items are too few to learn from, below {plan.least}")
        held_out = held_out_sample(self._handle, plan.held_out, self._rng)
        self._step("learning")
        from stream_hash.numerics.unlabelled import itq_model

        try:
            challenger = itq_model(self._handle.settings, learned_from, self._handle.settings.seed)
        except UnlearnableError as error:
            return self._skipped(str(error))
        self._step("judging")
        from stream_hash.numerics.recall_gate import judge_recall

        live = self._handle.model(self._parent)
        verdict = judge_recall(
            live,
            challenger,
            held_out,
            gate_budget(len(held_out)),
            rng=np.random.default_rng(self._handle.settings.seed),
            margin=plan.margin,
        )
        figures = {
            "live_recall": measured(verdict.live_recall),
            "challenger_recall": measured(verdict.challenger_recall),
            "difference": measured(verdict.difference),
            "lower_bound": measured(verdict.lower_bound),
            "budget": verdict.budget,
        }
        judged_on = held_out if len(held_out) else learned_from
        self._record = replace(
            self._record,
            trained=len(learned_from),
            held_out=len(held_out),
            reason=verdict.reason,
            figures=figures | bit_figures(live, challenger, learned_from, judged_on),
        )
        return self._decided(challenger, accepted=verdict.accepted, kind=KIND)
