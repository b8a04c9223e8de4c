"""Arriving labelled items are queries first; what they find is a series, and its drop a reason to train."""

from __future__ import annotations

import json
import logging
from typing import Any

import fakeredis
import numpy as np
import oracle
import pytest
import redis
from training_support import digits, lead, name, opened

from stream_hash import jobs
from stream_hash.client import Index
from stream_hash.errors import IntegrityError, StreamHashError
from stream_hash.numerics.prequential import FIRST_LENGTH, MOST_POINTS
from stream_hash.service import scoring
from stream_hash.service.allowance import Allowance
from stream_hash.service.answer import Result
from stream_hash.service.class_quality import CLASSES, LONGEST_NAME, ClassQuality
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.quality import GENERATIONS, Summary, current, fold
from stream_hash.service.rollback import rollback
from stream_hash.service.schedule import Schedule, Trainers
from stream_hash.service.scoring import Scorer, precision
from stream_hash.service.search import Searcher
from stream_hash.service.sweep import sweep
from stream_hash.service.training import TrainingPlan, due, train
from stream_hash.settings import parse_label
from stream_hash.storage import live_quality
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.discard import discard
from stream_hash.storage.live_quality import Figure


@pytest.fixture
def all_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time enough, and room enough: every labelled item is scored."""
    monkeypatch.setattr(scoring, "SHARE", 1e9)
    monkeypatch.setattr(scoring, "SAVED_SECONDS", 1e9)
    monkeypatch.setattr(scoring, "QUERIES", 1_000)


def accepted(handle: IndexHandle, x: np.ndarray, labels: list[Any], first: int = 0, batch: str = "") -> str:
    texts = ["" if label is None else json.dumps(label) for label in labels]
    names = [name(first + position) for position in range(len(x))]
    batch = batch or f"b{first}-{handle.ledger.last_sequence()}"
    handle.ledger.accept(batch, Batch("upsert", names, x, texts, None), lease_until=0)
    return batch


def warm(scorer: Scorer) -> Scorer:
    """It knows what a query takes, and so does not begin with one."""
    scorer._allowance.spend(1e-9, 1)
    return scorer


def arrive(handle: IndexHandle, scorer: Scorer, x: np.ndarray, labels: list[Any], size: int, first: int = 0) -> None:
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        apply_batch(handle, accepted(handle, x[part], labels[part], first + start), scorer=scorer)


def plain_figures(
    handle: IndexHandle, x: np.ndarray, labels: list[Any], size: int, names: list[str]
) -> dict[int, float]:
    """By position: of the ten nearest items that were stored before its batch, the share of the labelled ones that
    share a class. With fewer items than the budget, nothing is missed.
    """
    held: dict[str, tuple[np.ndarray, Any]] = {}
    figures = {}
    for start in range(0, len(x), size):
        for at in range(start, min(start + size, len(x))):
            if labels[at] is None or not held:
                continue
            ids = sorted(held)
            vectors = np.array([held[i][0] for i in ids])
            ranked = oracle.naive_search(x[at], ids, vectors, handle.settings.metric, len(ids))
            others = [held[i][1] for i in ranked if i != names[at]][:10]
            judged = [label for label in others if label is not None]
            if judged:
                figures[at + 1] = sum(bool(set(_set(labels[at])) & set(_set(label))) for label in judged) / len(judged)
        for at in range(start, min(start + size, len(x))):
            held[names[at]] = (x[at], labels[at])
    return figures


def _set(label: Any) -> list[Any]:
    return label if isinstance(label, list) else [label]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_figures_are_those_of_plain_queries_before_each_store(
    client: Client, all_scored: None, partitions: int, metric: str
) -> None:
    x, y = digits()
    handle = opened(client, partitions=partitions, metric=metric)
    rng = np.random.default_rng(0)
    labels = [None if rng.random() < 0.4 else [int(c), str(c), 77] if rng.random() < 0.1 else int(c) for c in y[:120]]
    scorer = warm(Scorer())
    arrive(handle, scorer, x[:120], labels, 20)
    found = {figure.position: figure.precision for figure in handle.quality.read().figures}
    expected = plain_figures(handle, x[:120], labels, 20, [name(at) for at in range(120)])
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(found) > 50


def test_an_item_that_comes_again_does_not_find_itself(client: Client, all_scored: None) -> None:
    x, y = digits()
    handle = opened(client)
    scorer = warm(Scorer())
    arrive(handle, scorer, x[:40], y[:40].tolist(), 40)
    arrive(handle, scorer, x[:40], y[:40].tolist(), 40)
    expected = plain_figures(
        handle, np.concatenate([x[:40]] * 2), y[:40].tolist() * 2, 40, [name(at % 40) for at in range(80)]
    )
    found = {figure.position: figure.precision for figure in handle.quality.read().figures}
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(found) == 40, "the first batch met an empty index"


def test_a_batch_that_is_delivered_again_counts_once(client: Client, all_scored: None) -> None:
    x, y = digits()
    handle, scorer = opened(client), warm(Scorer())
    arrive(handle, scorer, x[:30], y[:30].tolist(), 30)
    batch = accepted(handle, x[30:60], y[30:60].tolist(), 30)
    one = handle.ledger.begin(batch, lease_until=0)
    assert one is not None
    payload = Batch("upsert", [name(at) for at in range(30, 60)], x[30:60], [json.dumps(int(c)) for c in y[30:60]])
    scorer.score(handle, one, payload)
    before = handle.quality.read()
    assert len(before.figures) == 30
    scorer.score(handle, one, payload)  # the server failed, and the attempt did not count
    apply_batch(handle, batch, scorer=scorer)  # by another worker, for the first was thought to be dead
    scorer.score(handle, one, payload)  # it was not
    assert handle.quality.read() == before
    assert fold(handle, handle.ledger.horizon())
    scorer.score(handle, one, payload)
    assert handle.quality.read().figures == []
    assert len(current(handle).series) == 30


def test_a_second_attempt_is_not_scored(client: Client, all_scored: None) -> None:
    x, y = digits()
    handle, scorer = opened(client), warm(Scorer())
    arrive(handle, scorer, x[:30], y[:30].tolist(), 30)
    batch = accepted(handle, x[30:60], y[30:60].tolist(), 30)
    handle.ledger.begin(batch, lease_until=0)  # by a worker that died: it may have written some of it
    assert apply_batch(handle, batch, scorer=scorer) is not None
    assert handle.quality.read().figures == []


def test_what_cannot_be_stored_is_no_query_and_the_rest_is(client: Client, all_scored: None) -> None:
    x, y = digits()
    handle, scorer = opened(client), warm(Scorer())
    arrive(handle, scorer, x[:30], y[:30].tolist(), 30)
    damaged = x[30:60].copy()
    damaged[3] = np.nan
    batch = accepted(handle, damaged, y[30:60].tolist(), 30)
    applied = apply_batch(handle, batch, scorer=scorer)
    assert applied is not None
    assert list(applied.rejected) == [3]
    positions = [figure.position for figure in handle.quality.read().figures]
    assert positions == [position for position in range(31, 61) if position != 34]
    apply_batch(handle, accepted(handle, x[60:62, :10], [1, 2], 60), scorer=scorer)
    assert len(handle.quality.read().figures) == 29


@pytest.mark.parametrize("error", [StreamHashError("no"), redis.exceptions.TimeoutError("late"), ValueError("x")])
@pytest.mark.parametrize("where", ["search", "add"])
def test_a_batch_is_applied_though_scoring_fails_and_the_log_says_so(
    client: Client,
    all_scored: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    where: str,
) -> None:
    x, y = digits()
    handle, seconds = opened(client), [0.0]
    scorer = warm(Scorer(lambda: seconds[0]))
    arrive(handle, scorer, x[:30], y[:30].tolist(), 30)
    calls = []

    def fails(*args: Any) -> Any:
        calls.append(args)
        raise error

    if where == "search":
        monkeypatch.setattr(Searcher, "search", fails)
    else:
        monkeypatch.setattr(handle.quality, "add", fails)
    seconds[0] += 1
    with caplog.at_level(logging.ERROR):
        arrive(handle, scorer, x[30:60], y[30:60].tolist(), 10, first=30)
    assert handle.ledger.balance().applied == 60
    assert len(calls) == 1, "it is left alone for a while"
    assert "is not scored" in caplog.text
    seconds[0] += scoring.PAUSE_SECONDS + 1
    arrive(handle, scorer, x[60:70], y[60:70].tolist(), 10, first=60)
    assert len(calls) == 2


def test_few_items_of_a_batch_are_scored_each_time_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SHARE", 1e9)
    monkeypatch.setattr(scoring, "SAVED_SECONDS", 1e9)
    x, y = digits()
    handle, scorer = opened(client), warm(Scorer())
    arrive(handle, scorer, x[:700], y[:700].tolist(), 100)
    positions = np.array([figure.position for figure in handle.quality.read().figures]) - 1
    assert np.bincount(positions // 100).tolist() == [0, *[scoring.QUERIES] * 6]
    assert len(set((positions % 100).tolist())) > 15


def test_without_labels_and_for_deletes_nothing_is_asked(client: Client, all_scored: None) -> None:
    x, y = digits()
    handle, scorer = opened(client), warm(Scorer())
    arrive(handle, scorer, x[:30], y[:30].tolist(), 30)
    arrive(handle, scorer, x[30:60], [None] * 30, 30, first=30)
    handle.ledger.accept("d", Batch("delete", [name(1)]), lease_until=0)
    apply_batch(handle, "d", scorer=scorer)
    handle.ledger.accept("l", Batch("label", [name(2)], labels=["3"]), lease_until=0)
    apply_batch(handle, "l", scorer=scorer)
    assert handle.quality.read().figures == []


def test_what_is_unlabelled_is_not_judged() -> None:
    def result(label: Any) -> Result:
        return Result("i", 1.0, label, None)

    assert precision(3, [result(3), result(4), result(None), result([3, 5])]) == pytest.approx(2 / 3)
    assert precision("3", [result(3)]) == 0.0
    assert precision([1, 2], [result([2, 9])]) == 1.0
    assert precision(3, [result(None)]) is None
    assert precision(parse_label("7"), []) is None


def test_an_allowance_gives_its_share_of_the_time_and_no_more() -> None:
    seconds = [0.0]
    allowance = Allowance(0.05, 0.1, lambda: seconds[0])
    assert allowance.grant(4) == 0, "no time has passed"
    spent = 0.0
    for _ in range(20_000):
        seconds[0] += 0.01
        units = allowance.grant(4)
        if units:
            allowance.spend(0.003 * units, units)
            seconds[0] += 0.003 * units
            spent += 0.003 * units
    assert 0.045 < spent / seconds[0] <= 0.0505
    seconds[0] += 1_000
    assert allowance.grant(1_000) == 33, "idle time is saved up to a bound"


def test_an_allowance_grants_what_takes_longer_than_it_saves_one_at_a_time() -> None:
    seconds = [0.0]
    allowance = Allowance(0.05, 0.1, lambda: seconds[0])
    granted = 0
    for _ in range(1_000):
        seconds[0] += 0.1
        if units := allowance.grant(4):
            assert units == 1
            allowance.spend(0.5, 1)
            granted += 1
    assert 8 <= granted <= 11


def filled(handle: IndexHandle, precisions: list[float], first: int = 1, generation: int = 1) -> None:
    """Figures as a worker's that scored a batch of as many items, which is then finished."""
    vectors = np.ones((len(precisions), 64), dtype=np.float32)
    ids = [name(at) for at in range(len(precisions))]
    position = handle.ledger.accept(f"f{first}", Batch("upsert", ids, vectors), lease_until=0).first
    assert position == first
    handle.ledger.begin(f"f{first}", lease_until=0)
    handle.quality.add(f"f{first}", [Figure(first + at, generation, figure) for at, figure in enumerate(precisions)])
    handle.ledger.finish(f"f{first}")


