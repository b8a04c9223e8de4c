"""Simulated deployments: faults between any two commands, and no invariant broken; a rule taken out, and one is.

500 deployments here; `python -m benchmarks.simulation --seeds 10000 --mutants` runs as many as you like, and takes out
every rule. A seed that fails fails again: `simulate(client, seed)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from simulated_client import SimulatedClient
from simulated_mutants import LEFT_OUT, NAMES, mutated
from test_protocol import MUTANTS
from world import simulate

BLOCK = 25

CAUGHT_BY: Mapping[str, int] = {
    "a search does not widen": 1,
    "a worker takes STALE for done": 0,
    "a worker finishes before it writes": 1,
    "values are read before the generation is begun": 162,
    "the sweep forgets all tombstones": 0,
    "a trainer does not mind being fenced": 4,
    "the sweep does not mind dead letters": 3,
    "letters do not hold the floor": 3,
    "no fence": 0,
    "fence without live": 0,
    "fence without building": 0,
    "upserts unordered": 3,
    "upserts replayed": 7,
    "upserts below the floor": 52,
    "no tombstone": 0,
    "old members left by upserts": 0,
    "floor sinks": 3,
    "tombstones forgotten early": 0,
    "no bound": 0,
    "accepted twice": 2,
    "finished twice": 0,
    "leased to all": 2,
    "begun twice": 4,
    "horizon past pending": 0,
    "built at the first call": 3,
    "never built": 0,
    "live retired": 0,
    "two trainers": 0,
    "published twice": 1,
    "renewed by an older token": 0,
    "recorded without its learner": 0,
    "figures of any attempt": 3,
    "labels outlive a delete": 3,
    "receipts for ever": 0,
    "counts of nothing kept": 2,
    "tokens not remembered": 0,
    "a search learns of new buckets and does not gather again": 3,
    "a worker hashes for the live generation only": 10,
    "a re-indexer does not mind being fenced": 10,
    "a search does not check live": 56,
    "a search does not learn of new buckets": 52,
    "a search does not mind that a list was begun anew": 121,
    "recorded twice": 115,
    "figures after a failure": 546,
    "a forgotten number again": 9,
    "an abandoned number again": 79,
    "a search does not miss deleted candidates": 114,
}
"""A sample of the rules, with a seed that needs them."""


@pytest.fixture
def simulated(embedded_url: str) -> Iterator[SimulatedClient]:
    """Fast enough only on a real engine: in fakeredis each call of a script costs a millisecond."""
    with SimulatedClient(embedded_url) as client:
        yield client


@pytest.mark.parametrize("block", range(20))
def test_whatever_fails_between_two_commands_no_invariant_is_broken(block: int, simulated: SimulatedClient) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        try:
            simulate(simulated, seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_without_the_rule_an_invariant_is_broken(name: str, simulated: SimulatedClient) -> None:
    seeds = range(CAUGHT_BY[name], CAUGHT_BY[name] + 20)
    with mutated(name) as scripts:
        caught = next((seed for seed in seeds if _fails(simulated, seed, scripts)), None)
    assert caught is not None
    simulate(simulated, caught)  # with the rule in place nothing is wrong there


def _fails(client: SimulatedClient, seed: int, scripts: Mapping[str, str]) -> bool:
    try:
        simulate(client, seed, scripts)
    except Exception:  # noqa: BLE001 - a rule that is missing may show as anything
        return True
    return False


def test_a_seed_gives_the_same_run_again(simulated: SimulatedClient, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    send = SimulatedClient.send

    def noting(self: SimulatedClient, args: Any, options: dict[str, Any]) -> Any:
        sent.append(args)
        return send(self, args, options)

    monkeypatch.setattr(SimulatedClient, "send", noting)
    simulate(simulated, 7)
    first = list(sent)
    sent.clear()
    simulate(simulated, 7)
    assert sent == first


def test_what_is_taken_out_and_what_is_left_out_are_rules_that_there_are() -> None:
    assert set(LEFT_OUT) <= set(MUTANTS)
    assert set(CAUGHT_BY) <= set(NAMES)
