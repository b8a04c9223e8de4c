"""Scenarios of dead letters: rule 5 of storage/ledger.py, and what it rests on."""

from __future__ import annotations

import numpy as np
from protocol import LIVE, PARTITION_OF_A, SETTINGS, Bench

from stream_hash.storage.codec import Batch
from stream_hash.storage.ledger import Balance, DeadLetter, Lapsed, Retried
from stream_hash.storage.live_quality import Figure, LiveQuality
from stream_hash.storage.store import IGNORED, WRITTEN

BATCH = Batch("upsert", ["a", "b"], np.ones((2, 3), np.float32))


def buried(bench: Bench, name: str = "x", batch: Batch = BATCH, reason: str = "why") -> DeadLetter:
    """A batch that became a dead letter as a whole."""
    bench.ledger.accept(name, batch, lease_until=0)
    delivery = bench.ledger.begin(name, lease_until=0)
    assert delivery is not None
    letter = DeadLetter(delivery.first, len(batch), name, reason, delivery.payload)
    assert bench.ledger.finish(name, [letter])
    return letter


def retry(bench: Bench, letter: int, name: str = "again", *, anew: bool = False) -> Retried | Lapsed | None:
    return bench.ledger.retry(letter, name, now=7, lease_until=9, anew=anew)


def sweep(bench: Bench) -> None:
    """As the sweep does with floors and tombstones."""
    floor = bench.ledger.floor()
    for partition in range(SETTINGS.partitions):
        bench.store.purge(partition, floor)


def a_retried_letter_is_the_batch_it_was(bench: Bench) -> None:
    letter = buried(bench)
    assert bench.ledger.held([letter.first, 99]) == [True, False]
    assert retry(bench, letter.first) == Retried("again", letter.first)
    assert bench.ledger.balance() == Balance(2, 0, 2, 0, 1)
    assert bench.ledger.letter_numbers() == []
    assert bench.ledger.lease_overdue(8, 10) == []
    assert bench.ledger.oldest_arrival() == 7
    delivery = bench.ledger.begin("again", lease_until=0)
    assert delivery is not None
    assert (delivery.payload, delivery.first, delivery.items) == (letter.payload, letter.first, 2)
    assert (delivery.attempts, delivery.failure) == (1, "why")
    bench.ledger.finish("again")
    assert bench.ledger.balance() == Balance(2, 2, 0, 0, 0)
    assert bench.ledger.oldest_arrival() is None
    assert retry(bench, letter.first) == Retried("again", letter.first), "a repetition is told the same"
    assert retry(bench, letter.first, "another") is None
    assert bench.ledger.balance() == Balance(2, 2, 0, 0, 0)


def a_letter_that_dies_again_is_the_same_letter(bench: Bench) -> None:
    letter = buried(bench)
    retry(bench, letter.first)
    again = DeadLetter(letter.first, 2, "again", "still", letter.payload)
    bench.ledger.finish("again", [again])
    assert bench.ledger.dead_letters() == [again]
    assert bench.ledger.balance() == Balance(2, 0, 0, 2, 0)
    assert bench.ledger.held([letter.first]) == [True]


def a_repeated_retry_changes_nothing(bench: Bench) -> None:
    letters = [buried(bench, "x"), buried(bench, "y")]
    for letter, anew in zip(letters, (False, True), strict=True):
        name = f"again{anew}"
        outcome = retry(bench, letter.first, name, anew=anew)
        before = bench.dump()
        assert retry(bench, letter.first, name, anew=anew) == outcome
        assert bench.dump() == before


def a_retry_never_rolls_back_what_was_written_since(bench: Bench) -> None:
    """Not even if that is still on its way when the retry is applied."""
    letter = buried(bench)
    bench.upsert("a", 3, 5)
    retry(bench, letter.first)
    assert bench.upsert("a", letter.first, 4) == IGNORED
    assert bench.upsert("b", letter.first + 1, 4) == WRITTEN
    assert bench.upsert("b", 4, 6) == WRITTEN
    assert bench.buckets_of("a") == ["1:0:5", "1:1:6"]
    assert bench.buckets_of("b") == ["1:0:6", "1:1:7"]


def a_retry_never_brings_back_what_was_deleted_since(bench: Bench) -> None:
    """The tombstone stays as long as an older letter is held, however often it is swept."""
    letter = buried(bench)
    bench.ledger.accept("d", Batch("delete", ["a"]), lease_until=0)
    bench.delete("a", 3)
    bench.ledger.finish("d")
    sweep(bench)
    assert bench.ledger.floor() == letter.first
    assert bench.ledger.horizon() == 4
    retry(bench, letter.first)
    sweep(bench)
    assert bench.upsert("a", letter.first, 4) == IGNORED
    assert bench.upsert("b", letter.first + 1, 4) == WRITTEN
    bench.ledger.finish("again")
    sweep(bench)
    assert bench.ledger.floor() == 4
    assert bench.record("a") is None, "the tombstone is forgotten at last"


def a_late_writer_of_a_retried_batch_is_refused(bench: Bench) -> None:
    """It was paused until the batch was finished by another, the item deleted, and the tombstone forgotten."""
    letter = buried(bench)
    retry(bench, letter.first)
    bench.upsert("a", letter.first, 4)
    bench.ledger.finish("again")
    bench.ledger.accept("d", Batch("delete", ["a"]), lease_until=0)
    bench.delete("a", 3)
    bench.ledger.finish("d")
    sweep(bench)
    assert bench.record("a") is None
    assert bench.upsert("a", letter.first, 4) == IGNORED


