"""The gate of a challenger that was learned without labels: whether it finds more of the nearest items.

As gate.py, with one measure in place of the other: of each query's k exact nearest among the held-out items, the share
that is among its first candidates, as many for both models. The bound is that of the same paired bootstrap of items in
both their roles: an item counts with its own gain as a query, and with how much more often than the mean it is found
as one of the nearest of others. For an item that the challenger's bits put far from its neighbours is missed by all of
them at once. With queries alone the standard error came out at .6 to .7 of what the difference varied by from draw to
draw of the items, and with both roles at 1.1 to 1.4: two that are near each other are counted as each other's query.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from stream_hash.numerics.model import Model


@dataclass(frozen=True)
class RecallVerdict:
    """A decision and its grounds. live_recall, challenger_recall : mean recall@k, 0 to 1; NaN if not measured.

    difference : of the two. lower_bound : of the difference. queries : held-out items that were asked. budget :
    candidates a query, for both models.
    """

    accepted: bool
    reason: str
    live_recall: float
    challenger_recall: float
    difference: float
    lower_bound: float
    queries: int
    budget: int


def judge_recall(
    live: Model,
    challenger: Model,
    vectors: NDArray[np.float32],
    budget: int,
    *,
    rng: np.random.Generator,
    k: int = K,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> RecallVerdict:
    """Compare on held-out items, which neither model has learned from.

    vectors : (n, dimension) float32. budget : candidates a query. margin : the least gain, 0 or more, that is worth a
    re-index. confidence : of the one-sided lower bound.

    Raises UsageError for a budget below k, or models of different dimension or metric.
    """
    check_request(live, challenger, budget, k, margin, confidence)
    count = len(vectors)
    least = least_queries(budget)
    if count < least:
        nothing = float("nan")
        reason = f"{count} held-out items are too few to decide on; {least} are needed"
        return RecallVerdict(False, reason, nothing, nothing, nothing, nothing, count, budget)
    ties = rng.permutation(count)
    sides = [HeldOutSearch(model, vectors, ties) for model in (live, challenger)]
    recalls = np.zeros((2, count))
    as_result, wanted = np.zeros(count), np.zeros(count)
    for rows in blocks(count):
        order = nearest_first(vectors, rows, live.metric)
        others = order[order != rows[:, None]].reshape(len(rows), -1)
        truth = others[:, :k]
        found = [np.take_along_axis(side.candidates(rows, budget), truth, axis=1) for side in sides]
        recalls[:, rows] = [one.mean(axis=1) for one in found]
        gained = found[1].astype(np.float64) - found[0]
        as_result += np.bincount(truth.ravel(), gained.ravel() / k, minlength=count)
        wanted += np.bincount(truth.ravel(), minlength=count) / k
    before, after = recalls.mean(axis=1).tolist()
    difference = after - before
    # what is above the mean, so that both parts together have the difference as theirs
    gains = recalls[1] - recalls[0] + as_result - difference * wanted
    bound = lower_bound(gains, confidence, rng)
    accepted = bound > margin
    reason = (
        f"recall@{k} {after:.3f} against {before:.3f}: the gain is "
        f"{'' if accepted else 'not '}above {margin:g} with confidence {confidence:g} (at least {bound:+.3f})"
    )
    return RecallVerdict(accepted, reason, before, after, difference, bound, count, budget)
