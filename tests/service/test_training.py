"""A model is learned from the labels of a live index, and goes live only if it is better."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import redis
from threadpoolctl import threadpool_limits
from training_support import digits, go_live, lead, name, opened, precision, store

from stream_hash.client import Index
from stream_hash.errors import FencedError, ModelMissingError, UsageError
from stream_hash.numerics.gate import Verdict
from stream_hash.numerics.grh import GRH
from stream_hash.service import candidates, training, window
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.items import label_items
from stream_hash.service.learner_state import LearnerState
from stream_hash.service.newcomers import REPEAT_LABELS, WISH_RUNS, Newcomers, barely_known
from stream_hash.service.quality import current
from stream_hash.service.training import TrainingPlan, TrainingRun, due, rollback, runs, train
from stream_hash.service.window import Examples, is_held_out
from stream_hash.settings import Metric
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys

STEPS = ("reading", "learning", "judging", "publishing", "storing")
RIDGE = TrainingPlan("ridge")


@pytest.fixture(autouse=True)
def small_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Landmarks and held-out items enough for digits; no threads that fight with other tests for the processors."""
    monkeypatch.setattr(candidates, "LANDMARKS", 150)
    monkeypatch.setattr(window, "HELD_OUT_SHARE", 0.25)
    with threadpool_limits(1):
        yield


def learned(count: int, first: int = 0) -> int:
    """How many of the items are not held out."""
    return sum(not is_held_out(name(position)) for position in range(first, first + count))


def taught(labels: np.ndarray) -> int:
    """How often the items that are not held out are learned from afresh, by a plain count of repetitions."""
    counts = np.unique([c for i, c in enumerate(labels) if not is_held_out(name(i))], return_counts=True)[1].tolist()
    return sum(count * max(1, round(sum(counts) / len(counts) / count)) for count in counts)


def stored(handle: IndexHandle) -> tuple[int, int]:
    """The stored learner's cursor, and how many labelled items it has counted."""
    raw = handle.trainer.learner()
    assert raw is not None
    state = LearnerState.from_bytes(raw)
    return state.cursor, int(GRH.from_arrays(state.arrays)._book.counts.sum())


def everything(client: Client) -> dict[bytes, Any]:
    """What the server holds; for servers without slots."""
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: read[client.type(key)](key) for key in client.scan_iter()}


@pytest.mark.parametrize("learner", ["pa", "ridge"])
def test_training_makes_answers_better(client: Client, learner: str, partitions: int) -> None:
    x, y = digits()
    handle = opened(client, partitions=partitions, bits=10, tables=2)
    store(handle, x, y)
    token = lead(handle)
    before = precision(client, x[:100], y[:100])
    run = train(handle, token, TrainingPlan(learner), reason="test")
    assert (run.decision, run.parent, run.generation, run.classes) == ("live", 1, 2, 10)
    assert (run.trained, run.held_out) == (learned(len(x)), len(x) - learned(len(x)))
    assert {state.live for state in handle.states} == {1}, "training alone moves nothing"
    go_live(handle, token, run.generation)
    assert precision(client, x[:100], y[:100]) > before + 0.02
    assert Index("x", Connections(client, None)).verify().violations == []
    figures = run.figures
    assert figures["difference"] >= figures["lower_bound"] > 0.01
    assert figures["challenger_precision"] - figures["live_precision"] == pytest.approx(figures["difference"], abs=1e-5)
    assert figures["budget"] == math.ceil(0.03 * run.held_out)
    assert 0.2 < figures["churn"] < 0.8
    assert figures["information"] > 0.2
    assert figures["constant_bits"] == figures["duplicate_bits"] == 0
    record = handle.models.records()[-1]
    assert (record.kind, record.parent, record.figures) == (f"grh-{learner}", 1, figures)


