"""Tuning: what each budget and fetch finds and costs in an index as it is, and the cheapest that is good enough.

1. Each setting is asked all queries together, and then some of them one at a time, as a user would, for latency. The
   item that is the query is left out of its own answer. It takes one place of the budget and one of the vectors, so
   that figures err to the low side, by one candidate.
2. Recall is the share of the true neighbours that were found. If these were sought in a sample only, they count as
   found when they are among the candidates that were ranked: the sample does not tell which of them are among the k
   nearest of all.
3. Precision is that of live quality (scoring.py): among the results that have a label, the share with one of the
   query's classes.
4. The cheapest setting is that of the least fitted cost (numerics/cost.py) whose mean reaches the target. It is chosen
   by the same queries that its figure is of, among some dozens of settings: expect other queries to find a little
   less, about a standard error.
5. Budgets double until nearly all is found, or every item is a candidate; with a target until one of them reaches it,
   and once more, since more candidates of which fewer are ranked may be cheaper. Then the gap between the least budget
   that reaches it and the one below is halved, by ratio, a few times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stream_hash.clock import now_seconds
from stream_hash.errors import StreamHashError
from stream_hash.numerics.cost import SearchCost
from stream_hash.service.answer import Answer
from stream_hash.service.handle import IndexHandle
from stream_hash.service.plan import Plan
from stream_hash.service.saved_plan import Measure, SavedPlan
from stream_hash.service.scoring import precision
from stream_hash.service.search import Searcher
from stream_hash.service.tuning_sample import Asked, Truth, draw, truth_of, without
from stream_hash.settings import MAX_RESULTS
from stream_hash.storage.footprint import bytes_by_kind

ITEMS_A_RESULT: Final = 10
"""Below so many items for each of k results there is nothing to tune: an exact search is as cheap."""

ENOUGH: Final = 0.99
"""A recall beyond which larger budgets are not tried."""

LEAST_FETCH: Final = 25
LEAST_SHARE: Final = 16
"""Numbers of vectors that are tried double from 25, from a sixteenth of the budget to a half. Beyond that hardly
anything is found: signatures see to it. All of a budget are tried when it is small, and when it is all items."""

HALVINGS: Final = 2

SMALL_BUDGET: Final = 600

TIMED_SECONDS: Final = 2.0
TIMED_LEAST: Final = 20
"""Queries that are timed at each setting: as many as fit into two seconds, twenty at the least."""

TIMED_EXACT: Final = 3

GROWTH: Final = (2, 10)
"""For how many times the items latency and memory are predicted."""


@dataclass(frozen=True)
class Setting:
    """A budget and a fetch, and what came out: means over the queries, and the standard errors of two of them.

    precision : None when no query has labelled results. reranked : vectors fetched. p50, p95 : seconds. timed : queries
    that these are of.
    """

    budget: int
    fetch: int
    recall: float
    recall_error: float
    precision: float | None
    precision_error: float | None
    candidates: float
    probes: float
    reranked: float
    p50: float
    p95: float
    timed: int

    def reached(self, measure: Measure) -> float:
        """What it reaches of a measure; 0 where there is none."""
        return self.recall if measure == "recall" else self.precision or 0.0

    def error(self, measure: Measure) -> float:
        """The standard error of that."""
        return self.recall_error if measure == "recall" else self.precision_error or 0.0


@dataclass(frozen=True)
class Tuning:
    """queries : asked; labelled : of these, with a label. truth_k : neighbours of each that were sought, truth_items :
    among so many items; truth_whole : whether these were all. measure, target : None without a target. chosen : None
    as well when no setting reaches it. exact_seconds : what a search of all items takes. vector_bytes, bytes_an_item :
    of a vector, and of all keys (storage/footprint.py); None if the server does not tell.
    """

    index: str
    generation: int
    items: int
    k: int
    queries: int
    labelled: int
    truth_k: int
    truth_items: int
    truth_whole: bool
    settings: list[Setting]
    cost: SearchCost
    measure: Measure | None
    target: float | None
    chosen: Setting | None
    exact_seconds: float
    vector_bytes: int
    bytes_an_item: float | None

    def best(self, measure: Measure) -> Setting:
        """The setting that reaches most."""
        return max(self.settings, key=lambda one: one.reached(measure))

    def required(self) -> Setting:
        """The chosen one. Raises StreamHashError when the target is not reached, or there was none."""
        if self.measure is None or self.target is None:
            raise StreamHashError("nothing was chosen", why="there was no target", remedy="give a target")
        if self.chosen is None:
            best = self.best(self.measure)
            raise StreamHashError(
                f"no budget reaches {self.measure}@{self.k} {self.target:g}",
                why=f"the best was {best.reached(self.measure):.3f}, at budget {best.budget} and fetch {best.fetch}",
                remedy="lower the target"
                + ("" if self.measure == "recall" else ", or learn better hash functions: stream-hash train"),
            )
        return self.chosen

    def seconds_at(self, times: int) -> float:
        """The latency of the chosen setting in an index of so many times the items and the same bits, as predicted.

        The same buckets are probed: the nearest are nearer then, so they are at least as likely to be in them. They
        hold so many times the candidates, and of these the same share is ranked. This is enough, and may be too much.
        """
        one = self.required()
        return self.cost.seconds(one.probes, times * one.candidates, times * one.reranked)

    def saved_plan(self) -> SavedPlan:
        """The chosen setting as an index's own. Raises StreamHashError as `required`."""
        one = self.required()
        measure: Measure = self.measure or "recall"
        figures = (float(self.target or 0), round(one.reached(measure), 6), round(one.error(measure), 6))
        return SavedPlan(one.budget, one.fetch, self.k, measure, *figures, self.generation, self.items, now_seconds())


