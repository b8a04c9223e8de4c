"""Scenarios of an index's trainer: the lease, publishing, checkpoints; the rules of storage/trainer_state.py."""

from __future__ import annotations

import numpy as np
import pytest
from protocol import Bench

from stream_hash.errors import FencedError, IndexMissingError, UsageError
from stream_hash.storage import trainer_state
from stream_hash.storage.trainer_state import Held, Lead, TrainerState

ONE, TWO = {"w": np.ones(3)}, {"w": np.full(3, 2.0)}


def trainer_of(bench: Bench) -> TrainerState:
    bench.models.publish(bench.nonce, 1, {"w": np.zeros(3)}, kind="lsh", created=0.0)
    return TrainerState(bench.client, "bench", bench.nonce, scripts=bench.scripts)


def one_trainer_at_a_time_has_the_lease(bench: Bench) -> None:
    trainer = trainer_of(bench)
    assert trainer.lead("x", now=100, until=200) == Lead(1)
    assert trainer.lead("y", now=199, until=300) == Held("x", 200)
    assert trainer.lead("x", now=150, until=250) == Lead(1)
    assert trainer.lead("y", now=249, until=300) == Held("x", 250)
    trainer.renew(1, until=400)
    assert trainer.lead("y", now=399, until=500) == Held("x", 400)
    assert trainer.lead("y", now=400, until=500) == Lead(2)
    assert trainer.lead("x", now=450, until=600) == Held("y", 500)


def a_lease_given_back_is_free_at_once(bench: Bench) -> None:
    trainer = trainer_of(bench)
    trainer.lead("x", now=100, until=200)
    trainer.release(1)
    assert trainer.lead("y", now=101, until=200) == Lead(2)
    with pytest.raises(FencedError):
        trainer.release(1)
    assert trainer.lead("x", now=102, until=200) == Held("y", 200)


def a_lease_is_taken_from_the_dead_and_from_nobody_else(bench: Bench) -> None:
    trainer = trainer_of(bench)
    trainer.lead("x", now=100, until=200)
    assert trainer.lead("y", now=101, until=200, gone="z") == Held("x", 200)
    assert trainer.lead("y", now=102, until=300, gone="x") == Lead(2)
    with pytest.raises(FencedError):
        trainer.renew(1, until=400)
    assert trainer.lead("z", now=103, until=400, gone="x") == Held("y", 300), "somebody was quicker"


def who_is_trainer_of_another_index_changes_nothing(bench: Bench) -> None:
    """The index was wiped and created again. Its token would do: the new index has given out none yet."""
    other = TrainerState(bench.client, "bench", "older nonce", scripts=bench.scripts)
    bench.models.publish(bench.nonce, 1, {"w": np.zeros(3)}, kind="lsh", created=0.0)
    calls = (
        lambda: other.lead("x", now=0, until=9),
        lambda: other.renew(7, until=10**6),
        lambda: other.release(7),
        lambda: other.publish(7, ONE, kind="grh", created=0.0),
        lambda: other.checkpoint(7, learner=b"x", run={"id": "r"}),
        lambda: other.forget(7, [], keep=0),
    )
    for number in range(2, 5):
        bench.models.publish(bench.nonce, number, {"w": np.zeros(3)}, kind="lsh", created=0.0)
    for _ in ("another of its name", "none"):
        before = bench.dump()
        for call in calls:
            with pytest.raises(IndexMissingError, match="not the one that was opened"):
                call()
            assert bench.dump() == before
        bench.client.delete(bench.store.keys.settings)


def who_was_trainer_before_changes_nothing(bench: Bench) -> None:
    trainer = trainer_of(bench)
    for token in range(1, 11):
        trainer.lead(f"t{token}", now=1_000 * token, until=0)
    before = bench.dump()
    calls = (
        lambda: trainer.renew(9, until=10**6),
        lambda: trainer.release(9),
        lambda: trainer.publish(9, ONE, kind="grh", created=0.0),
        lambda: trainer.checkpoint(9, learner=b"x", run={"id": "r"}),
        lambda: trainer.forget(9, [], keep=0),
    )
    for call in calls:
        with pytest.raises(FencedError, match="another trainer has taken over"):
            call()
        assert bench.dump() == before


def each_model_gets_the_next_number_and_is_the_target(bench: Bench) -> None:
    trainer = trainer_of(bench)
    trainer.lead("x", now=0, until=9)
    assert trainer.target() is None
    record = trainer.publish(1, ONE, kind="grh", created=5.0, parent=1, figures={"precision": 0.5})
    assert (record.generation, record.parent, record.origin, record.figures) == (2, 1, None, {"precision": 0.5})
    assert trainer.target() == 2
    assert bench.models.load(2)["w"].tolist() == [1, 1, 1]
    back = trainer.publish(1, {"w": np.zeros(3)}, kind="lsh", created=6.0, parent=2, origin=1)
    assert (back.generation, back.origin) == (3, 1)
    assert trainer.target() == 3
    for _ in range(9):  # as numbers, not as texts
        trainer.publish(1, {"w": np.full(3, trainer.target())}, kind="grh", created=7.0)
    assert trainer.target() == 12
    assert [r.generation for r in bench.models.records()] == list(range(1, 13))
    assert bench.models.records()[1] == record