@pytest.mark.parametrize("learner", ["svm", "mlp"])
@pytest.mark.parametrize("metric", ["l2", "inner"])
def test_every_learner_serves_every_metric(real_client: redis.Redis, learner: str, metric: Metric) -> None:
    x, y = digits()
    handle = opened(real_client, metric=metric)
    store(handle, x[:900], y[:900])
    token = lead(handle)
    run = train(handle, token, TrainingPlan(learner, force=True), reason="test")
    assert run.decision in ("live", "forced")
    go_live(handle, token, run.generation)
    assert Index("x", Connections(real_client, None)).verify().violations == []
    store(handle, x[900:1000], y[900:1000], first=900)
    again = train(handle, token, TrainingPlan(learner), reason="test")
    assert again.trained == learned(1000), "these learners learn the window anew"


@pytest.mark.parametrize("learner", ["pa", "ridge"])
def test_random_labels_do_not_go_live(real_client: redis.Redis, learner: str) -> None:
    x, _ = digits()
    handle = opened(real_client)
    token = lead(handle)
    for seed in range(10):
        store(handle, x, np.random.default_rng(seed).integers(10, size=len(x)))
        run = train(handle, token, TrainingPlan(learner), reason="test")
        assert (run.decision, run.generation) == ("refused", None), run
    assert len(handle.models.records()) == 1
    assert "not above" in runs(handle)[0].reason


def test_force_lets_it_go_live(client: Client) -> None:
    x, _ = digits()
    handle = opened(client)
    store(handle, x[:600], np.random.default_rng(0).integers(10, size=600))
    run = train(handle, lead(handle), TrainingPlan("ridge", force=True), reason="test")
    assert (run.decision, run.generation, handle.trainer.target()) == ("forced", 2, 2)


