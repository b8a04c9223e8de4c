"""The gate: whether a challenger goes live in place of the model that is.

Both hash the same held-out items, each of which is a query too, itself left out. A query's candidates are the items
in the cheapest buckets of query-directed order, a fixed number of them: the last bucket is cut, at random but for both
models alike, or the one with the larger buckets would gain by overshooting. What counts is precision@k of the exact
ranking of the candidates.

The challenger is accepted if the lower bound of its mean gain is above a margin. The bound is that of a paired
bootstrap (B. Efron & R. Tibshirani, "An introduction to the bootstrap", 1993, chapters 13 and 16). What is drawn are
items, each in both its roles: with the queries alone, what a label does to the answers for other items would
count as if every answer had labels of its own. Were all labels random, the standard error would come out too
small by up to √2, and challengers that learned nothing would pass too often. So an item counts with its own gain as
a query, and with what its label adds to the gains of the queries that it is a result of, over what another result
would have added.

What the margin is for: the gate is asked again and again, and to move all items is work.

A class that the live model barely knows may be one of many and only some hundreds of labels old: however well it was
learned, the mean over all queries hardly shows it. So there is a second way: the gain over the queries of one such
class alone is above the margin, with less confidence, and what was measured over all queries is no loss beyond the
margin. Of m classes each is asked about with the m-th part of the doubt; those of few queries count as one class.
With less confidence, since there are only some tens of them, and since the errors differ in cost: to refuse leaves
a class badly served, while what is let in by luck costs a re-index and has lost nothing much on the other classes.
And neither way is open to a challenger that one of them loses by, with the same confidence: the gain of the old
classes, which are many, would else pay for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.held_out import (
    CONFIDENCE,
    MARGIN,
    HeldOutSearch,
    K,
    blocks,
    check_request,
    least_queries,
    lower_bound,
    nearest_first,
)
from stream_hash.numerics.labels import read_labels
from stream_hash.numerics.model import Model

NEWCOMERS_CONFIDENCE: Final = 0.9
LEAST_NEWCOMERS: Final = 15
"""Queries of newcomers fewer than these are not asked about alone: by luck a few of them gain much."""


@dataclass(frozen=True)
class Verdict:
    """A decision and its grounds. live_precision, challenger_precision : mean precision@k, 0 to 1.

    difference : of the two. lower_bound : of the difference. queries : labelled held-out items that were asked.
    budget : candidates a query, for both models. newcomers : of the queries, those of classes that the live model
    barely knows. newcomers_difference, newcomers_bound : of the class of them with the greatest bound, alone; NaN where
    that was not asked.
    """

    accepted: bool
    reason: str
    live_precision: float
    challenger_precision: float
    difference: float
    lower_bound: float
    queries: int
    budget: int
    newcomers: int = 0
    newcomers_difference: float = math.nan
    newcomers_bound: float = math.nan


def judge(
    live: Model,
    challenger: Model,
    vectors: NDArray[np.float32],
    labels: Any,
    budget: int,
    *,
    rng: np.random.Generator,
    newcomers: NDArray[np.intp] | None = None,
    k: int = K,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """Compare on held-out items, which neither model has learned from.

    vectors : (n, dimension) float32. labels : as in labels.py; items without one are left out. budget : candidates a
    query; scaled to n as the index's own budget is to its items. newcomers : (n,), a number from 0 on for each class
    that the live model barely knows, −1 for items of others. margin : the least gain, 0 or more, that is worth a
    re-index. confidence : of the one-sided lower bound over all queries.

    Raises UsageError for a budget below k, or models of different dimension or metric.
    """
    check_request(live, challenger, budget, k, margin, confidence)
    _, member = read_labels(labels, len(vectors))
    labelled = np.flatnonzero(np.diff(member.indptr))
    count = len(labelled)
    least = least_queries(budget)
    if count < least:
        nothing = float("nan")
        reason = f"{count} labelled held-out items are too few to decide on; {least} are needed"
        return Verdict(False, reason, nothing, nothing, nothing, nothing, count, budget)
    held_out = np.ascontiguousarray(vectors[labelled])
    relevant = member[labelled]
    new = np.full(count, -1) if newcomers is None else newcomers[labelled]
    groups = _groups(new)
    # the last row is of all the others
    parts = np.vstack([*groups, ~np.any(groups, axis=0)]) if groups else np.ones((1, count), dtype=np.bool_)
    gains, as_result, (before, after) = _gains((live, challenger), held_out, relevant, parts, budget, k, rng)
    difference = after - before
    # both parts have the difference as their mean
    bound = lower_bound(gains + as_result.sum(axis=0) - difference, confidence, rng)
    accepted = bound > margin
    reason = (
        f"precision@{k} {after:.3f} against {before:.3f}: the gain is "
        f"{'' if accepted else 'not '}above {margin:g} with confidence {confidence:g} (at least {bound:+.3f})"
    )
    verdict = Verdict(accepted, reason, before, after, difference, bound, count, budget, int((new >= 0).sum()))
    return _with_newcomers(verdict, gains, as_result, groups, margin, rng) if groups else verdict


def _groups(new: NDArray[np.intp]) -> list[NDArray[np.bool_]]:
    """Which queries are asked about alone: of each class of newcomers, and of those together that have few."""
    if (new >= 0).all():
        return []  # alone they would be all
    classes = [new == one for one in np.unique(new[new >= 0])]
    many = [one for one in classes if one.sum() >= LEAST_NEWCOMERS]
    few = [one for one in classes if one.sum() < LEAST_NEWCOMERS]
    together = np.any(few, axis=0) if few else np.zeros(len(new), dtype=np.bool_)
    return many + [together] * bool(together.sum() >= LEAST_NEWCOMERS)


def _with_newcomers(
    verdict: Verdict,
    gains: NDArray[np.float64],
    as_result: NDArray[np.float64],
    groups: list[NDArray[np.bool_]],
    margin: float,
    rng: np.random.Generator,
) -> Verdict:
    """The verdict if newcomers are asked about too. as_result : what each item's label adds to their queries' gains."""
    confidence = 1 - (1 - NEWCOMERS_CONFIDENCE) / len(groups)
    best, loses = (-math.inf, 0.0), False
    for own, added in zip(groups, as_result, strict=False):
        difference = float(gains[own].mean())
        # to first order: how many of them are drawn is left to chance as well
        influence = (np.where(own, gains - difference, 0.0) + added) / own.mean()
        best = max(best, (lower_bound(influence, confidence, rng), difference))
        loses |= -lower_bound(-influence, confidence, rng) < 0
    bound, difference = best
    accepted = not loses and (verdict.accepted or (bound > margin and verdict.difference > -margin))
    reason = f"{verdict.reason}; {verdict.newcomers} queries are of new classes, of which one gains {difference:+.3f}"
    reason += f" (at least {bound:+.3f})" + (", and one would be found less well" if loses else "")
    return replace(verdict, accepted=accepted, reason=reason, newcomers_difference=difference, newcomers_bound=bound)


def _gains(
    models: tuple[Model, Model],
    held_out: NDArray[np.float32],
    relevant: Any,
    parts: NDArray[np.bool_],
    budget: int,
    k: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Each item's gain as a query, (n,); what its label adds to the gains of others, (n_parts, n), by the part that the
    query is of; and the mean precisions of both models. parts : (n_parts, n), each query is in one.
    """
    count = len(held_out)
    precisions = np.zeros((2, count))
    as_result = np.zeros((len(parts), count))
    ties = rng.permutation(count)
    sides = [HeldOutSearch(model, held_out, ties) for model in models]
    for rows in blocks(count):
        order = nearest_first(held_out, rows, models[0].metric)
        same = (relevant[rows] @ relevant.T).toarray() > 0
        found = [_first(side.candidates(rows, budget), order, k) for side in sides]
        hits = [np.take_along_axis(same, one, axis=1) for one in found]
        precisions[:, rows] = [one.mean(axis=1) for one in hits]
        usual = precisions[:, rows].mean(axis=0)[:, None]
        for sign, at, hit in zip((-1.0, 1.0), found, hits, strict=True):
            added = (hit - usual) * (sign / k)
            for group, queries in enumerate(parts[:, rows]):
                as_result[group] += np.bincount(at[queries].ravel(), added[queries].ravel(), minlength=count)
    before, after = precisions.mean(axis=1).tolist()
    return precisions[1] - precisions[0], as_result, (before, after)


def _first(candidates: NDArray[np.bool_], order: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """The k nearest candidates of each query; there are k or more. Returns (n_queries, k)."""
    behind = ~np.take_along_axis(candidates, order, axis=1)
    at = np.argsort(behind, axis=1, kind="stable")[:, :k]  # of truth values a radix sort, which keeps the order
    return np.take_along_axis(order, at, axis=1)