def a_run_that_is_given_is_recorded_with_the_model_and_its_number(bench: Bench) -> None:
    trainer = trainer_of(bench)
    trainer.lead("x", now=0, until=9)
    started = 1_795_317_417.123456
    given = {"id": "back", "generation": None, "started": started, "reason": 'a "}', "figures": {}}
    assert trainer.publish(1, ONE, kind="lsh", created=5.0, origin=1, run=given).generation == 2
    assert trainer.runs() == [given | {"generation": 2}]
    trainer.publish(1, ONE, kind="lsh", created=5.0, origin=1, run=given)
    assert len(trainer.runs()) == 1, "it is the target already"
    trainer.publish(1, TWO, kind="lsh", created=6.0)
    assert len(trainer.runs()) == 1
    for number in range(trainer_state.RUNS_KEPT):
        trainer.publish(1, (ONE, TWO)[number % 2], kind="lsh", created=7.0, run=given)
    assert len(trainer.runs(1_000)) == trainer_state.RUNS_KEPT


def publishing_the_target_again_answers_its_number(bench: Bench) -> None:
    trainer = trainer_of(bench)
    trainer.lead("x", now=0, until=9)
    first = trainer.publish(1, ONE, kind="grh", created=5.0)
    before = bench.dump()
    assert trainer.publish(1, ONE, kind="grh", created=6.0) == first
    assert bench.dump() == before
    assert trainer.publish(1, TWO, kind="grh", created=7.0).generation == 3
    assert trainer.publish(1, ONE, kind="grh", created=8.0).generation == 4  # a rollback is a new generation


def a_first_generation_comes_first(bench: Bench) -> None:
    trainer = TrainerState(bench.client, "bench", bench.nonce, scripts=bench.scripts)
    trainer.lead("x", now=0, until=9)
    with pytest.raises(UsageError, match="no generation that another could follow"):
        trainer.publish(1, ONE, kind="grh", created=5.0)
    assert bench.models.records() == []


def a_run_is_recorded_once_with_its_learner(bench: Bench) -> None:
    trainer = trainer_of(bench)
    trainer.lead("x", now=0, until=9)
    assert trainer.learner() is None
    assert trainer.checkpoint(1, learner=b"\x00one", run={"id": "r1", "why": "labels"})
    assert trainer.learner() == b"\x00one"
    assert not trainer.checkpoint(1, learner=b"late", run={"id": "r1", "why": "again"})
    assert (trainer.learner(), trainer.runs()) == (b"\x00one", [{"id": "r1", "why": "labels"}])
    assert trainer.checkpoint(1, run={"id": "r2"})
    assert trainer.learner() == b"\x00one"
    assert trainer.checkpoint(1, learner=b"two")
    assert trainer.learner() == b"two"
    assert [run["id"] for run in trainer.runs()] == ["r2", "r1"]
    for number in range(trainer_state.RUNS_KEPT):
        trainer.checkpoint(1, run={"id": f"n{number}"})
    assert len(trainer.runs(1_000)) == trainer_state.RUNS_KEPT
    assert trainer.runs(1)[0]["id"] == "n99"


def old_generations_are_forgotten_but_for_those_in_use(bench: Bench) -> None:
    trainer = trainer_of(bench)
    trainer.lead("x", now=0, until=9)
    for number in range(2, 14):
        trainer.publish(1, {"w": np.full(3, number)}, kind="grh", created=0.0)
    assert trainer.forget(1, [2]) == [3, 1]
    assert [r.generation for r in bench.models.records()] == [2, *range(4, 14)]
    assert bench.client.exists(bench.store.keys.model(3)) == 0
    assert bench.client.exists(bench.store.keys.model(2)) == 1
    assert trainer.forget(1, [2]) == []
    bench.client.hset(bench.store.keys.trainer, "target", 5)
    trainer.forget(1, [], keep=0)
    assert [r.generation for r in bench.models.records()] == [5, 13]
    assert trainer.publish(1, ONE, kind="grh", created=0.0).generation == 14


SCENARIOS = (
    one_trainer_at_a_time_has_the_lease,
    a_lease_given_back_is_free_at_once,
    a_lease_is_taken_from_the_dead_and_from_nobody_else,
    who_is_trainer_of_another_index_changes_nothing,
    who_was_trainer_before_changes_nothing,
    each_model_gets_the_next_number_and_is_the_target,
    a_run_that_is_given_is_recorded_with_the_model_and_its_number,
    publishing_the_target_again_answers_its_number,
    a_first_generation_comes_first,
    a_run_is_recorded_once_with_its_learner,
    old_generations_are_forgotten_but_for_those_in_use,
)
