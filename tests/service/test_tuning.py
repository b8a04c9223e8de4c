"""Tuning: what it measures, what it chooses, and the plan that an index keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import fakeredis
import numpy as np
import oracle
import pytest
import redis

from stream_hash.client import Index
from stream_hash.errors import IndexMissingError, StreamHashError, UsageError
from stream_hash.numerics.cost import SearchCost
from stream_hash.service import saved_plan as saved_plan_module
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.plan import Plan
from stream_hash.service.saved_plan import SavedPlan
from stream_hash.service.tuning import Setting, Tuning, between, budgets, cheapest, fetches
from stream_hash.service.tuning_sample import draw, truth_of
from stream_hash.settings import IndexSettings, Label, label_text
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.discard import discard
from stream_hash.storage.store import Store

COUNT = 400
DIMENSION = 12
TARGET = 0.9
SAVED = SavedPlan(120, 40, 10, "recall", 0.9, 0.93, 0.01, 1, COUNT, 1_000.0)


def vectors(count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(3).normal(0.3, 1, (count, DIMENSION)).astype(np.float32)


def filled(
    client: Client,
    *,
    partitions: int = 1,
    tables: int = 1,
    count: int = COUNT,
    labels: list[Label | None] | None = None,
) -> Index:
    """An index of random items i0, i1, …"""
    index = Index.create(
        "x", IndexSettings(DIMENSION, bits=5, partitions=partitions, tables=tables), Connections(client, None)
    )
    handle = IndexHandle(client, "x")
    texts = [label_text(label) for label in labels] if labels else None
    handle.ledger.accept(
        "b", Batch("upsert", [f"i{row}" for row in range(count)], vectors(count), texts), lease_until=0
    )
    apply_batch(handle, "b")
    return index


@pytest.fixture(scope="module")
def tuned() -> Iterator[tuple[Index, Tuning]]:
    """An index with labels, and what tuning for recall found."""
    with fakeredis.FakeRedis() as client:
        index = filled(client, labels=[row % 4 for row in range(COUNT)])
        yield index, index.tune(target_recall=TARGET, queries=30)


def test_the_truth_is_exact_search_without_the_query_itself(client: Client, partitions: int) -> None:
    filled(client, partitions=partitions)
    handle = IndexHandle(client, "x")
    asked = draw(handle, 20, np.random.default_rng(0), labelled=False)
    truth = truth_of(handle, asked, 5, None, np.random.default_rng(0), lambda _: None)
    assert (len(asked), truth.k, truth.scanned, truth.whole) == (20, 5, COUNT, True)
    assert len(set(asked.ids)) == 20
    ids = [f"i{row}" for row in range(COUNT)]
    for item_id, query, nearest in zip(asked.ids, asked.vectors, truth.nearest, strict=True):
        assert query.tolist() == vectors()[int(item_id[1:])].tolist()
        assert nearest == oracle.naive_search(query, ids, vectors(), "cosine", 6)[1:]


def test_a_sample_stands_for_all_items_in_proportion(client: Client, partitions: int) -> None:
    filled(client, partitions=partitions)
    handle = IndexHandle(client, "x")
    asked = draw(handle, 20, np.random.default_rng(0), labelled=False)
    truth = truth_of(handle, asked, 10, 120, np.random.default_rng(0), lambda _: None)
    assert (truth.k, truth.scanned, truth.whole) == (3, 120, False)
    for item_id, nearest in zip(asked.ids, truth.nearest, strict=True):
        assert len(set(nearest)) == 3
        assert item_id not in nearest
    with pytest.raises(UsageError, match="the sample is 39 of 400") as refused:
        truth_of(handle, asked, 10, 39, np.random.default_rng(0), lambda _: None)
    assert refused.value.remedy.startswith("take 40")


def test_all_of_an_index_finds_all_of_the_truth_by_whichever_truth(client: Client, partitions: int) -> None:
    index = filled(client, partitions=partitions, tables=2)
    for sample in (None, 100):
        tuning = index.tune(target_recall=1.0, queries=15, sample=sample)
        last = tuning.settings[-1]
        assert (last.budget, last.recall, last.recall_error) == (last.fetch, 1.0, 0.0)
        assert last.candidates == last.reranked == COUNT
        assert tuning.settings[0].recall < 0.9
        assert tuning.truth_whole == (sample is None)


def test_recall_and_precision_are_those_of_queries_asked_by_hand(tuned: tuple[Index, Tuning]) -> None:
    index, tuning = tuned
    handle = index._handle
    asked = draw(handle, 30, np.random.default_rng(0), labelled=False)  # the same seed: the same items
    one = tuning.settings[1]
    recalls, shares = [], []
    for item_id, query, label in zip(asked.ids, asked.vectors, asked.labels, strict=True):
        (truth,), (answer,) = (
            index.query(query, k=11, **plan) for plan in ({"exact": True}, {"budget": one.budget, "fetch": one.fetch})
        )
        found = [result for result in answer.results if result.id != item_id][:10]
        nearest = {result.id for result in truth.results} - {item_id}
        recalls.append(len(nearest & {result.id for result in found}) / 10)
        shares.append(np.mean([result.label == label for result in found]))
    assert one.recall == pytest.approx(np.mean(recalls))
    assert one.recall_error == pytest.approx(np.std(recalls, ddof=1) / 30**0.5)
    assert one.precision == pytest.approx(np.mean(shares))
    assert one.precision_error == pytest.approx(np.std(shares, ddof=1) / 30**0.5)


def test_the_curve_ends_one_budget_after_the_target_is_reached(tuned: tuple[Index, Tuning]) -> None:
    _, tuning = tuned
    doubled = list(budgets(COUNT, 10))
    tried = [budget for budget in dict.fromkeys(one.budget for one in tuning.settings) if budget in doubled]
    assert tried == list(budgets(COUNT, 10))[: len(tried)]
    reaching = [budget for budget in tried if any(s.recall >= TARGET for s in tuning.settings if s.budget == budget)]
    assert tried.index(reaching[0]) in (len(tried) - 1, len(tried) - 2)
    assert tried[-1] == COUNT or len(reaching) == 2


def test_the_gap_below_the_least_budget_that_reaches_the_target_is_halved(tuned: tuple[Index, Tuning]) -> None:
    _, tuning = tuned
    assert len({one.budget for one in tuning.settings} - set(budgets(COUNT, 10))) == 2
    assert [(one.budget, one.fetch) for one in tuning.settings] == sorted((s.budget, s.fetch) for s in tuning.settings)
    some = [setting(100, 0.5, 0.8), setting(400, 0.9, 0.7), setting(900, 0.95, 0.9)]
    assert between(some, "recall", 0.9) == 200
    assert between(some, "recall", 0.92) == 600
    assert between(some, "precision", 0.75) is None
    assert between(some, "recall", 0.99) is None
    assert between(some, None, None) is None
    assert between([setting(100, 0.5), setting(101, 0.9)], "recall", 0.9) is None


def test_what_is_chosen_reaches_the_target_and_nothing_that_does_is_less_work(tuned: tuple[Index, Tuning]) -> None:
    _, tuning = tuned
    chosen = tuning.required()
    assert chosen.recall >= TARGET
    for other in tuning.settings:
        if other.recall >= TARGET and other != chosen:
            work = [(getattr(one, name)) for one in (other, chosen) for name in ("probes", "candidates", "reranked")]
            assert any(mine > own for mine, own in zip(work[:3], work[3:], strict=True)) or work[:3] == work[3:]


def setting(budget: int, recall: float, precision: float | None = None) -> Setting:
    return Setting(budget, budget, recall, 0.01, precision, 0.01, budget, budget, budget, 1.0, 1.0, 20)


def test_the_cheapest_goes_by_fitted_cost_then_by_work() -> None:
    settings = [setting(10, 0.5, 0.9), setting(40, 0.95, 0.7), setting(20, 0.91), setting(30, 0.9)]
    by_work = SearchCost(np.array([0.0, 0.0, 0.0, 0.0]), 0.0)
    by_cost = SearchCost(np.array([1.0, 0.0, -1.0, 0.0]), 0.0)
    assert cheapest(settings, by_work, "recall", 0.9) is settings[2]
    assert cheapest(settings, by_cost, "recall", 0.9) is settings[1]
    assert cheapest(settings, by_work, "precision", 0.6) is settings[0]
    assert cheapest(settings, by_work, "recall", 0.96) is None
    assert cheapest(settings, by_work, None, None) is None


def test_budgets_double_up_to_all_items_and_vectors_up_to_half_a_budget() -> None:
    assert list(budgets(20_000, 10)) == [75, 150, 300, 600, 1_200, 2_400, 4_800, 9_600, 20_000]
    assert list(budgets(50, 10)) == [50]
    assert next(iter(budgets(3_000, 100))) == 750
    assert fetches(75, 10) == [25, 75]
    assert fetches(300, 10) == [25, 50, 100, 300]
    assert fetches(9_600, 10) == [800, 1_600, 3_200]
    assert fetches(9_600, 10, all_=True) == [800, 1_600, 3_200, 9_600]
    assert all(fetch > 100 for budget in (101, 750, 6_000) for fetch in fetches(budget, 100))


def test_the_default_plan_is_among_those_that_are_tried() -> None:
    plan = Plan()
    assert plan.budget_for(10) in list(budgets(20_000, 10))


def test_the_fitted_cost_is_what_made_the_times() -> None:
    rng = np.random.default_rng(0)
    work = rng.uniform(1, 1_000, (30, 3))
    seconds = 0.001 + work @ np.array([2e-6, 3e-7, 0.0])
    cost = SearchCost.fit(work, seconds)
    assert cost.coefficients == pytest.approx([0.001, 2e-6, 3e-7, 0.0], abs=1e-9)
    assert cost.error < 1e-6
    assert cost.seconds(100, 1_000, 5) == pytest.approx(0.001 + 2e-4 + 3e-4)
    assert (SearchCost.fit(work, seconds[::-1].copy()).coefficients >= 0).all()


def test_more_items_are_predicted_from_the_same_buckets(tuned: tuple[Index, Tuning]) -> None:
    _, tuning = tuned
    costed = replace(tuning, cost=SearchCost(np.array([1.0, 10.0, 100.0, 1_000.0]), 0.0))
    one = costed.required()
    assert costed.seconds_at(10) == pytest.approx(1 + 10 * one.probes + 1_000 * one.candidates + 10_000 * one.reranked)


def test_only_labelled_items_are_asked_for_a_precision() -> None:
    with fakeredis.FakeRedis() as client:
        index = filled(client, labels=[None if row % 5 else row % 3 for row in range(COUNT)])
        tuning = index.tune(target_precision=0.2, queries=40)
        assert (tuning.queries, tuning.labelled) == (40, 40)
        assert tuning.required().precision is not None


def test_too_few_items_or_labels_are_told(client: Client) -> None:
    index = filled(client, count=99)
    with pytest.raises(StreamHashError, match="too few items to tune"):
        index.tune()
    assert index.tune(k=9, queries=10).chosen is None
    with pytest.raises(StreamHashError, match="too few labelled items"):
        index.tune(k=9, target_precision=0.5)
    for wrong in (
        {"k": 0},
        {"queries": 0},
        {"target_recall": 1.5},
        {"target_recall": 0.0},
        {"target_recall": 0.5, "target_precision": 0.5},
    ):
        with pytest.raises(UsageError):
            index.tune(**wrong)


def test_a_target_out_of_reach_is_told_with_the_best_there_was() -> None:
    with fakeredis.FakeRedis() as client:
        index = filled(client, labels=[row % 4 for row in range(COUNT)])
        tuning = index.tune(target_precision=1.0, queries=20)
        best = max(one.precision or 0 for one in tuning.settings)
        for action in (tuning.required, lambda: index.save_plan(tuning)):
            with pytest.raises(StreamHashError, match="no budget reaches precision@10 1") as missed:
                action()
            assert f"the best was {best:.3f}" in missed.value.why
        assert index.plan is None


def test_memory_is_that_of_the_index_s_own_keys(real_client: redis.Redis) -> None:
    index = filled(real_client, partitions=2)
    tuning = index.tune(queries=10)
    keys = [key for key in real_client.scan_iter(match="sh:{x:*") if not key.endswith(b"state")]
    whole = sum(real_client.memory_usage(key, samples=0) or 0 for key in keys)
    assert tuning.vector_bytes == 4 * DIMENSION
    assert tuning.bytes_an_item == pytest.approx(whole / COUNT, rel=0.05)


def test_an_index_is_searched_by_what_was_saved_until_it_is_forgotten(client: Client) -> None:
    index = filled(client)
    query = vectors()[7]
    before = index.query(query)[0]
    assert (before.tuned, before.reranked, before.candidates) == (None, 200, before.candidates)
    assert index._plans.save(SAVED)
    assert index.plan == SAVED
    for one in (index, Index("x", Connections(client, None))):
        (answer,) = one.query(query)
        assert answer.tuned == (120, 40)
        assert (answer.reranked, answer.candidates < before.candidates) == (40, True)
        assert one.query(query, widen=False, records=False)[0].tuned == (120, 40)
        for told in ({"budget": 300}, {"radius": 2}, {"exact": True}, {"fetch": 50}, {"fetch": None}):
            assert one.query(query, **told)[0].tuned is None
    assert index.status()["plan"]["budget"] == 120
    index.forget_plan()
    assert index.query(query)[0].tuned is None
    assert index.status()["plan"] is None


def test_a_filter_holds_under_a_saved_plan_too(client: Client) -> None:
    index = filled(client, labels=["even" if row % 2 == 0 else "odd" for row in range(COUNT)])
    index._plans.save(SAVED)
    (answer,) = index.query(vectors()[7], label="even")
    assert answer.tuned == (120, 40)
    assert [result.label for result in answer.results] == ["even"] * 10


def test_more_results_than_were_tuned_for_take_more_in_proportion(client: Client) -> None:
    index = filled(client)
    index._plans.save(SAVED)
    assert index.query(vectors()[7], k=3)[0].tuned == (120, 40)
    (answer,) = index.query(vectors()[7], k=25)
    assert answer.tuned == (300, 100)
    assert len(answer.results) == 25
    (most,) = index.query(vectors()[7], k=COUNT)
    assert len(most.results) == COUNT


def test_another_handle_learns_of_a_plan_after_a_minute(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(saved_plan_module, "now_seconds", lambda: now[0])
    index = filled(client)
    other = Index("x", Connections(client, None))
    index._plans.save(SAVED)
    assert other.query(vectors()[7])[0].tuned is None
    now[0] += saved_plan_module.MOST_SECONDS
    assert other.query(vectors()[7])[0].tuned == (120, 40)


def test_a_plan_of_an_index_that_was_wiped_is_neither_used_nor_saved(client: Client) -> None:
    index = filled(client)
    tuning = index.tune(target_recall=0.5, queries=10)
    index.save_plan(tuning)
    stale = client.get(index._handle.store.keys.plan)
    discard(client, "x", index.settings)
    assert not client.exists(index._handle.store.keys.plan)
    Store(client, "x").create(index.settings)
    for action in (lambda: index.save_plan(tuning), index.forget_plan):
        with pytest.raises(IndexMissingError):
            action()
    assert not client.exists(index._handle.store.keys.plan)
    client.set(index._handle.store.keys.plan, stale or b"")
    assert Index("x", Connections(client, None)).plan is None


def test_a_damaged_plan_is_left_out(client: Client) -> None:
    index = filled(client)
    for damaged in ({"budget": 5}, {**SAVED.__dict__, "fetch": "many"}, {**SAVED.__dict__, "fetch": 3}):
        index._plans._plans.save(index._handle.identity.nonce, damaged)
        assert Index("x", Connections(client, None)).plan is None
    index._plans._plans.save(index._handle.identity.nonce, {**SAVED.__dict__, "of a later release": 1})
    assert Index("x", Connections(client, None)).plan == SAVED


def test_what_was_chosen_is_what_is_saved(tuned: tuple[Index, Tuning]) -> None:
    index, tuning = tuned
    chosen = tuning.required()
    plan = index.save_plan(tuning)
    try:
        assert (plan.budget, plan.fetch, plan.k, plan.measure, plan.target) == (
            chosen.budget,
            chosen.fetch,
            10,
            "recall",
            TARGET,
        )
        assert (plan.measured, plan.generation, plan.items) == (round(chosen.recall, 6), 1, COUNT)
        assert index.plan == plan
    finally:
        index.forget_plan()
