"""Scenarios of the tallies: the rules of storage/tallies.py, and when a batch arrived."""

from __future__ import annotations

from protocol import Bench

from stream_hash.storage.codec import Batch
from stream_hash.storage.ledger import DeadLetter
from stream_hash.storage.tallies import Tallies


def tallies_of(bench: Bench) -> Tallies:
    return Tallies(bench.client, "bench", scripts=bench.scripts)


def what_happens_to_a_batch_is_tallied_once(bench: Bench) -> None:
    tallies, ledger = tallies_of(bench), bench.ledger
    for _ in range(2):
        ledger.accept("x", Batch("delete", ["a", "b"]), lease_until=0)
    assert tallies.read() == {"batches": 1}
    ledger.begin("x", lease_until=0)
    assert tallies.read() == {"batches": 1, "deliveries": 1}
    ledger.release("x", now=0, failure="away", blame_server=True, kind="server")
    ledger.begin("x", lease_until=0)  # no attempt counts against it, and it is delivered again all the same
    ledger.begin("x", lease_until=0)
    for _ in range(2):
        ledger.finish("x", [DeadLetter(1, 1, "x", "why", b"")], tallies={"deleted": 1, "buried:invalid": 1})
    ledger.begin("x", lease_until=0)
    ledger.release("x", now=0, failure="late", blame_server=False)
    assert tallies.read() == {
        **{"batches": 1, "deliveries": 3, "retries": 2, "failed:server": 1},
        **{"deleted": 1, "buried:invalid": 1},
    }


def a_batch_that_died_with_its_worker_is_retried(bench: Bench) -> None:
    bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=0)
    bench.ledger.begin("x", lease_until=0)
    bench.ledger.begin("x", lease_until=0)
    assert tallies_of(bench).read().get("retries") == 1


def when_a_batch_arrived_is_known_while_it_is_pending(bench: Bench) -> None:
    key = bench.ledger._keys.arrived
    for _ in range(2):
        bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=0)
    assert int(bench.client.hget(key, "x")) > 1_500_000_000_000
    bench.ledger.finish("x")
    assert not bench.client.exists(key)


def what_a_process_counted_is_added_to_the_index_it_was_counted_in(bench: Bench) -> None:
    tallies, nonce = tallies_of(bench), bench.store.settings().nonce
    assert tallies.add(nonce, {"queries": 2, "microseconds": 10**15})
    assert tallies.add(nonce, {"queries": 3})
    assert not tallies.add("of another", {"queries": 7})
    assert tallies.read() == {"queries": 5, "microseconds": 10**15}


SCENARIOS = (
    what_happens_to_a_batch_is_tallied_once,
    a_batch_that_died_with_its_worker_is_retried,
    when_a_batch_arrived_is_known_while_it_is_pending,
    what_a_process_counted_is_added_to_the_index_it_was_counted_in,
)
