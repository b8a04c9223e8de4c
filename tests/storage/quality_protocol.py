"""Scenarios of live quality: the rules of storage/live_quality.py."""

from __future__ import annotations

import numpy as np
from protocol import Bench

from stream_hash.storage import live_quality
from stream_hash.storage.codec import Batch
from stream_hash.storage.live_quality import Figure, LiveQuality
from stream_hash.storage.trainer_state import TrainerState

ONE, TWO, THREE = Figure(1, 1, 0.5), Figure(2, 1, 2 / 3), Figure(3, 2, 1.0)


def quality_of(bench: Bench, *batches: str) -> LiveQuality:
    """Live quality of an index with these batches pending, of three items each, and begun once."""
    for name in batches:
        vectors = np.ones((3, 3), dtype=np.float32)
        bench.ledger.accept(name, Batch("upsert", ["a", "b", "c"], vectors), lease_until=0)
        bench.ledger.begin(name, lease_until=0)
    return LiveQuality(bench.client, "bench", bench.nonce, scripts=bench.scripts)


def figures_come_in_any_order_and_are_read_in_that_of_positions(bench: Bench) -> None:
    quality = quality_of(bench, "b")
    assert quality.read() == live_quality.Stored(0, b"", [])
    assert quality.add("b", [THREE, ONE]) == 2
    assert quality.add("b", [TWO]) == 1
    assert quality.read().figures == [ONE, TWO, THREE]
    assert quality.read(below=3).figures == [ONE, TWO]


def an_item_counts_once_and_the_first_time(bench: Bench) -> None:
    quality = quality_of(bench, "b")
    assert quality.add("b", [ONE]) == 1
    assert quality.add("b", [Figure(1, 2, 0.0), TWO]) == 1
    assert quality.read().figures == [ONE, TWO]


def after_the_end_of_the_first_attempt_nothing_is_added(bench: Bench) -> None:
    quality = quality_of(bench, "overtaken", "failed", "finished")
    bench.ledger.begin("overtaken", lease_until=0)
    bench.ledger.release("failed", now=0, failure="timeout", blame_server=True)
    bench.ledger.begin("failed", lease_until=0)
    bench.ledger.finish("finished")
    for name in ("overtaken", "failed", "finished", "unknown"):
        assert quality.add(name, [ONE]) == 0
    assert quality.read().figures == []


def without_anybody_to_fold_them_the_newest_are_kept(bench: Bench) -> None:
    quality = quality_of(bench, "b")
    kept = live_quality.FIGURES_KEPT
    quality.add("b", [Figure(position, 1, 0.5) for position in range(1, kept + 1)])
    quality.add("b", [Figure(kept + 1, 1, 0.5), Figure(kept + 2, 1, 0.5)])
    assert [figure.position for figure in quality.read().figures] == list(range(3, kept + 3))


def what_is_folded_is_gone_and_the_rest_stays(bench: Bench) -> None:
    quality = quality_of(bench, "b")
    quality.add("b", [ONE, TWO, THREE])
    assert quality.fold(0, 3, '{"of": 2}')
    assert quality.read() == live_quality.Stored(3, b'{"of": 2}', [THREE])


def who_read_an_older_summary_folds_nothing(bench: Bench) -> None:
    quality = quality_of(bench, "b")
    quality.add("b", [ONE, TWO, THREE])
    assert quality.fold(0, 2, "first")
    before = bench.dump()
    assert not quality.fold(0, 3, "second", ask=(1.0, "worse"))
    assert bench.dump() == before
    assert quality.fold(2, 4, "third")
    assert quality.read() == live_quality.Stored(4, b"third", [])


def figures_of_another_index_are_not_folded(bench: Bench) -> None:
    """Neither index has folded any yet: only the nonce tells them apart."""
    quality_of(bench, "b").add("b", [ONE])
    before = bench.dump()
    other = LiveQuality(bench.client, "bench", "older nonce", scripts=bench.scripts)
    assert not other.fold(0, 2, "of another", ask=(1.0, "worse"))
    assert bench.dump() == before
    bench.client.delete(bench.store.keys.settings)
    assert not quality_of(bench).fold(0, 2, "of none", ask=(1.0, "worse"))


def the_wish_to_train_is_stored_with_the_summary(bench: Bench) -> None:
    quality, trainer = quality_of(bench, "b"), TrainerState(bench.client, "bench", bench.nonce, scripts=bench.scripts)
    assert quality.fold(0, 2, "first")
    assert trainer.asked() is None
    assert quality.fold(2, 3, "second", ask=(1_234.5, "worse"))
    assert trainer.asked() == (1_234.5, "worse")


SCENARIOS = (
    figures_come_in_any_order_and_are_read_in_that_of_positions,
    an_item_counts_once_and_the_first_time,
    after_the_end_of_the_first_attempt_nothing_is_added,
    without_anybody_to_fold_them_the_newest_are_kept,
    what_is_folded_is_gone_and_the_rest_stays,
    who_read_an_older_summary_folds_nothing,
    figures_of_another_index_are_not_folded,
    the_wish_to_train_is_stored_with_the_summary,
)