def test_the_summary_is_the_same_whenever_and_by_whomever_figures_are_taken_up(client: Client) -> None:
    rng = np.random.default_rng(0)
    figures = [round(float(f), 6) for f in rng.random(900)]
    handle = opened(client)
    for start in range(0, 900, 90):
        filled(handle, figures[start : start + 90], first=start + 1)
        if rng.random() < 0.5:
            fold(handle, handle.ledger.horizon())
    plain = Summary()
    for at, figure in enumerate(figures):
        plain.add(Figure(at + 1, 1, figure))
    assert current(handle).to_json() == plain.to_json()
    fold(handle, handle.ledger.horizon())
    assert current(handle).to_json() == plain.to_json()
    assert not fold(handle, handle.ledger.horizon())
    assert Summary.from_json(plain.to_json().encode()).to_json() == plain.to_json()


def test_figures_above_a_pending_batch_wait_for_it(client: Client) -> None:
    handle = opened(client)
    vectors = np.ones((5, 64), dtype=np.float32)
    for batch in ("early", "late"):
        handle.ledger.accept(batch, Batch("upsert", list("abcde"), vectors), lease_until=0)
        handle.ledger.begin(batch, lease_until=0)
    handle.quality.add("late", [Figure(7, 1, 1.0)])
    handle.ledger.finish("late")
    assert not fold(handle, handle.ledger.horizon())
    handle.quality.add("early", [Figure(2, 1, 0.0)])
    handle.ledger.finish("early")
    assert fold(handle, handle.ledger.horizon())
    assert current(handle).by_generation == {1: (1.0, 2)}


