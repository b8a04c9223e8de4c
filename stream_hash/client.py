"""The way out: an index that answers queries, and can be looked into."""

from __future__ import annotations

import reprlib
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IndexMissingError, StreamHashError, UsageError
from stream_hash.numerics.validation import vector_faults
from stream_hash.service import dead_letters as letters
from stream_hash.service.answer import Answer
from stream_hash.service.checking import equal_lengths, float32, id_list, label_list, real_array, whole_number
from stream_hash.service.connections import Connections
from stream_hash.service.dead_letters import Buried, dead_letters
from stream_hash.service.dropping import drop_index, droppable
from stream_hash.service.filters import Filter
from stream_hash.service.handle import IndexHandle
from stream_hash.service.items import Item, delete_items, get_items, label_items
from stream_hash.service.plan import Plan
from stream_hash.service.query_figures import QueryFigures
from stream_hash.service.saved_plan import Measure, PlanKeeper, SavedPlan
from stream_hash.service.search import Searcher
from stream_hash.settings import MAX_RESULTS, IndexSettings, Label, check_name
from stream_hash.storage.connection import redis_errors
from stream_hash.storage.store import Store, index_names
from stream_hash.storage.tallies import Tallies

if TYPE_CHECKING:  # what a query does not need is imported by what does: a process may ask one question and end
    from stream_hash.service.tuning import Tuning
    from stream_hash.service.verify import Report


