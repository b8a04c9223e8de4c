"""A trainer's cycle: single flight, what is unfinished first, nothing done twice, and leaving when it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
import training_support
from servers import wait_until
from training_support import digits, store

from stream_hash.client import Index
from stream_hash.clock import now_seconds
from stream_hash.errors import FencedError, GenerationGoneError, IndexMissingError, StreamHashError
from stream_hash.numerics.model import lsh_model
from stream_hash.queue import TRAIN_QUEUE, SafeQueue, TrainArgument, training_is_pending
from stream_hash.service import asking, schedule, training
from stream_hash.service import lease as lease_module
from stream_hash.service import trainer as trainer_module
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.lease import Lease, is_gone, leading
from stream_hash.service.schedule import Schedule, Trainers
from stream_hash.service.trainer import Cycle, Doing, Outcome, StoppedError, unfinished
from stream_hash.service.training import TrainingPlan, TrainingRun
from stream_hash.storage.trainer_board import TrainerBoard
from stream_hash.storage.trainer_state import Held, Lead

ITEMS = 900
PLAN = TrainingPlan()


@pytest.fixture
def connections(real_client: redis.Redis) -> Connections:
    return Connections(real_client, real_client)


@pytest.fixture
def handle(real_client: redis.Redis) -> IndexHandle:
    handle = training_support.opened(real_client)
    store(handle, digits()[0][:ITEMS], digits()[1][:ITEMS])
    return handle


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainingPlan]:
    """The plans that were trained by. In place of learning, the live model is published again: that is faster."""
    plans: list[TrainingPlan] = []

    def train(
        handle: IndexHandle,
        token: int,
        plan: TrainingPlan,
        *,
        reason: str,
        run_id: str | None,
        on_step: Callable[[str], None],
    ) -> TrainingRun:
        on_step("learning")
        plans.append(plan)
        handle.reload_states()
        parent = max(state.live for state in handle.states)
        generation = handle.trainer.publish(
            token, handle.models.load(parent), kind="lsh", created=float(len(plans)), parent=parent
        ).generation
        seen = handle.ledger.last_sequence()
        run = TrainingRun(
            *(run_id or f"run{len(plans)}", 1e12, 0.1, plan.learner, parent, generation, 7, 3, 2),
            *("live", "it is better", {}, reason, seen),
        )
        handle.trainer.checkpoint(token, run=run.to_dict())
        return run

    monkeypatch.setattr(training, "train", train)
    return plans


def cycle(handle: IndexHandle, **others: Any) -> Cycle:
    return Cycle(handle, handle.client, **others)


def train(handle: IndexHandle, **others: Any) -> Outcome:
    return cycle(handle, **others).train(PLAN, lambda: "asked for")


def leader(handle: IndexHandle) -> Held | None:
    return TrainerBoard(handle.client, handle.name).leader(0)


def clean(handle: IndexHandle, generation: int) -> None:
    index = Index(handle.name, Connections(handle.client, None))
    assert index.verify().violations == []
    assert index.status()["generation"] == generation
    assert not unfinished(handle)
    assert leader(handle) is None


def test_a_cycle_trains_re_indexes_clears_up_and_gives_the_lease_back(handle: IndexHandle) -> None:
    told: list[Doing] = []
    outcome = cycle(handle, on_doing=told.append).train(TrainingPlan(force=True), lambda: "asked for")
    assert outcome.run is not None
    assert (outcome.run.generation, outcome.run.asked) == (2, "asked for")
    assert (outcome.live, outcome.held) == (2, None)
    phases = list(dict.fromkeys(doing.phase for doing in told))
    assert phases == ["reading", "learning", "judging", "publishing", "storing", "re-indexing"]
    assert (told[-1].done, told[-1].of) == (ITEMS, ITEMS)
    clean(handle, 2)
    assert TrainerBoard(handle.client, handle.name).progress() is None


def test_without_a_reason_nothing_is_trained(handle: IndexHandle, trained: list[TrainingPlan]) -> None:
    assert cycle(handle).train(PLAN, lambda: None) == Outcome()
    assert trained == []


def test_while_another_is_the_trainer_nothing_is_done(handle: IndexHandle, trained: list[TrainingPlan]) -> None:
    with leading(IndexHandle(handle.client, handle.name)):
        outcome = train(handle)
        assert outcome.held is not None
        assert outcome.held == leader(handle)
        assert cycle(handle).resume().held == cycle(handle).rollback(1).held == outcome.held
    assert trained == []
    assert train(handle).live == 2


class DiedError(Exception):
    """The process dies here."""


@pytest.mark.parametrize("dies_at", ["re-indexing", "deleting what was replaced"])
def test_what_is_unfinished_comes_first_whoever_began_it(
    handle: IndexHandle, trained: list[TrainingPlan], monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    if dies_at != "re-indexing":  # or re-indexing would leave nothing to delete
        from stream_hash.service import reindex

        monkeypatch.setattr(reindex, "retire", lambda *_: None)

    def die(doing: Doing) -> None:
        if doing.phase == dies_at and (dies_at != "re-indexing" or (doing.done == 0 and doing.of)):
            raise DiedError

    with pytest.raises(DiedError):
        train(handle, on_doing=die)
    monkeypatch.undo()
    assert unfinished(handle)
    outcome = cycle(handle).train(PLAN, lambda: None)
    assert outcome.live == (2 if dies_at == "re-indexing" else None)
    clean(handle, 2)
    assert len(trained) == 1


def test_it_leaves_between_two_steps_when_it_is_told_to(handle: IndexHandle, trained: list[TrainingPlan]) -> None:
    phases: list[str] = []
    with pytest.raises(StoppedError):
        train(handle, on_doing=lambda doing: phases.append(doing.phase), stop=lambda: "re-indexing" in phases)
    assert phases == ["learning", "re-indexing"]
    assert leader(handle) is None
    assert cycle(handle).resume().live == 2
    clean(handle, 2)


def test_who_lost_the_lease_stops_and_changes_nothing(
    handle: IndexHandle, trained: list[TrainingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_MILLISECONDS", 0)  # as if it had been paused for long
    second = IndexHandle(handle.client, handle.name)

    def overtake(doing: Doing) -> None:
        if doing.phase == "re-indexing":
            assert cycle(second).resume().live == 2

    with pytest.raises(FencedError):
        train(handle, on_doing=overtake)
    clean(handle, 2)


def test_who_finds_what_was_live_forgotten_is_told_that_another_is_the_trainer(
    handle: IndexHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> TrainingRun:
        handle.trainer.lead("another", now=2**50, until=2**50 + 1)
        raise GenerationGoneError("generation 1 of index 'x' is out of use")

    monkeypatch.setattr(training, "train", gone)
    with pytest.raises(FencedError):
        cycle(handle).train(PLAN, lambda: "asked for")


def test_the_lease_is_kept_while_a_step_takes_long_and_its_loss_is_noticed(
    handle: IndexHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)
    with leading(handle) as lease:
        assert isinstance(lease, Lease)
        first = leader(handle)
        assert first is not None
        wait_until(lambda: getattr(leader(handle), "until", 0) > first.until, what="the lease to be renewed")
        lease.check()
        far = first.until + 10**9
        handle.trainer.lead("another", now=far, until=far + 1)
        wait_until(lambda: lease.lost, what="the loss to be noticed")
        with pytest.raises(FencedError):
            lease.check()
    found = leader(handle)
    assert found is not None
    assert found.holder == "another"


def test_the_lease_of_a_trainer_that_was_killed_here_is_not_waited_for(handle: IndexHandle) -> None:
    """As far as process numbers tell: not that of one that lives, nor of one whose number means something else here."""
    child = subprocess.run(
        [sys.executable, "-c", "from stream_hash.service.lease import holder_name; print(holder_name())"],
        capture_output=True,
        text=True,
        check=True,
    )
    gone = child.stdout.strip()
    host, process, numbers, unique = gone.rsplit(":", 3)
    far = 10**15
    for holder in (
        f"{host}:{os.getpid()}:{numbers}:{unique}",
        f"another-{host}:{process}:{numbers}:{unique}",
        f"{host}:{process}:another:{unique}",
        f"{host}:{process}::{unique}",
        f"{host}:{process}",
        f"{host}:{10**30}:{numbers}:{unique}",
        "",
    ):
        assert not is_gone(holder), holder
    taken = handle.trainer.lead(gone, now=0, until=far)
    assert isinstance(taken, Lead)
    with leading(handle) as lease:
        assert isinstance(lease, Lease)
        assert lease.token == taken.token + 1
        with leading(IndexHandle(handle.client, handle.name)) as other:
            assert isinstance(other, Held), "this process lives"
    with pytest.raises(FencedError):
        handle.trainer.renew(taken.token, until=far)


def test_where_the_kernel_does_not_tell_nobody_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "_process_numbers", lambda: "")
    monkeypatch.setattr(lease_module.os, "kill", lambda *_: pytest.fail("it looked all the same"))
    assert not is_gone(lease_module.holder_name())


def test_a_trainer_of_an_index_that_was_wiped_stops_and_changes_nothing(
    connections: Connections, handle: IndexHandle, trained: list[TrainingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)
    with leading(handle) as lease:
        assert isinstance(lease, Lease)
        handle.client.flushall()
        Index.create("x", handle.settings, connections)
        wait_until(lambda: lease.lost, what="the loss to be noticed")
        with pytest.raises(IndexMissingError):
            lease.check()
    with pytest.raises(IndexMissingError, match="not the one that was opened"):
        train(handle)
    assert (trained, handle.client.keys("sh:{x}:*")) == ([], [b"sh:{x}:settings"])


def test_a_rollback_gives_up_what_is_being_built(handle: IndexHandle, trained: list[TrainingPlan]) -> None:
    phases: list[str] = []
    with pytest.raises(StoppedError):
        train(handle, on_doing=lambda doing: phases.append(doing.phase), stop=lambda: "re-indexing" in phases)
    outcome = cycle(handle).rollback(1, reindex=False)
    assert (outcome.published, outcome.live) == (handle.trainer.target(), None)
    assert unfinished(handle)
    assert cycle(handle).resume().live == outcome.published
    clean(handle, outcome.published or 0)


def test_every_index_that_is_due_is_trained_and_what_fails_waits(
    connections: Connections, handle: IndexHandle, trained: list[TrainingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stream_hash.settings import IndexSettings

    Index.create("a-empty", IndexSettings(8), connections)
    Index.create("b-broken", IndexSettings(8), connections)
    looked: list[str] = []
    see_to = Trainers._see_to

    def noted(self: Trainers, name: str) -> None:
        looked.append(name)
        if name == "b-broken":
            raise ValueError("something unforeseen")
        see_to(self, name)

    monkeypatch.setattr(Trainers, "_see_to", noted)
    trainers = Trainers(connections, Schedule(interval_seconds=1e9, labels=ITEMS - 200), learner="ridge")
    trainers.look()
    assert looked == ["a-empty", "b-broken", "x"]
    assert [plan.learner for plan in trained] == ["ridge"]
    trainers.look()
    assert looked[3:] == ["a-empty", "x"]
    assert len(trained) == 1  # no label came since
    clean(handle, 2)
    trainers.stop = lambda: True
    trainers.look()
    assert len(looked) == 5


def request(connections: Connections, **plan: Any) -> tuple[str, str]:
    """A request of which nobody is told but by its argument."""
    argument = TrainArgument("r1", plan)
    return argument.request, str(argument)


def test_a_request_is_done_once_however_often_it_is_delivered(
    connections: Connections, handle: IndexHandle, trained: list[TrainingPlan]
) -> None:
    trainers = Trainers(connections)
    name, argument = request(connections, learner="svm", force=True)
    trainers.asked("x", argument)
    answer = TrainerBoard(connections.client, "x").answer_to(name)
    assert answer is not None
    assert (answer["error"], answer["run"]["generation"]) == (None, 2)
    trainers.asked("x", argument)
    assert trained == [replace(PLAN, learner="svm", force=True)]
    clean(handle, 2)


@pytest.mark.parametrize("before", ["the re-index", "the answer"])
def test_a_request_whose_trainer_died_after_training_is_not_trained_again(
    connections: Connections,
    handle: IndexHandle,
    trained: list[TrainingPlan],
    monkeypatch: pytest.MonkeyPatch,
    before: str,
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise DiedError

    name, argument = request(connections)
    with monkeypatch.context() as patched:
        patched.setattr(*((trainer_module, "reindex") if before == "the re-index" else (TrainerBoard, "answer")), die)
        with pytest.raises(DiedError):
            Trainers(connections).asked("x", argument)
    assert len(trained) == 1
    Trainers(connections).asked("x", argument)
    answer = TrainerBoard(connections.client, "x").answer_to(name)
    assert answer is not None
    assert (answer["error"], answer["run"]["generation"]) == (None, 2)
    assert len(trained) == 1
    clean(handle, 2)


def test_a_late_word_on_a_request_does_not_replace_the_first(
    connections: Connections, handle: IndexHandle, trained: list[TrainingPlan]
) -> None:
    """A trainer that was paused after it had trained, until the request was delivered again and done."""
    name, argument = request(connections)
    board = TrainerBoard(connections.client, "x")
    Trainers(connections).asked("x", argument)
    answer = board.answer_to(name)
    assert answer is not None
    board.answer(name, {"run": None, "error": ["it is fenced", "", ""]})
    assert board.answer_to(name) == answer


def test_a_rollback_is_not_undone_by_the_schedule(
    connections: Connections, handle: IndexHandle, trained: list[TrainingPlan]
) -> None:
    """Labels and the interval count anew from it, and a wish of before is void."""
    trainers = Trainers(connections, Schedule(interval_seconds=600, labels=ITEMS))
    another = lsh_model(replace(handle.settings, seed=9), digits()[0])
    with leading(handle) as lease:
        assert isinstance(lease, Lease)
        handle.trainer.publish(lease.token, another.to_arrays(), kind="lsh", created=0.0)
    assert cycle(handle).resume().live == 2
    handle.trainer.ask("answers became worse", now=now_seconds())
    assert cycle(handle).rollback(1).live == 3
    run = handle.trainer.runs(1)[0]
    assert (run["decision"], run["generation"], run["seen"]) == ("rolled back", 3, ITEMS)
    row = Index("x", connections).generations()[-1]
    assert (row["generation"], row["run"]["reason"]) == (3, "somebody went back to the model of generation 1")
    trainers.look()
    assert trained == [], "the wish and all labels are older than the rollback"
    store(handle, *(some[:10] for some in digits()), first=ITEMS)
    trainers.look()
    assert trained == [], "the interval counts from the rollback, and so do labels"
    store(handle, *(some[: ITEMS - 10] for some in digits()), first=ITEMS + 10)
    trainers.look()
    assert len(trained) == 1


def test_what_cannot_be_done_is_told_to_whoever_asked(connections: Connections, handle: IndexHandle) -> None:
    trainers = Trainers(connections)
    name, argument = request(connections)

    def fail(*_: Any, **__: Any) -> None:
        raise StreamHashError("it fails", why="so it is", remedy="none")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", fail)
        trainers.asked("x", argument)
    with pytest.raises(StreamHashError, match="it fails") as told:
        asking.wait_for(connections, "x", name, timeout_seconds=5, on_doing=lambda _: None)
    assert (told.value.why, told.value.remedy) == ("so it is", "none")
    trainers.asked("nowhere", argument)  # is logged, and leaves nothing
    assert connections.client.keys("sh:{nowhere}*") == []


def test_a_request_waits_for_another_trainer_unless_it_is_to_leave(
    connections: Connections, handle: IndexHandle, trained: list[TrainingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, argument = request(connections)
    trainers = Trainers(connections)
    waited: list[float] = []
    monkeypatch.setattr(schedule.time, "sleep", waited.append)
    trainers.stop = lambda: len(waited) >= 3
    with leading(handle), pytest.raises(StoppedError):
        trainers.asked("x", argument)
    assert trained == []


def test_whoever_waits_is_told_when_nobody_is_there_or_all_attempts_failed(
    connections: Connections, handle: IndexHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LOOK_SECONDS", 0.0)
    name = asking.request_training(connections, "x", {"learner": "svm"})
    assert training_is_pending(connections.broker, "x", name)

    def wait() -> None:
        asking.wait_for(connections, "x", name, timeout_seconds=5, on_doing=lambda _: None)

    with pytest.raises(StreamHashError, match="the trainers are gone") as told:
        wait()
    assert told.value.remedy == "start a trainer: stream-hash trainer"
    queue = SafeQueue(TRAIN_QUEUE, connections.broker)
    (job_id,) = queue.get_job_ids()
    connections.broker.hset(f"rq:job:{job_id}", "status", "failed")
    with pytest.raises(StreamHashError, match="has failed, several times"):
        wait()
    monkeypatch.setattr(asking, "trainers", lambda _: ["somebody"])
    connections.broker.hset(f"rq:job:{job_id}", "status", "queued")
    with pytest.raises(StreamHashError, match=r"was not trained in 0\.2 s"):
        asking.wait_for(connections, "x", name, timeout_seconds=0.2, on_doing=lambda _: None)


def test_the_notice_board_expires_and_holds_plain_json(connections: Connections, handle: IndexHandle) -> None:
    board = TrainerBoard(connections.client, "x")
    board.show({"phase": "learning"})
    board.answer("r1", {"run": None})
    assert board.progress() == {"phase": "learning"}
    for key in ("sh:{x}:progress", "sh:{x}:answer:r1"):
        assert 0 < connections.client.ttl(key) <= 3_600
        json.loads(connections.client.get(key) or b"")
    board.clear()
    assert (board.progress(), board.answer_to("other")) == (None, None)