def the_floor_stays_below_every_letter_that_is_held(bench: Bench) -> None:
    assert bench.ledger.floor() == 1
    assert not bench.ledger.holds_letters()
    first, second = buried(bench, "x"), buried(bench, "y")
    bench.ledger.accept("z", BATCH, lease_until=0)
    assert bench.ledger.holds_letters()
    assert (bench.ledger.floor(), bench.ledger.horizon()) == (first.first, 5)
    assert bench.ledger.drop(first.first) == 2
    assert bench.ledger.floor() == second.first
    retry(bench, second.first)
    assert bench.ledger.floor() == second.first
    bench.ledger.finish("again")
    assert bench.ledger.floor() == 5
    bench.ledger.finish("z")
    assert bench.ledger.floor() == bench.ledger.horizon() == 7


def a_letter_that_has_lapsed_is_not_retried_in_its_place(bench: Bench) -> None:
    old, new = buried(bench, "x"), buried(bench, "y")
    assert bench.ledger.lapse(new.first) == 1
    assert bench.ledger.held([old.first, new.first]) == [False, True]
    assert bench.ledger.floor() == new.first
    before = bench.dump()
    assert retry(bench, old.first) == Lapsed()
    assert bench.dump() == before
    assert retry(bench, new.first) == Retried("again", new.first)
    assert retry(bench, old.first, "anew", anew=True) == Retried("anew", 5)


def accepted_anew_a_letter_is_dropped_and_the_newest_write(bench: Bench) -> None:
    letter = buried(bench)
    bench.upsert("a", 3, 5)
    bench.ledger.accept("y", Batch("delete", ["c"]), lease_until=0)
    assert retry(bench, letter.first, anew=True) == Retried("again", 4)
    assert bench.ledger.balance() == Balance(5, 0, 3, 0, 2, 2)
    assert bench.ledger.held([letter.first]) == [False]
    delivery = bench.ledger.begin("again", lease_until=0)
    assert delivery is not None
    assert (delivery.first, delivery.failure) == (4, "")
    assert bench.upsert("a", 4, 6) == WRITTEN
    bench.ledger.finish("again")
    assert bench.ledger.balance() == Balance(5, 2, 1, 0, 1, 2)
    assert bench.ledger.last_sequence() == 5


def a_dropped_letter_is_counted(bench: Bench) -> None:
    letter = buried(bench)
    assert bench.ledger.drop(letter.first) == 2
    assert bench.ledger.balance() == Balance(2, 0, 0, 0, 0, 2)
    assert bench.ledger.balance().holds
    assert bench.ledger.letter_numbers() == []
    assert bench.ledger.held([letter.first]) == [False]
    assert bench.ledger.drop(letter.first) == 0
    assert retry(bench, letter.first) is None
    assert bench.ledger.balance() == Balance(2, 0, 0, 0, 0, 2)


def a_retried_batch_adds_no_figures_of_quality(bench: Bench) -> None:
    """Its numbers may be below those that were taken up already."""
    letter = buried(bench)
    quality = LiveQuality(bench.client, "bench", bench.nonce, scripts=bench.scripts)
    retry(bench, letter.first)
    bench.ledger.begin("again", lease_until=0)
    assert quality.add("again", [Figure(letter.first, 1, 0.5)]) == 0


def payloads_of_any_bytes_are_retried_as_they_are(bench: Bench) -> None:
    vectors = np.frombuffer(bytes(range(256)) * 3, np.float32).reshape(64, 3)
    letter = buried(
        bench, batch=Batch("upsert", [f"i\n{n}" for n in range(64)], vectors), reason='a "line"\nand another'
    )
    retry(bench, letter.first)
    delivery = bench.ledger.begin("again", lease_until=0)
    assert delivery is not None
    assert (delivery.payload, delivery.failure) == (letter.payload, letter.reason)


def the_newest_tombstones_are_counted(bench: Bench) -> None:
    assert bench.store.oldest_kept(PARTITION_OF_A, 1) == 0
    for sequence in (4, 6, 8):
        bench.store.delete(PARTITION_OF_A, LIVE, [f"t{sequence}"], [sequence])
    assert [bench.store.oldest_kept(PARTITION_OF_A, most) for most in (1, 2, 3)] == [6, 4, 0]


SCENARIOS = (
    a_retried_letter_is_the_batch_it_was,
    a_letter_that_dies_again_is_the_same_letter,
    a_repeated_retry_changes_nothing,
    a_retry_never_rolls_back_what_was_written_since,
    a_retry_never_brings_back_what_was_deleted_since,
    a_late_writer_of_a_retried_batch_is_refused,
    the_floor_stays_below_every_letter_that_is_held,
    a_letter_that_has_lapsed_is_not_retried_in_its_place,
    accepted_anew_a_letter_is_dropped_and_the_newest_write,
    a_dropped_letter_is_counted,
    a_retried_batch_adds_no_figures_of_quality,
    payloads_of_any_bytes_are_retried_as_they_are,
    the_newest_tombstones_are_counted,
)
