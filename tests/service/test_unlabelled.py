"""A model learned without labels goes through the same run, gate and re-index as any other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import redis
from threadpoolctl import threadpool_limits
from training_support import digits, go_live, lead, name, opened, store

from stream_hash.client import Index
from stream_hash.numerics import learned_signature
from stream_hash.numerics import unlabelled as learning
from stream_hash.service import window
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.newcomers import seen_by
from stream_hash.service.training import TrainingPlan, due, runs, train
from stream_hash.service.window import held_out_sample, is_held_out
from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import Client

PLAN = TrainingPlan(unlabelled=True)


@pytest.fixture(autouse=True)
def held_out_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(window, "HELD_OUT_SHARE", 0.25)
    monkeypatch.setattr(learned_signature, "LEAST", 500)
    with threadpool_limits(1):
        yield


def filled(client: Client, count: int = 900, **changes: object) -> IndexHandle:
    """An index of digits without labels."""
    handle = opened(client, **changes)
    store(handle, digits()[0][:count], [None] * count)
    return handle


def recall(client: Client, x: np.ndarray) -> float:
    index = Index("x", Connections(client, None))
    truth = [{result.id for result in answer.results} for answer in index.query(x, k=10, exact=True)]
    found = [{result.id for result in answer.results} for answer in index.query(x, k=10, budget=40)]
    return float(np.mean([len(one & other) / 10 for one, other in zip(truth, found, strict=True)]))


def test_without_any_label_more_of_the_nearest_are_found(client: Client, partitions: int) -> None:
    x, _ = digits()
    handle = filled(client, bits=10, tables=2, partitions=partitions)
    before = recall(client, x[900:950])
    token = lead(handle)
    run = train(handle, token, PLAN, reason="test")
    held_out = sum(is_held_out(name(position)) for position in range(900))
    assert (run.decision, run.learner, run.parent, run.generation) == ("live", "itq", 1, 2)
    assert (run.trained, run.held_out, run.classes) == (900 - held_out, held_out, 0)
    assert {state.live for state in handle.states} == {1}, "training alone moves nothing"
    go_live(handle, token, run.generation)
    assert recall(client, x[900:950]) > before + 0.1
    assert IndexHandle(client, "x").model(2).centroids is not None
    pruned, whole = (
        Index("x", Connections(client, None)).query(x[900:950], budget=600, fetch=fetch) for fetch in (60, None)
    )
    kept = [{r.id for r in a.results} & {r.id for r in b.results} for a, b in zip(pruned, whole, strict=True)]
    assert np.mean([len(one) / 10 for one in kept]) > 0.85, "a tenth of the vectors holds most of the nearest"
    assert Index("x", Connections(client, None)).verify().violations == []
    figures = run.figures
    assert figures["difference"] >= figures["lower_bound"] > 0.01
    assert figures["challenger_recall"] - figures["live_recall"] == pytest.approx(figures["difference"], abs=1e-5)
    assert 0.2 < figures["churn"] < 0.8
    assert "information" not in figures
    record = handle.models.records()[-1]
    assert (record.kind, record.parent, record.figures) == ("itq", 1, figures)
    assert [one.to_json() for one in runs(handle)] == [run.to_json()]


def test_the_gate_can_be_forced_and_a_dry_run_stores_nothing(handle: IndexHandle) -> None:
    token = lead(handle)
    unreachable = {"unlabelled": True, "margin": 0.99}
    dry = train(handle, token, TrainingPlan(dry_run=True, **unreachable), reason="test")
    assert (dry.decision, dry.generation, runs(handle)) == ("dry run", None, [])
    assert dry.reason.startswith("would be refused: recall@10")
    refused = train(handle, token, TrainingPlan(**unreachable), reason="test")
    assert (refused.decision, refused.generation) == ("refused", None)
    forced = train(handle, token, TrainingPlan(force=True, **unreachable), reason="test")
    assert (forced.decision, forced.generation, handle.trainer.target()) == ("forced", 2, 2)


def test_held_out_items_are_not_learned_from(handle: IndexHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[np.ndarray] = []
    itq_model = learning.itq_model

    def noted(settings: IndexSettings, sample: np.ndarray, seed: int) -> object:
        given.append(sample)
        return itq_model(settings, sample, seed)

    monkeypatch.setattr(learning, "itq_model", noted)
    run = train(handle, lead(handle), PLAN, reason="test")
    x, _ = digits()
    held_out = {x[position].tobytes() for position in range(900) if is_held_out(name(position))}
    assert len(given[0]) == run.trained > 600
    assert not held_out & {row.tobytes() for row in given[0]}
    judged = held_out_sample(handle, 50, np.random.default_rng(0))
    assert {row.tobytes() for row in judged} <= held_out
    assert 40 <= len(judged) <= 50
    few = train(handle, lead(handle, "u"), TrainingPlan(unlabelled=True, window=300, dry_run=True), reason="t")
    assert 180 < few.trained < 270, "the window bounds what is read"


def test_too_few_items_are_not_learned_from(handle: IndexHandle) -> None:
    run = train(handle, lead(handle), TrainingPlan(unlabelled=True, least=5_000), reason="test")
    assert (run.decision, run.generation) == ("skipped", None)
    assert "too few" in run.reason


def test_an_index_without_items_is_left_alone(real_client: redis.Redis) -> None:
    handle = opened(real_client)
    assert train(handle, lead(handle), PLAN, reason="test").reason == "the index has no items yet"


def test_labels_are_learned_from_after_it_as_if_it_had_not_been(handle: IndexHandle) -> None:
    x, y = digits()
    store(handle, x[900:], y[900:], first=900)
    token = lead(handle)
    run = train(handle, token, PLAN, reason="test")
    go_live(handle, token, run.generation)
    assert due(handle, interval=1e9, labels=897, now=run.started) == "897 new labels"
    assert seen_by(handle, 2) == 0, "of what it has seen no label, no class is new"
    labelled = train(handle, token, TrainingPlan("ridge", dry_run=True), reason="test")
    assert labelled.trained > 600
    before = train(handle, token, TrainingPlan("ridge", force=True), reason="test")
    learner = handle.trainer.learner()
    train(handle, token, TrainingPlan(unlabelled=True, force=True), reason="test")
    assert runs(handle)[0].seen == before.seen
    assert handle.trainer.learner() == learner, "the stored learner goes on later"


def test_a_run_that_died_before_it_was_recorded_finds_its_model_published(handle: IndexHandle) -> None:
    class DiedError(Exception):
        pass

    def die(step: str) -> None:
        if step == "storing":
            raise DiedError

    token = lead(handle)
    with pytest.raises(DiedError):
        train(handle, token, PLAN, reason="test", on_step=die)
    run = train(handle, token, PLAN, reason="test")
    assert (run.decision, run.generation) == ("live", 2)
    assert [record.generation for record in handle.models.records()] == [1, 2]
    assert json.loads(run.to_json())["figures"] == run.figures


@pytest.fixture
def handle(real_client: redis.Redis) -> IndexHandle:
    """900 digits without labels, on one engine: it does not matter which."""
    return filled(real_client)