def tune(
    handle: IndexHandle,
    rng: np.random.Generator,
    *,
    k: int,
    queries: int,
    sample: int | None = None,
    measure: Measure | None = None,
    target: float | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Measure an index by its own items. sample : how many of them neighbours are sought among; None for all.

    Raises StreamHashError for too few items, or too few labelled ones for a precision; UsageError for a small sample.
    """
    handle.reload_states()
    sizes = [count for count, _ in handle.reader.sizes()]
    items = sum(sizes)
    # a partition has an equal share of the budget, and in each table an item counts
    everything = max(sizes) * len(sizes) * handle.settings.tables
    if items < ITEMS_A_RESULT * k:
        raise StreamHashError(
            f"index {handle.name!r} has too few items to tune",
            why=f"it holds {items}, and at k = {k} it takes {ITEMS_A_RESULT * k} for a search to be worth planning",
            remedy="ingest more, or lower k",
        )
    asked = draw(handle, queries, rng, labelled=measure == "precision")
    truth = truth_of(handle, asked, k, sample, rng, show)
    bench = _Bench(Searcher(handle), asked, truth, k)
    settings: list[Setting] = []

    def add(budget: int) -> None:
        for fetch in fetches(budget, k, all_=budget == everything):
            show(f"budget {budget}, fetch {fetch}")
            settings.append(bench.measured(Plan(budget=budget, fetch=fetch)))

    for budget in budgets(everything, k):
        reached = _reaches(settings, measure, target)
        add(budget)
        if reached:
            break
    for _ in range(HALVINGS):
        middle = between(settings, measure, target)
        if middle is not None:
            add(middle)
    settings.sort(key=lambda one: (one.budget, one.fetch))
    work = np.array([[one.probes, one.candidates, one.reranked] for one in settings])
    cost = SearchCost.fit(work, np.array([one.p50 for one in settings]))
    vector_bytes = handle.settings.dimension * (4 if handle.settings.dtype == "float32" else 2)
    generations = [state.live for state in handle.states]
    memory = bytes_by_kind(handle.client, handle.name, handle.settings, generations, rng)
    return Tuning(
        handle.name,
        max(generations),
        items,
        k,
        len(asked),
        sum(label is not None for label in asked.labels),
        truth.k,
        truth.scanned,
        truth.whole,
        settings,
        cost,
        measure,
        target,
        cheapest(settings, cost, measure, target),
        bench.exact_seconds(),
        vector_bytes,
        None if memory is None else sum(memory.values()) / items,
    )


def _reaches(settings: Sequence[Setting], measure: Measure | None, target: float | None) -> bool:
    """Whether one of the settings finds enough."""
    if measure is None or target is None:
        return any(one.recall >= ENOUGH for one in settings)
    return any(one.reached(measure) >= target for one in settings)


def between(settings: Sequence[Setting], measure: Measure | None, target: float | None) -> int | None:
    """The budget halfway, by ratio, to the least one that reaches the target from the one below; None if there is none.

    A precision may fall as budgets grow: then there may be nothing below.
    """
    if measure is None or target is None:
        return None
    reaching = min((one.budget for one in settings if one.reached(measure) >= target), default=0)
    below = max((one.budget for one in settings if one.budget < reaching), default=0)
    middle = math.isqrt(below * reaching)
    return middle if below < middle < reaching else None


def budgets(everything: int, k: int) -> Iterator[int]:
    """From a quarter of the default, doubling, to the budget of which every item is a candidate."""
    budget = max(k + 1, Plan().budget_for(k) // 4)
    while 2 * budget < everything:
        yield budget
        budget *= 2
    yield everything


def fetches(budget: int, k: int, *, all_: bool = False) -> list[int]:
    """How many vectors to try with a budget, ascending. all_ : with all of them."""
    doubling = [LEAST_FETCH << power for power in range(budget.bit_length())]
    some = [fetch for fetch in doubling if fetch > k and budget <= LEAST_SHARE * fetch and 2 * fetch <= budget]
    return [*some, budget] if all_ or budget <= SMALL_BUDGET or not some else some


def cheapest(
    settings: Sequence[Setting], cost: SearchCost, measure: Measure | None, target: float | None
) -> Setting | None:
    """Of the settings that reach the target, the one of the least fitted cost; of equals that of the least work."""
    if measure is None or target is None:
        return None
    enough = [one for one in settings if one.reached(measure) >= target]

    def rank(one: Setting) -> tuple[float, float]:
        return cost.seconds(one.probes, one.candidates, one.reranked), one.candidates + one.reranked

    return min(enough, key=rank, default=None)


@dataclass(frozen=True)
class _Bench:
    """Asks the queries."""

    searcher: Searcher
    asked: Asked
    truth: Truth
    k: int

    def measured(self, plan: Plan) -> Setting:
        """What a plan finds and costs. One result more is asked for: the query itself, which is left out."""
        answers = self.searcher.search(self.asked.vectors, self.k + 1, plan)
        found = [without(own, _ids(one)) for own, one in zip(self.asked.ids, answers, strict=True)]
        if not self.truth.whole:
            found = self._ranked(plan)
        most = self.k if self.truth.whole else MAX_RESULTS
        pairs = zip(found, self.truth.nearest, strict=True)
        recalls = [len(set(ids[:most]) & set(truth)) / len(truth) for ids, truth in pairs]
        precisions = [
            share
            for item_id, label, one in zip(self.asked.ids, self.asked.labels, answers, strict=True)
            if label is not None
            and (share := precision(label, [other for other in one.results if other.id != item_id][: self.k]))
            is not None
        ]
        recall, recall_error = _mean(recalls)
        right, right_error = _mean(precisions) if precisions else (None, None)
        seconds = self._seconds(plan)
        return Setting(
            plan.budget or 0,
            int(plan.fetch or 0),
            recall,
            recall_error,
            right,
            right_error,
            float(np.mean([one.candidates for one in answers])),
            float(np.mean([one.probes for one in answers])),
            float(np.mean([one.reranked for one in answers])),
            float(np.median(seconds)),
            float(np.percentile(seconds, 95)),
            len(seconds),
        )

    def exact_seconds(self) -> float:
        """What a query takes that ranks all items; the median of a few."""
        queries = self.asked.vectors[:TIMED_EXACT, None]
        return float(np.median([self.searcher.search(one, self.k, Plan(exact=True))[0].seconds for one in queries]))

    def _seconds(self, plan: Plan) -> list[float]:
        """What queries take that are asked one at a time."""
        seconds: list[float] = []
        for query in self.asked.vectors:
            if len(seconds) >= TIMED_LEAST and sum(seconds) >= TIMED_SECONDS:
                break
            seconds.append(self.searcher.search(query[None, :], self.k, plan)[0].seconds)
        return seconds

    def _ranked(self, plan: Plan) -> list[list[str]]:
        """All that was ranked for each query."""
        everything = min(int(plan.fetch or 0), MAX_RESULTS)
        quick = Plan(budget=plan.budget, fetch=plan.fetch, widen=False, records=False)
        return [_ids(answer) for answer in self.searcher.search(self.asked.vectors, everything, quick)]


def _ids(answer: Answer) -> list[str]:
    return [result.id for result in answer.results]


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