class Index:
    """One index on one server or cluster.

    >>> index = Index("photos")                                                # doctest: +SKIP
    >>> index.query(vectors, k=10)[0].results                                  # doctest: +SKIP

    An index object is for one thread; open one in each.
    """

    def __init__(self, name: str, connections: Connections | str | None = None) -> None:
        """connections : opened connections, a URL, or None for the server that the environment names.

        Raises IndexMissingError when there is no such index, ServerUnreachableError when no server answers.
        """
        self._connections = Connections.given(connections)
        with redis_errors():
            self._handle = IndexHandle(self._connections.client, name)
            self._plans = PlanKeeper(self._handle)
        self._searcher = Searcher(self._handle)
        handle = self._handle
        self._figures = QueryFigures(Tallies(handle.client, name), lambda: handle.identity.nonce)
        weakref.finalize(self, self._figures.leave).atexit = False

    @classmethod
    def create(
        cls,
        name: str,
        settings: IndexSettings,
        connections: Connections | str | None = None,
        *,
        sample: NDArray[np.floating[Any]] | Sequence[Sequence[float]] | None = None,
    ) -> Index:
        """Create an index, or open it when it stands with equal settings.

        sample : (n, dimension) vectors whose mean is frozen in generation 1. Without one, that is the
        mean of the first batch of at least 100 items, or zero when the first batch is smaller.

        Raises IndexExistsError when it stands with other settings.
        """
        check_name(name)
        if not isinstance(settings, IndexSettings):
            raise UsageError(
                f"the settings are {reprlib.repr(settings)}",
                why="an index is described by IndexSettings",
                remedy="give IndexSettings(dimension=D)",
            )
        rows = None if sample is None else _checked_sample(sample, settings)
        opened = Connections.given(connections)
        with redis_errors():
            Store(opened.client, name).create(settings)
        index = cls(name, opened)
        if rows is not None and not any(state.live for state in index._handle.states):
            with redis_errors():
                index._handle.begin_first_generation(rows)
        return index

    @property
    def name(self) -> str:
        return self._handle.name

    @property
    def settings(self) -> IndexSettings:
        return self._handle.settings

    def query(
        self,
        vectors: NDArray[np.floating[Any]] | Sequence[float],
        k: int = 10,
        *,
        radius: int | None = None,
        budget: int | None = None,
        exact: bool = False,
        widen: bool = True,
        fetch: int | Literal["default"] | None = "default",
        records: bool = True,
        where: Mapping[str, Any] | Filter | None = None,
        label: Label | None = None,
    ) -> list[Answer]:
        """The k nearest items to each query, best first.

        vectors : (dimension,) or (n_queries, dimension): many at once share their round trips. budget : probe the
        likeliest buckets until they hold this many candidates (the default: what was saved by `save_plan`, else 300, or
        30 k if that is more). radius : probe every bucket within this Hamming distance of the query's code. exact :
        rank every item.

        fetch : rank only so many candidates, those with the best signatures; None for all. By default all of a
        radius's, and of a budget's 200, 20 k or a tenth, whichever is most.
        records : False leaves labels and metadata unread (they are None), and saves a round trip.

        where : only items whose metadata have all these values: {"colour": "red", "page": 7}. label : only items that
        have this label, or all of a list (service/filters.py tells how values are compared). k and the budget then
        count items that match. `Answer.matched` says how many were met, and `Answer.scanned` how many records were
        read to find all there are, when few match.

        k results come back whenever the index holds k items; `Answer.widened` says if the radius had to grow.
        widen : False returns only what the radius or the budget finds, be it fewer.
        Raises UsageError for a query that cannot be ranked, and for a filter that no item can match.
        """
        queries = _queries(vectors)
        k = whole_number(k, "k")
        plan = Plan(
            None if radius is None else whole_number(radius, "the radius"),
            None if budget is None else whole_number(budget, "the budget"),
            bool(exact),
            bool(widen),
            _fetch(fetch),
            bool(records),
            Filter.of(where, label),
        )
        with redis_errors():
            unsaid = Plan(widen=plan.widen, records=plan.records, matching=plan.matching)
            saved = self._plans.current() if plan == unsaid else None
            if saved is not None:
                plan = replace(saved.plan(k, widen=plan.widen, records=plan.records), matching=plan.matching)
            answers = self._searcher.search(queries, k, plan)
        self._figures.add(answers)
        if saved is not None:
            for answer in answers:
                answer.tuned = saved.scaled(k)
        return answers

    @property
    def query_figures(self) -> dict[str, int]:
        """What the queries by this object came to: queries, candidates, microseconds, and `within:SECONDS`, how many
        took up to so long and longer than the bound before. For metrics they are brought to the server every few
        seconds and at the end; where the account may not write, they are only here.
        """
        return dict(self._figures.total)

    def tune(
        self,
        k: int = 10,
        *,
        target_recall: float | None = None,
        target_precision: float | None = None,
        queries: int = 200,
        sample: int | None = None,
        seed: int = 0,
        show: Callable[[str], None] = lambda _: None,
    ) -> Tuning:
        """Measure what each budget and fetch finds and costs; `chosen` is the cheapest that reaches the target, if any.

        Items of the index are the queries. target_recall : share of the k nearest that are found. target_precision :
        share of labelled results that share a class with the query. sample : seek the true neighbours among so many
        items; None for all. seed : of the draws. show : told what is being done.

        Raises StreamHashError for too few items or labels, UsageError for arguments out of range.
        """
        from stream_hash.service.tuning import tune

        if target_recall is not None and target_precision is not None:
            raise UsageError("two targets are given", why="one setting is chosen", remedy="give one of them")
        target = target_recall if target_precision is None else target_precision
        if target is not None and not 0 < target <= 1:
            raise UsageError(f"the target is {target}", why="it is a share, above 0 and up to 1", remedy="change it")
        measure: Measure = "recall" if target_precision is None else "precision"
        counts = {"k": k, "queries": queries} | ({} if sample is None else {"sample": sample})
        for name, value in counts.items():
            if whole_number(value, name) < 1 or (name == "k" and value >= MAX_RESULTS):
                raise UsageError(f"{name} is {value}", why="it is out of range", remedy=f"choose another {name}")
        with redis_errors():
            return tune(
                self._handle,
                np.random.default_rng(seed),
                k=k,
                queries=queries,
                sample=sample,
                measure=None if target is None else measure,
                target=target,
                show=show,
            )

    @property
    def plan(self) -> SavedPlan | None:
        """The saved plan, by which a query is answered that says neither radius, budget, fetch nor exact."""
        with redis_errors():
            return self._plans.current()

    def save_plan(self, tuning: Tuning) -> SavedPlan:
        """Have the index searched as was chosen, by everybody, a minute from now at the latest.

        Raises StreamHashError when nothing was chosen, IndexMissingError when the index was wiped since it was opened.
        """
        plan = tuning.saved_plan()
        with redis_errors():
            if not self._plans.save(plan):
                raise _wiped(self.name)
        return plan

    def forget_plan(self) -> None:
        """Have the index searched by the defaults again. Raises IndexMissingError as `save_plan`."""
        with redis_errors():
            if not self._plans.forget():
                raise _wiped(self.name)

    def get(self, ids: Sequence[str]) -> list[Item | None]:
        """The items with these ids, None for each that is not there. Raises InvalidItemError on no id."""
        wanted = id_list(ids)
        with redis_errors():
            return get_items(self._handle, wanted)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete items now; returns those of the ids that had no item."""
        wanted = id_list(ids)
        with redis_errors():
            return delete_items(self._handle, wanted)

    def label(self, ids: Sequence[str], labels: Sequence[Label | None]) -> list[str]:
        """Label items now, None taking a label away; returns those of the ids that have no item."""
        wanted, values = id_list(ids), label_list(labels) or []
        equal_lengths(wanted, labels=values)
        with redis_errors():
            return label_items(self._handle, wanted, values)

    def status(self) -> dict[str, Any]:
        """Settings, generations, counts and the ledger's balance, as plain JSON values."""
        from stream_hash.service.status import index_status

        with redis_errors():
            return index_status(self._handle)

    def generations(self) -> list[dict[str, Any]]:
        """The generations and the runs of training, oldest first, as plain JSON values."""
        from stream_hash.service.training_status import generation_rows

        with redis_errors():
            return generation_rows(self._handle)

    def dead_letters(self, limit: int = 100) -> list[Buried]:
        """What was accepted and no worker could store, with the reason: the oldest ones, up to `limit`."""
        limit = whole_number(limit, "the limit")
        if limit < 1:
            raise UsageError(f"the limit is {limit}", why="there is nothing to return", remedy="raise it")
        with redis_errors():
            return dead_letters(self._handle, limit)

    def dead_reasons(self) -> list[letters.Reason]:
        """Why dead letters died, and how many of each reason; most items first."""
        with redis_errors():
            return letters.reasons(self._handle)

    def dead_numbers(self, reason: str | None = None) -> list[int]:
        """The numbers of all dead letters, or of those whose reason contains a text; oldest first."""
        with redis_errors():
            return letters.numbers_of(self._handle, reason)

    def dead_letter(self, number: int) -> letters.Shown | None:
        """What a dead letter holds, and whether it can be retried in its place; None when there is no such letter."""
        with redis_errors():
            return letters.show(self._handle, whole_number(number, "the letter"))

    def retry_dead(self, numbers: Sequence[int], *, anew: bool = False) -> letters.Dealt:
        """Have dead letters applied after all, by the workers. What is newer stays (service/dead_letters.py).

        anew : as if they were sent again now: also those that have lapsed, and over whatever is newer.
        """
        with redis_errors():
            return letters.retry(self._handle, self._connections.broker, _letters(numbers), anew=anew)

    def dead_again(self, dealt: letters.Dealt) -> int:
        """How many items of what `retry_dead` retried have died again; after `wait_for(dealt.batches)`."""
        with redis_errors():
            return letters.dead_again(self._handle, dealt)

    def drop_dead(self, numbers: Sequence[int]) -> letters.Dealt:
        """Give dead letters up for good."""
        with redis_errors():
            return letters.drop(self._handle, _letters(numbers))

    def wait_for(self, batches: Iterable[str], *, timeout_seconds: float = 600.0) -> None:
        """Return when none of these batches is pending. Raises StreamHashError when it takes longer."""
        deadline = time.monotonic() + timeout_seconds
        left = list(batches)
        while True:
            with redis_errors():
                left = self._handle.ledger.still_pending(left)
            if not left:
                return
            if time.monotonic() > deadline:
                raise StreamHashError(
                    f"{len(left)} batches of index {self.name!r} are still pending",
                    why=f"no worker finished them in {timeout_seconds:g} s",
                    remedy="start a hash worker: stream-hash worker",
                )
            time.sleep(0.02)

    @staticmethod
    def droppable(name: str, connections: Connections | str | None = None) -> int | None:
        """How many items an index holds that `drop` would delete; None when it is being dropped already.

        Raises IndexMissingError when there is no such index.
        """
        opened = Connections.given(connections)
        with redis_errors():
            return droppable(opened.client, name)

    @staticmethod
    def drop(
        name: str,
        connections: Connections | str | None = None,
        *,
        on_deleted: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Delete an index for good, also while others use it: they get IndexMissingError. Returns how many keys went.

        on_deleted : told how many keys are gone so far. If this is stopped half-way, nobody can use the index any more,
        and calling it again goes on. Raises IndexMissingError when there is no such index.
        """
        opened = Connections.given(connections)
        with redis_errors():
            return drop_index(opened.client, name, on_deleted=on_deleted)

    def verify(self) -> Report:
        """Check every invariant of the index; may run beside any traffic."""
        from stream_hash.service.verify import verify

        with redis_errors():
            return verify(self._handle)

    @staticmethod
    def names(connections: Connections | str | None = None) -> list[str]:
        """The names of the indexes on a server."""
        opened = Connections.given(connections)
        with redis_errors():
            return index_names(opened.client)


def _wiped(name: str) -> IndexMissingError:
    return IndexMissingError(
        f"index {name!r} is not the one that was opened", why="it was wiped since", remedy="open it anew"
    )


def _letters(numbers: Sequence[int]) -> list[int]:
    return [whole_number(number, "a letter") for number in numbers]


def _fetch(fetch: object) -> int | Literal["default"] | None:
    if fetch is None or fetch == "default":
        return fetch
    return whole_number(fetch, "fetch")


def _queries(vectors: object) -> NDArray[np.float32]:
    """(n_queries, dimension) float32; the dimension is still to be checked."""
    array = real_array(vectors, "the queries")
    if not array.ndim:
        raise UsageError(
            f"the query is the one number {array}", why="a query is a vector", remedy="give its coordinates"
        )
    return float32(np.atleast_2d(array))


def _checked_sample(sample: object, settings: IndexSettings) -> NDArray[np.float32]:
    array = real_array(sample, "the vectors of the sample")
    if array.ndim != 2 or array.shape[1] != settings.dimension:
        raise UsageError(
            f"the sample has shape {array.shape}",
            why=f"the index is to hold vectors of {settings.dimension} coordinates",
            remedy="give an array of that many columns",
        )
    rows = float32(array)
    for row, fault in vector_faults(rows, settings.metric).items():
        raise UsageError(f"row {row} of the sample cannot be used", why=fault, remedy="leave it out")
    return rows
