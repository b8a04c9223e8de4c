"""Scenarios of the kept plan: the rules of storage/plans.py."""

from __future__ import annotations

from protocol import Bench

from stream_hash.storage.plans import Plans


def plans_of(bench: Bench) -> tuple[Plans, str]:
    """The kept plan of the bench's index, and the index's nonce."""
    return Plans(bench.client, "bench", scripts=bench.scripts), bench.store.settings().nonce


def a_plan_is_kept_whole_until_another_is_or_none(bench: Bench) -> None:
    plans, nonce = plans_of(bench)
    assert plans.read() is None
    assert plans.save(nonce, {"budget": 5, "fetch": 3})
    assert plans.read() == {"budget": 5, "fetch": 3, "nonce": nonce}
    assert plans.save(nonce, {"budget": 7})
    assert plans.read() == {"budget": 7, "nonce": nonce}
    assert plans.forget(nonce)
    assert plans.read() is None
    assert not bench.client.exists(bench.store.keys.plan)


def a_plan_is_for_the_index_it_was_chosen_for(bench: Bench) -> None:
    plans, nonce = plans_of(bench)
    assert not plans.save("of another", {"budget": 5})
    assert plans.read() is None
    assert plans.save(nonce, {"budget": 5})
    assert not plans.forget("of another")
    assert plans.read() == {"budget": 5, "nonce": nonce}


def what_is_no_plan_is_left_out(bench: Bench) -> None:
    plans, _ = plans_of(bench)
    for damaged in ("no json", "[1]", ""):
        bench.client.set(bench.store.keys.plan, damaged)
        assert plans.read() is None


SCENARIOS = (
    a_plan_is_kept_whole_until_another_is_or_none,
    a_plan_is_for_the_index_it_was_chosen_for,
    what_is_no_plan_is_left_out,
)