def test_few_held_out_items_decide_nothing(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    store(handle, x[:300], y[:300])
    run = train(handle, lead(handle), RIDGE, reason="test")
    assert (run.decision, run.generation) == ("refused", None)
    assert "too few to decide" in run.reason
    assert run.figures["live_precision"] is None
    assert stored(handle)[1] == learned(300), "what was learned is kept all the same"


def test_a_dry_run_stores_nothing(real_client: redis.Redis) -> None:
    x, y = digits()
    handle = opened(real_client)
    store(handle, x, y)
    token = lead(handle)
    before = everything(real_client)
    run = train(handle, token, TrainingPlan("ridge", dry_run=True), reason="test")
    assert (run.decision, run.generation) == ("dry run", None)
    assert run.reason.startswith("would go live")
    assert run.figures["difference"] > 0.01
    assert everything(real_client) == before


@pytest.mark.parametrize(
    ("count", "label", "why"), [(0, 1, "no items"), (150, None, "too few"), (400, "same", "1 class")]
)
def test_what_nothing_can_be_learned_from_is_skipped(client: Client, count: int, label: object, why: str) -> None:
    x, y = digits()
    handle = opened(client)
    store(handle, x[:count], y[:count] if label is None else [label] * count)
    run = train(handle, lead(handle), RIDGE, reason="test", run_id="r1")
    assert (run.id, handle.trainer.runs()[0]["id"]) == ("r1", "r1")
    assert (run.decision, run.generation) == ("skipped", None)
    assert why in run.reason
    assert runs(handle) == [run]


class Watcher:
    """Counts the labelled items that learners are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fresh: list[int] = []
        self.continued: list[int] = []
        for method, given in (("fit", self.fresh), ("partial_fit", self.continued)):
            monkeypatch.setattr(GRH, method, self._counting(getattr(GRH, method), given))

    @staticmethod
    def _counting(method: Any, given: list[int]) -> Any:
        def counted(model: GRH, vectors: Any, labels: Any) -> GRH:
            given.append(sum(len(several) > 0 for several in labels))
            return method(model, vectors, labels)  # type: ignore[no-any-return]  # a GRH

        return counted


@pytest.mark.parametrize("learner", ["pa", "ridge"])
def test_a_learner_is_continued_with_what_came_since(
    client: Client, learner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    watcher = Watcher(monkeypatch)
    store(handle, x[:900], y[:900])
    train(handle, token, TrainingPlan(learner), reason="test")
    store(handle, x[900:], y[900:], first=900)
    assert watcher.continued == []
    train(handle, token, TrainingPlan(learner), reason="test")
    assert watcher.continued == [learned(len(x) - 900, 900)]
    label_items(handle, [name(5), name(6)], [3, 4])
    train(handle, token, TrainingPlan(learner), reason="test")
    assert watcher.continued[1:] == [learned(2, 5)]


def test_nothing_new_is_nothing_to_do(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    store(handle, x, y)
    run = train(handle, token, RIDGE, reason="test")
    assert run.decision == "live"
    go_live(handle, token, run.generation)
    again = train(handle, token, RIDGE, reason="test")
    assert (again.decision, again.reason) == ("skipped", "no label came since the run before")
    assert train(handle, token, TrainingPlan("ridge", force=True), reason="test").decision != "skipped"


@pytest.mark.parametrize(("learner", "step"), [*(("pa", step) for step in STEPS), ("ridge", "storing")])
def test_a_run_that_died_at_any_step_is_repeated_without_learning_twice(
    client: Client, learner: str, step: str
) -> None:
    class DiedError(Exception):
        pass

    def die(now: str) -> None:
        if now == step:
            raise DiedError

    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    plan = TrainingPlan(learner)
    store(handle, x[:300], y[:300])
    assert train(handle, token, plan, reason="test").decision == "refused", "too few held-out items"
    store(handle, x[300:], y[300:], first=300)
    with pytest.raises(DiedError):
        train(handle, token, plan, reason="test", on_step=die)
    assert stored(handle) == (300, learned(300)), "a learner goes with its cursor"
    assert len(runs(handle)) == 1
    reopened = IndexHandle(client, "x")
    run = train(reopened, token, plan, reason="again")
    assert (run.decision, run.generation, handle.trainer.target()) == ("live", 2, 2)
    assert stored(handle) == (len(x), learned(len(x)))
    assert runs(handle)[0].id == run.id
    go_live(handle, token, 2)
    assert train(handle, token, plan, reason="again").decision == "skipped"


def test_a_replaced_trainer_changes_nothing(real_client: redis.Redis) -> None:
    x, y = digits()
    handle = opened(real_client)
    store(handle, x, y)
    old = lead(handle, "old")
    lead(handle, "new")
    before = everything(real_client)
    with pytest.raises(FencedError):
        train(handle, old, RIDGE, reason="test")
    with pytest.raises(FencedError):
        rollback(handle, old, 1)
    assert everything(real_client) == before


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda handle: handle.client.set(IndexKeys("x").learner, b"no learner"), "damaged"),
        (lambda handle: handle.client.setrange(IndexKeys("x").learner, 5_000, b"zap"), "damaged"),
        (lambda handle: handle.client.setrange(IndexKeys("x").learner, 0, b"\xff"), "damaged"),
    ],
)
def test_a_learner_that_cannot_be_read_is_begun_afresh(client: Client, spoil: Any, why: str) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    store(handle, x[:500], y[:500])
    train(handle, token, RIDGE, reason="test")
    spoil(handle)
    run = train(handle, token, RIDGE, reason="test")
    assert run.figures["candidate"] == "fresh"
    assert why in run.reason
    assert stored(handle) == (500, taught(y[:500]))


def test_another_learner_begins_afresh(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    store(handle, x[:500], y[:500])
    train(handle, token, RIDGE, reason="test")
    run = train(handle, token, TrainingPlan("pa"), reason="test")
    assert run.figures["candidate"] == "fresh"
    assert "of kind 'ridge'" in run.reason
    assert stored(handle) == (500, taught(y[:500]))


def test_the_learner_of_an_index_that_is_gone_is_not_continued(real_client: redis.Redis) -> None:
    x, y = digits()
    handle = opened(real_client)
    store(handle, x[:500], y[:500])
    train(handle, lead(handle), RIDGE, reason="test")
    learner = handle.trainer.learner()
    assert learner is not None
    real_client.flushall()
    handle = opened(real_client)
    store(handle, x[500:1000], y[500:1000])
    handle.trainer.checkpoint(lead(handle), learner=learner)
    assert "of another index" in train(handle, lead(handle), RIDGE, reason="test").reason


@pytest.mark.parametrize("learner", ["pa", "ridge"])
def test_a_class_that_comes_later_is_learned(client: Client, learner: str) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    early = np.flatnonzero(y < 7)
    late = np.flatnonzero(y >= 7)
    plan = TrainingPlan(learner)
    store(handle, x[early], y[early])
    run = train(handle, token, plan, reason="test")
    assert (run.decision, run.classes) == ("live", 7)
    go_live(handle, token, run.generation)
    store(handle, x[late], y[late], first=len(early))
    before = precision(client, x[late[:100]], y[late[:100]], 30)
    run = train(handle, token, plan, reason="test")
    assert (run.decision, run.classes) == ("live", 10)
    go_live(handle, token, run.generation)
    assert precision(client, x[late[:100]], y[late[:100]], 30) > before


def test_looks_that_change_are_learned_again(client: Client) -> None:
    """All classes turn upside down, so that none had to be chosen; the gate decides as it does everywhere."""
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    store(handle, x[:700], y[:700])
    go_live(handle, token, train(handle, token, TrainingPlan(), reason="test").generation)
    changed, labels = x[700:].reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64), y[700:]
    store(handle, changed, labels, first=700)
    before = precision(client, changed[:300], labels[:300], 20)
    run = train(handle, token, TrainingPlan(), reason="test")
    assert run.decision == "live", run.reason
    go_live(handle, token, run.generation)
    assert precision(client, changed[:300], labels[:300], 20) > before + 0.02
    assert {"candidate", "other_precision"} <= set(run.figures)


def test_items_of_unknown_classes_are_newcomers_to_the_gate(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    early, late = np.flatnonzero(y < 9), np.flatnonzero(y == 9)
    store(handle, x[early], y[early])
    run = train(handle, token, RIDGE, reason="test")
    assert (run.figures["newcomers"], run.figures["newcomers_bound"]) == (0, None), "the first model knows none at all"
    go_live(handle, token, run.generation)
    store(handle, x[late], y[late], first=len(early))
    run = train(handle, token, RIDGE, reason="test")
    held_out = len(late) - learned(len(late), len(early))
    assert run.figures["newcomers"] == held_out > 15
    assert run.figures["newcomers_difference"] >= run.figures["newcomers_bound"]
    assert "queries are of new classes" in run.reason


def test_new_labels_of_unknown_classes_are_a_reason_to_train(client: Client) -> None:
    x, y = digits()
    handle, newcomers = opened(client), Newcomers()
    token = lead(handle)
    early, late = np.flatnonzero(y < 7), np.flatnonzero(y >= 7)
    store(handle, x[early], y[early])
    assert newcomers.due(handle) is None, "nothing was ever trained"
    go_live(handle, token, train(handle, token, RIDGE, reason="test").generation)
    handle.reload_states()
    store(handle, x[early[:100]], y[early[:100]], first=5_000)
    assert newcomers.due(handle) is None, "these classes are known"
    store(handle, x[late[:70]], y[late[:70]], first=6_000)
    assert newcomers.due(handle) is None, "some tens are too few"
    store(handle, x[late[70:90]], y[late[70:90]], first=6_070)
    why = newcomers.due(handle)
    assert why == "90 new labels are of classes that the model barely knows"
    assert newcomers.due(handle) == why, "it is asked again under the lease"
    train(handle, token, TrainingPlan("ridge", least=10**6), reason=why)
    assert newcomers.due(handle) is None, "it is granted"
    store(handle, x[late[90:110]], y[late[90:110]], first=6_090)
    assert newcomers.due(handle) is None, "a refused run is not tried again for a few"
    store(handle, x[late[110:130]], y[late[110:130]], first=6_110)
    assert newcomers.due(handle) is not None
    train(handle, token, TrainingPlan("ridge", least=10**6), reason="test")
    store(handle, x[late[130:260]], y[late[130:260]], first=6_130)
    train(handle, token, TrainingPlan("ridge", least=10**6), reason="test")
    store(handle, x[late[260:290]], y[late[260:290]], first=6_260)
    assert newcomers.due(handle) is None, "the more there were in vain, the more must come"


def test_a_class_is_barely_known_while_a_third_of_its_labels_are_newer_than_the_model() -> None:
    labels = [["old"]] * 100 + [["new"]] * 50 + [["old"]] * 40 + [["new"]] * 24
    sequences = list(range(1, len(labels) + 1))
    assert barely_known(labels, sequences, 0, {}).classes == set(), "the first model knows nothing, and is replaced"
    assert barely_known(labels, sequences, 100, {}).classes == {"new"}
    assert barely_known(labels, sequences, 150, {}).classes == set()
    assert barely_known([*labels, ["new"]], [*sequences, 500], 150, {}).classes == {"new"}, "75 of which 25 are new"


def test_of_a_class_that_changed_its_look_only_labels_since_then_count() -> None:
    labels, sequences = [["a"], ["b"]] * 150, list(range(1, 301))
    assert barely_known(labels, sequences, 260, {}).classes == set()
    known = barely_known(labels, sequences, 260, {"a": 241})
    assert known.classes == {"a"}
    assert known.holds(["a"], 241)
    assert not known.holds(["a"], 239), "an item of the old look"
    assert not known.holds(["b"], 299)
    assert not known.holds(["a", "b"], 299), "one of its classes is well known"
    assert not known.holds([], 299)


def test_a_class_that_has_changed_its_look_is_a_reason_to_train_and_judged_alone(client: Client) -> None:
    x, y = digits()
    handle, newcomers = opened(client), Newcomers()
    token = lead(handle)
    store(handle, x[:900], y[:900])
    go_live(handle, token, train(handle, token, RIDGE, reason="test").generation)
    handle.reload_states()
    store(handle, x[900:930], [3] * 30, first=900)
    assert newcomers.due(handle) is None, "a class that is known"
    summary = current(handle)
    summary.classes.changed["3"] = 911
    handle.quality.fold(handle.quality.read().folded, 901, summary.to_json())
    store(handle, x[930:1030], [3] * 100, first=930)
    assert "120 new labels" in str(newcomers.due(handle)), "those since the change"
    run = train(handle, token, RIDGE, reason="test")
    assert run.figures["newcomers"] == 120 - learned(120, 910), "its held-out items since then"
    assert "queries are of new classes" in run.reason


def test_rare_classes_and_a_new_look_are_learned_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [["a"]] * 100 + [["b"]] * 10 + [["c"]] * 100
    window = Examples(np.arange(210, dtype=np.float32)[:, None], labels, np.arange(1, 211))

    def times(changed: dict[str, int]) -> list[int]:
        return np.bincount(candidates._evened(window, changed).vectors[:, 0].astype(int)).tolist()

    assert times({}) == [1] * 100 + [7] * 10 + [1] * 100
    assert times({"c": 201}) == [1] * 100 + [5] * 10 + [1] * 90 + [5] * 10, "four looks of 52 items on the average"
    monkeypatch.setattr(candidates, "REPEATS", 3)
    assert max(times({})) == 3


def test_of_two_candidates_the_one_that_newcomers_gain_by_is_taken() -> None:
    verdict = Verdict(True, "", 0.5, 0.52, 0.02, 0.011, 500, 15)
    with_newcomers = replace(verdict, difference=0.01, newcomers=30, newcomers_difference=0.1, newcomers_bound=0.05)
    refused = replace(with_newcomers, accepted=False)
    assert max((refused, verdict, with_newcomers), key=training._merit) is with_newcomers


def test_a_wish_that_nothing_went_live_for_is_tried_again_some_times(client: Client) -> None:
    x, _ = digits()
    handle, newcomers = opened(client), Newcomers()
    token = lead(handle)
    rng = np.random.default_rng(0)
    store(handle, x[:600], rng.integers(10, size=600))
    assert newcomers.due(handle) is None
    handle.trainer.ask("drift", now=1)
    tried = 0
    while tried == 0 or newcomers.due(handle) is not None:
        assert train(handle, token, RIDGE, reason="test").decision == "refused"
        tried += 1
        assert newcomers.due(handle) is None, "nothing is new"
        store(handle, x[:60], rng.integers(10, size=60))
    assert tried == WISH_RUNS + 1


def recorded(handle: IndexHandle, token: int, number: int, decision: str, *, started: float, seen: int) -> None:
    """The record of a run in which nothing was learned."""
    what = TrainingRun(f"run {number}", started, 0.1, "pa", 1, None, 7, 3, 2, "refused", "", {}, "", seen)
    handle.trainer.checkpoint(token, run=what.to_dict() | {"decision": decision})


@pytest.mark.parametrize(
    ("asked", "decisions", "why"),
    [
        (5.0, ["refused", "refused"], "nothing went live since training was asked for"),
        (6.0, ["live", "refused"], "nothing went live since training was asked for"),
        (None, ["refused", "refused"], None),  # nobody asked
        (7.0, ["refused", "refused"], None),  # no run has begun since: it is due by the wish itself
        (5.0, ["live", "refused"], None),
        (5.0, ["refused", "live"], None),
        (5.0, ["refused", "forced"], None),
        (5.0, ["refused", "skipped"], None),
        (5.0, ["refused", "rolled back"], None),
    ],
)
def test_a_wish_is_tried_again_while_all_runs_since_were_refused(
    real_client: redis.Redis, asked: float | None, decisions: list[str], why: str | None
) -> None:
    """The runs began at 5 and 6 seconds."""
    x, y = digits()
    handle, newcomers = opened(real_client), Newcomers()
    token = lead(handle)
    store(handle, x[:100], y[:100])
    if asked is not None:
        handle.trainer.ask("drift", now=asked)
    for number, decision in enumerate(decisions):
        recorded(handle, token, number, decision, started=5.0 + number, seen=100)
    store(handle, x[:REPEAT_LABELS], y[:REPEAT_LABELS], first=100)
    assert newcomers.due(handle) == (why and f"{REPEAT_LABELS} new labels, and {why}")


@pytest.mark.parametrize(
    ("labels", "runs_since", "again"), [(0, 1, True), (-1, 1, False), (0, 10, True), (0, 11, False)]
)
def test_a_wish_is_tried_again_after_enough_labels_and_not_for_ever(
    real_client: redis.Redis, labels: int, runs_since: int, again: bool
) -> None:
    x, y = digits()
    handle, newcomers = opened(real_client), Newcomers()
    token = lead(handle)
    handle.trainer.ask("drift", now=1.0)
    for number in range(runs_since):
        recorded(handle, token, number, "refused", started=2.0 + number, seen=0)
    store(handle, x[: REPEAT_LABELS + labels], y[: REPEAT_LABELS + labels])
    assert (newcomers.due(handle) is not None) == again


def test_labels_of_every_kind_are_classes_of_their_own(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    several: list[object] = [[int(label), "even"] if label % 2 == 0 else str(label) for label in y[:600]]
    store(handle, x[:600], several)
    run = train(handle, lead(handle), RIDGE, reason="test")
    assert run.classes == 5 + 5 + 1


def test_a_rollback_publishes_a_kept_model_under_a_new_number(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    store(handle, x, y)
    go_live(handle, token, train(handle, token, RIDGE, reason="test").generation)
    first = handle.model(1).encode(x).codes
    assert rollback(handle, token, 1) == 3
    go_live(handle, token, 3)
    assert (handle.model(3).encode(x).codes == first).all()
    record = handle.models.records()[-1]
    assert (record.generation, record.kind, record.parent, record.origin) == (3, "lsh", 2, 1)
    assert rollback(handle, token, 3) == 3, "it is the target already"
    with pytest.raises(ModelMissingError, match="generation 9"):
        rollback(handle, token, 9)
    assert Index("x", Connections(client, None)).verify().violations == []


def test_ten_models_are_kept_and_the_live_one_in_any_case(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    store(handle, x[:300], y[:300])
    run = train(handle, token, TrainingPlan("ridge", force=True), reason="test")
    assert run.generation == 2
    assert rollback(handle, token, 1) == 3
    for generation in range(2, 13):  # the two models in turns
        assert rollback(handle, token, generation) == generation + 2
    kept = [record.generation for record in handle.models.records()]
    assert kept == [1, *range(5, 15)], "1 is live still"


def test_runs_are_recorded_as_they_were(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    store(handle, x, y)
    steps: list[str] = []
    run = train(handle, token, RIDGE, reason="because", on_step=steps.append)
    assert tuple(steps) == STEPS
    assert runs(handle) == [run]
    assert TrainingRun.from_json(run.to_json()) == run
    assert (run.asked, run.learner, run.seen) == ("because", "ridge", len(x))
    assert run.seconds > 0


@pytest.mark.parametrize("change", [{"learner": "forest"}, {"window": 0}, {"margin": -1.0}, {"held_out": 0}])
def test_plans_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainingPlan(**change)


def test_training_is_due_by_labels_by_time_and_when_asked_for(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    assert due(handle, interval=60, labels=500, now=1e12) is None, "there is nothing"
    store(handle, x[:400], y[:400])
    created = handle.models.records()[0].created
    assert due(handle, interval=60, labels=500, now=created + 59) is None
    assert "400 labels" in str(due(handle, interval=60, labels=500, now=created + 60))
    assert due(handle, interval=60, labels=400, now=created) == "400 new labels"
    run = train(handle, token, RIDGE, reason="test")
    assert due(handle, interval=60, labels=1, now=1e12) is None, "nothing is new"
    label_items(handle, [name(3)], [7])
    assert due(handle, interval=60, labels=2, now=run.started + 59) is None
    assert due(handle, interval=60, labels=2, now=run.started + 60) is not None
    handle.trainer.ask("drift", now=run.started - 1)
    assert due(handle, interval=60, labels=2, now=run.started + 1) is None, "granted already"
    handle.trainer.ask("drift", now=run.started + 1)
    assert due(handle, interval=60, labels=2, now=run.started + 2) == "drift"


def test_a_run_that_is_skipped_is_not_due_again_at_once(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    store(handle, x[:100], y[:100])
    assert due(handle, interval=1e9, labels=50, now=0) is not None
    assert train(handle, lead(handle), RIDGE, reason="test").decision == "skipped"
    assert due(handle, interval=1e9, labels=50, now=0) is None


def test_labels_that_are_not_all_applied_wait(client: Client) -> None:
    x, y = digits()
    handle = opened(client)
    token = lead(handle)
    store(handle, x[:300], y[:300])
    handle.ledger.accept("waits", Batch("delete", ["z"]), lease_until=0)
    store(handle, x[300:600], y[300:600], first=300)
    assert due(handle, interval=0, labels=300, now=0) == "300 new labels"
    run = train(handle, token, RIDGE, reason="test")
    assert (run.trained, run.seen) == (learned(300), 300)


def test_importing_the_service_imports_no_scikit_learn() -> None:
    program = "import sys, stream_hash.service.training; print('sklearn' in sys.modules, 'scipy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False False\n"
    assert training.train