def test_two_that_take_up_the_same_figures_count_them_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    handle, other = opened(client), IndexHandle(client, "x")
    filled(handle, [0.5] * 40)
    read = handle.quality.read

    def overtaken(**options: Any) -> Any:
        stored = read(**options)
        fold(other, other.ledger.horizon())
        return stored

    monkeypatch.setattr(handle.quality, "read", overtaken)
    assert not fold(handle, handle.ledger.horizon())
    assert len(current(other).series) == 40


def test_what_is_kept_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = opened(client)
    monkeypatch.setattr(live_quality, "FIGURES_KEPT", 50)
    for start in range(0, 200, 40):
        filled(handle, [0.5] * 40, first=start + 1)
    assert [figure.position for figure in handle.quality.read().figures] == list(range(151, 201))
    summary = Summary()
    for at in range(2 * MOST_POINTS * FIRST_LENGTH):
        summary.add(Figure(at, at // 500, 0.3 + 0.1 * (at % 5)))
    assert len(summary.series.points) <= MOST_POINTS
    assert len(summary.by_generation) == GENERATIONS
    assert len(summary.to_json()) < 20_000


def test_a_damaged_summary_begins_anew_and_a_damaged_figure_is_left_out(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    handle = opened(client)
    filled(handle, [0.5] * 30)
    client.hset(handle.store.keys.quality, "summary", b'{"series": 3}')
    client.zadd(handle.store.keys.figures, {"[1, 2]": 1, "[2, 1, 7.0]": 2, "?": 3})
    assert fold(handle, handle.ledger.horizon())
    assert "begins anew" in caplog.text
    assert "is no figure" in caplog.text
    assert len(current(handle).series) == 30
    assert client.zcard(handle.store.keys.figures) == 0


def test_a_drop_asks_for_training_and_a_training_grants_it(client: Client, all_scored: None) -> None:
    x, y = digits()
    handle, scorer = opened(client), warm(Scorer())
    arrive(handle, scorer, x[:700], y[:700].tolist(), 50)
    sweep(handle, lambda *_: True, lambda *_: None)
    high = current(handle).drift.mean
    assert high > 0.7
    assert due(handle, interval=1e12, labels=10**6, now=0) is None
    # each class now looks as another one did
    arrive(handle, scorer, x[700:1000], ((y[700:1000] + 1) % 10).tolist(), 50, first=700)
    sweep(handle, lambda *_: True, lambda *_: None)
    why = due(handle, interval=1e12, labels=10**6, now=0)
    assert "became worse" in str(why)
    run = train(handle, lead(handle), TrainingPlan("ridge", least=10**6), reason=str(why))
    assert (run.decision, run.asked) == ("skipped", why)
    assert due(handle, interval=1e12, labels=10**6, now=0) is None, "it is granted"


def test_a_worse_model_asks_for_training(client: Client) -> None:
    handle = opened(client)
    rng = np.random.default_rng(1)
    filled(handle, (rng.binomial(10, 0.6, 500) / 10).tolist(), generation=3)
    fold(handle, handle.ledger.horizon())
    assert handle.trainer.asked() is None
    filled(handle, (rng.binomial(10, 0.45, 300) / 10).tolist(), first=501, generation=4)
    fold(handle, handle.ledger.horizon())
    assert handle.trainer.asked() is not None
    by_generation = [current(handle).of_generation(generation) for generation in (3, 4, 5)]
    assert [round(found["precision"], 1) if found else None for found in by_generation] == [0.6, 0.5, None]


@pytest.mark.parametrize(("answered_by", "asks"), [(4, False), (5, True)])
def test_a_drop_of_what_was_gone_back_from_asks_for_nothing(
    real_client: redis.Redis, answered_by: int, asks: bool
) -> None:
    """Its last figures are taken up after the rollback, which made generation 5."""
    handle, rng = opened(real_client), np.random.default_rng(1)
    filled(handle, (rng.binomial(10, 0.6, 500) / 10).tolist(), generation=3)
    fold(handle, handle.ledger.horizon())
    token = lead(handle)
    handle.begin_first_generation(np.ones((1, 64), dtype=np.float32))
    for generation in (2, 3, 4):
        handle.trainer.publish(token, {"w": np.full(1, generation)}, kind="lsh", created=0.0)
    assert rollback(handle, token, 3) == 5
    filled(handle, (rng.binomial(10, 0.45, 300) / 10).tolist(), first=501, generation=answered_by)
    fold(handle, handle.ledger.horizon())
    assert (handle.trainer.asked() is not None) == asks


def of_class(handle: IndexHandle, label: str, mean: float, count: int, rng: np.random.Generator) -> None:
    """Figures of items of one class, among as many of another that stays as it is."""
    precisions = np.stack([rng.binomial(10, mean, count), rng.binomial(10, 0.6, count)], axis=1).ravel() / 10
    first = handle.ledger.last_sequence() + 1
    vectors = np.ones((2 * count, 64), dtype=np.float32)
    ids = [name(at) for at in range(2 * count)]
    handle.ledger.accept(f"c{first}", Batch("upsert", ids, vectors), lease_until=0)
    handle.ledger.begin(f"c{first}", lease_until=0)
    labels = [label, "other"] * count
    found = [Figure(first + at, 1, figure, labels[at]) for at, figure in enumerate(precisions.tolist())]
    handle.quality.add(f"c{first}", found)
    handle.ledger.finish(f"c{first}")
    fold(handle, handle.ledger.horizon())


def test_a_class_that_drops_alone_asks_for_training_and_is_dated(client: Client) -> None:
    handle, rng = opened(client), np.random.default_rng(1)
    of_class(handle, "3", 0.8, 100, rng)
    assert (handle.trainer.asked(), current(handle).classes.changed) == (None, {})
    of_class(handle, "3", 0.5, 30, rng)
    asked = handle.trainer.asked()
    assert asked is not None
    assert "class 3 became worse" in asked[1]
    ((changed, since),) = current(handle).classes.changed.items()
    assert changed == "3"
    assert 180 <= since <= 215
    state = current(handle)
    assert Summary.from_json(state.to_json().encode()).to_json() == state.to_json()


def test_classes_that_are_watched_are_bounded() -> None:
    quality = ClassQuality()
    for at in range(40 * CLASSES):
        quality.add(Figure(at, 1, 0.5, str(at % (2 * CLASSES))))
    assert len(quality.to_dict()["detectors"]) == CLASSES
    quality.add(Figure(10**6, 1, 0.5, "x" * 1_000))
    assert len(json.dumps(quality.to_dict())) < 20_000
    with pytest.raises(IntegrityError):
        ClassQuality.from_dict({"changed": {"a": "b"}, "detectors": {}})


def test_summaries_and_figures_of_earlier_versions_are_read(client: Client) -> None:
    handle = opened(client)
    state = json.loads(Summary().to_json())
    del state["classes"]
    assert Summary.from_json(json.dumps(state).encode()).to_json() == Summary().to_json()
    client.zadd(handle.store.keys.figures, {"[1, 2, 0.5]": 1})
    assert handle.quality.read().figures == [Figure(1, 2, 0.5)]


def test_figures_know_their_class(client: Client, all_scored: None) -> None:
    x, _ = digits()
    handle, scorer = opened(client), warm(Scorer())
    arrive(handle, scorer, x[:20], ["a", 3, [5, "b"], "3"] * 5, 10)
    found = {figure.position: figure.label for figure in handle.quality.read().figures}
    assert [found[position] for position in (13, 14, 15, 16)] == ['"a"', "3", "5", '"3"'], "of several the first"


def test_trainers_take_figures_up_as_they_look(client: Client) -> None:
    handle = opened(client)
    filled(handle, [0.5] * 40)
    Trainers(Connections(client, None), Schedule(1e12, 10**6)).look()
    assert handle.quality.read().figures == []
    assert len(current(handle).series) == 40


def test_status_and_generations_show_it(client: Client, all_scored: None) -> None:
    x, y = digits()
    handle, scorer = opened(client), warm(Scorer())
    index = Index("x", Connections(client, None))
    assert index.status()["quality"] is None
    arrive(handle, scorer, x[:300], y[:300].tolist(), 50)
    assert [row["quality"]["figures"] for row in index.generations()] == [250], "those that wait are in it"
    fold(handle, handle.ledger.horizon())
    shown = index.status()["quality"]
    json.dumps(shown, allow_nan=False)
    means = [mean for _, mean in shown["points"]]
    assert (shown["figures"], shown["position"], len(means)) == (250, 300, 10)
    assert shown["precision"] == means[-1]
    assert shown["trend"] == pytest.approx(np.mean(means[-4:]) - np.mean(means[-8:-4]), abs=1e-5)
    (row,) = index.generations()
    assert row["quality"]["precision"] == pytest.approx(np.mean(means), abs=1e-5)


def test_an_index_that_is_discarded_leaves_no_figures(client: Client, all_scored: None) -> None:
    x, y = digits()
    handle, scorer = opened(client), warm(Scorer())
    arrive(handle, scorer, x[:100], y[:100].tolist(), 50)
    fold(handle, handle.ledger.horizon())
    arrive(handle, scorer, x[100:200], y[100:200].tolist(), 50, first=100)
    discard(client, "x", handle.settings)
    assert [key for key in client.scan_iter(match="sh:{x*") if b"receipt" not in key] == []


def test_hash_workers_score_what_they_apply() -> None:
    x, y = digits()
    with fakeredis.FakeRedis() as client:
        handle = opened(client)
        context = Context(Connections(client, None))
        for start in range(0, 400, 20):
            batch = accepted(handle, x[start : start + 20], y[start : start + 20].tolist(), start)
            jobs.apply_batch(context, "x", batch)
        assert handle.quality.read().figures, "a twentieth of the time is enough for some"


def test_classes_of_long_names_are_not_kept_in_the_summary() -> None:
    quality = ClassQuality()
    for label in ("a" * LONGEST_NAME, "b" * (LONGEST_NAME + 1), ""):
        quality.add(Figure(1, 1, 0.5, label))
    assert list(quality.to_dict()["detectors"]) == ["a" * LONGEST_NAME]
