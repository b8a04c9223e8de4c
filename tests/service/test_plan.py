"""A plan of a search, and one that is saved: what it takes unless it is told, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from stream_hash.errors import UsageError
from stream_hash.service.plan import Plan
from stream_hash.service.saved_plan import SavedPlan
from stream_hash.settings import MAX_RESULTS


@pytest.mark.parametrize(
    ("given", "k", "budget", "fetch"),
    [
        ({}, 1, 300, 200),
        ({}, 10, 300, 200),
        ({}, 11, 330, 220),
        ({"budget": 50}, 10, 50, 200),
        ({"budget": 4_000}, 10, 4_000, 400),
        ({"budget": 4_000}, 100, 4_000, 2_000),
        ({"radius": 2}, 10, 300, None),
        ({"radius": 2, "fetch": 30}, 10, 300, 30),
        ({"fetch": None}, 10, 300, None),
        ({"fetch": 10}, 10, 300, 10),
    ],
)
def test_what_is_gathered_and_fetched_grows_with_k(
    given: dict[str, Any], k: int, budget: int, fetch: int | None
) -> None:
    plan = Plan(**given)
    assert (plan.budget_for(k), plan.fetch_for(k)) == (budget, fetch)


def test_fewer_vectors_than_results_cannot_be_ranked() -> None:
    with pytest.raises(UsageError, match="fetch is 9 and k is 10"):
        Plan(fetch=9).fetch_for(10)


@pytest.mark.parametrize(
    "given",
    [
        *({"radius": 1, "budget": 5}, {"radius": 0, "exact": True}, {"budget": 5, "exact": True}),
        *({"exact": True, "fetch": 5}, {"radius": -1}, {"budget": 0}, {"fetch": 0}),
    ],
)
def test_what_contradicts_itself_or_is_too_small_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Plan(**given)
    for least in (Plan(radius=0), Plan(budget=1, fetch=1), Plan(exact=True, fetch=None)):
        assert least.budget_for(1) > 0


SAVED: dict[str, Any] = {
    **{"budget": 1_000, "fetch": 100, "k": 10, "measure": "recall", "target": 0.9, "measured": 0.91},
    **{"standard_error": 0.01, "generation": 1, "items": 500, "created": 1e9},
}


def test_a_saved_plan_serves_fewer_results_as_it_is_and_more_in_proportion() -> None:
    plan = SavedPlan.of({**SAVED, "nonce": "another value"})
    assert plan is not None
    assert [plan.scaled(k) for k in (1, 10, 11, 20)] == [(1_000, 100), (1_000, 100), (1_100, 110), (2_000, 200)]


@pytest.mark.parametrize(
    "changed",
    [
        *({"k": 0}, {"k": 101}, {"k": MAX_RESULTS + 1, "fetch": 10**6}, {"budget": 0}, {"budget": float("inf")}),
        *({"created": "today"}, {"items": None}, {"measured": [1]}),
    ],
)
def test_a_saved_plan_that_cannot_be_is_none(changed: dict[str, Any]) -> None:
    assert SavedPlan.of({**SAVED, **changed}) is None
    assert SavedPlan.of({name: value for name, value in SAVED.items() if name not in changed}) is None
