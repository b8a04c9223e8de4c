"""Searches with a filter: what plain numpy finds among the items that match, and never fewer than there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import oracle
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_search import CountingConnection, counted_client, ids, switch_generation, vectors

from stream_hash.client import Index
from stream_hash.errors import StreamHashError, UsageError
from stream_hash.service import filtered as filtered_module
from stream_hash.service.connections import Connections
from stream_hash.service.filtered import FilteredSearch
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.matching import Matches
from stream_hash.settings import IndexSettings
from stream_hash.storage import reads as reads_module
from stream_hash.storage.codec import Batch, Values
from stream_hash.storage.connection import Client
from stream_hash.storage.reads import Reader

__all__ = ["counted_client"]  # a fixture


def filled(client: Client, options: IndexSettings, matching: Sequence[bool], *, seed: int = 0) -> Index:
    """An index of an item for each of `matching`: red and labelled "hit" if so, else other things that look like it."""
    index = Index.create("x", options, Connections(client, None))
    x, names = vectors(len(matching), options.dimension, seed), ids(len(matching))
    for start in range(0, len(matching), 1_000):
        part = slice(start, start + 1_000)
        labels = ['["hit",7]' if own else '"hits"' for own in matching[part]]
        metadata = [json.dumps({"colour": "red" if own else ["red"], "n": 1}) for own in matching[part]]
        write(client, f"b{start}", names[part], x[part], labels, metadata)
    return index


def write(
    client: Client, batch: str, names: list[str], x: np.ndarray, labels: list[str], metadata: list[str] | None
) -> None:
    handle = IndexHandle(client, "x")
    handle.ledger.accept(batch, Batch("upsert", names, x, labels, metadata), lease_until=0)
    apply_batch(handle, batch)


def truth(index: Index, query: np.ndarray, matching: Sequence[bool], k: int, seed: int = 0) -> list[str]:
    chosen = [row for row, own in enumerate(matching) if own]
    x, names = vectors(len(matching), index.settings.dimension, seed), ids(len(matching))
    return oracle.naive_search(query, [names[row] for row in chosen], x[chosen], index.settings.metric, k)


def found(index: Index, query: np.ndarray, **plan: Any) -> list[str]:
    return [result.id for result in index.query(query, **plan)[0].results]


RED: dict[str, Any] = {"where": {"colour": "red"}}
PLANS: list[dict[str, Any]] = [
    {},
    {"budget": 20},
    {"radius": 0},
    {"radius": 2},
    {"exact": True},
    {"budget": 20, "fetch": 12},
]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    share=st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.7, 1.0]),
    tables=st.integers(1, 3),
    partitions=st.integers(1, 3),
    metric=st.sampled_from(["cosine", "l2", "inner"]),
    plan=st.sampled_from(PLANS),
    k=st.integers(1, 12),
    records=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_plan_finds_k_items_that_match_or_all_of_them(
    *,
    real_client: redis.Redis,
    share: float,
    tables: int,
    partitions: int,
    metric: Any,
    plan: dict[str, Any],
    k: int,
    records: bool,
    seed: int,
) -> None:
    matching = (np.random.default_rng(seed).random(250) < share).tolist()
    real_client.flushall()
    options = IndexSettings(6, bits=7, tables=tables, partitions=partitions, metric=metric)
    index = filled(real_client, options, matching, seed=seed)
    queries = vectors(5, 6, seed=seed + 1)
    hits = {name for name, own in zip(ids(250), matching, strict=True) if own}
    for asked in (RED, {"label": "hit"}, {"label": ["hit", 7], **RED}):
        for _ in range(2):  # the second time with the share that the first one saw
            for query, answer in zip(queries, index.query(queries, k, records=records, **plan, **asked), strict=True):
                got = [result.id for result in answer.results]
                assert len(got) == len(set(got)) == min(k, len(hits))
                assert set(got) <= hits
                assert answer.matched is not None
                assert answer.reranked <= answer.matched <= answer.candidates
                if answer.scanned or answer.matched == len(hits) == answer.reranked:
                    assert got == truth(index, query, matching, k, seed)
                if records:
                    assert all(result.label == ["hit", 7] for result in answer.results)
                else:
                    assert all(result.label is None for result in answer.results)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("share", [0.003, 0.4])
def test_answers_are_complete_on_every_server(
    client: Client, partitions: int, share: float, plan: dict[str, Any]
) -> None:
    matching = (np.random.default_rng(1).random(1_200) < share).tolist()
    index = filled(client, IndexSettings(12, bits=9, tables=2, partitions=partitions), matching)
    for query in vectors(2, 12, seed=3):
        for k in (1, 10, 700):
            own = {**plan, "fetch": None} if k > 12 and "fetch" in plan else plan
            got = found(index, query, k=k, **own, **RED)
            assert len(got) == len(set(got)) == min(k, sum(matching))
            if plan == {"exact": True} or k == 700:
                assert got == truth(index, query, matching, k)


def test_all_items_within_a_radius_that_match_are_ranked(client: Client, partitions: int) -> None:
    matching = (np.random.default_rng(1).random(400) < 0.3).tolist()
    index = filled(client, IndexSettings(12, bits=6, partitions=partitions), matching)
    stored = IndexHandle(client, "x").model(1).encode(vectors(400, 12)).codes[:, 0]
    for query in vectors(3, 12, seed=8):
        code = IndexHandle(client, "x").model(1).encode_queries(query[None]).codes[0, 0]
        inside = (np.bitwise_count(stored ^ code) <= 2) & matching
        (answer,) = index.query(query, k=3, radius=2, **RED)
        assert (answer.matched, answer.reranked, answer.widened, answer.radius) == (
            inside.sum(),
            inside.sum(),
            False,
            2,
        )
        assert [result.id for result in answer.results] == truth(index, query, inside.tolist(), 3)


def test_unwidened_a_filter_keeps_what_the_plan_finds(client: Client) -> None:
    matching = [row % 50 == 0 for row in range(500)]
    index = filled(client, IndexSettings(12, bits=8), matching)
    query = vectors(1, 12, seed=3)
    for plan in ({"radius": 1}, {"budget": 30}):
        (plain,) = index.query(query, k=500, widen=False, fetch=None, **plan)
        (answer,) = index.query(query, k=500, widen=False, fetch=None, **plan, **RED)
        hits = {name for name, own in zip(ids(500), matching, strict=True) if own}
        assert [r.id for r in answer.results] == [r.id for r in plain.results if r.id in hits]
        assert (answer.candidates, answer.scanned) == (plain.candidates, 0)


class Reads:
    """How often records were scanned, and how many were looked up."""

    def __init__(self) -> None:
        self.scans, self.looked_up = 0, 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    counted = Reads()
    scan, texts = Reader.scan_record_texts, Reader.record_texts

    def scanning(self: Reader, partition: int) -> Any:
        counted.scans += 1
        return scan(self, partition)

    def looking_up(self: Reader, wanted: Any) -> Any:
        counted.looked_up += sum(len(numbers) for _, numbers in wanted)
        return texts(self, wanted)

    monkeypatch.setattr(Reader, "scan_record_texts", scanning)
    monkeypatch.setattr(Reader, "record_texts", looking_up)
    return counted


def test_a_rare_filter_scans_once_and_a_common_one_never(real_client: redis.Redis, reads: Reads) -> None:
    matching = [row % 1_000 == 7 for row in range(6_000)]
    index = filled(real_client, IndexSettings(12, bits=8), matching)
    queries = vectors(20, 12, seed=3)
    answers = index.query(queries, k=5, budget=50, **RED)
    assert reads.scans == 1, "one scan for all queries"
    assert [answer.scanned for answer in answers] == [6_000] * 20
    assert [answer.matched for answer in answers] == [6] * 20
    looked_up = reads.looked_up
    assert index.query(queries[0], k=5, budget=50, **RED)[0].scanned == 6_000
    assert (reads.scans, reads.looked_up) == (2, looked_up), "the second time at once, without gathering"
    common = index.query(queries, k=5, budget=50, where={"n": 1})
    assert [answer.scanned for answer in common] == [0] * 20
    assert reads.scans == 2


def test_a_budget_counts_what_matches_and_its_growth_reads_no_record_twice(
    real_client: redis.Redis, reads: Reads
) -> None:
    matching = (np.random.default_rng(1).random(6_000) < 0.2).tolist()
    index = filled(real_client, IndexSettings(12, bits=10), matching)
    query = vectors(1, 12, seed=3)
    (first,) = index.query(query, k=5, budget=60, fetch=30, **RED)
    assert first.scanned == reads.scans == 0
    assert 30 <= first.matched < 200
    assert reads.looked_up == first.candidates
    assert first.reranked == 30
    before = reads.looked_up
    with mock.patch.object(filtered_module, "find", wraps=filtered_module.find) as finding:
        (second,) = index.query(query, k=5, budget=60, fetch=30, **RED)
    assert finding.call_count == 1, "the share is known by now"
    assert second.matched >= 30
    assert reads.looked_up - before == second.candidates


def test_a_filtered_query_takes_three_round_trips(counted_client: redis.Redis) -> None:
    index = filled(counted_client, IndexSettings(12, bits=10, partitions=3), [True] * 3_000)
    query = vectors(1, 12, seed=2)
    index.query(query, k=3, budget=50, **RED)
    for plan, trips in (({"budget": 50}, 3), ({"budget": 50, "records": False}, 3), ({"budget": 50, **RED}, 3)):
        CountingConnection.sent = 0
        (answer,) = index.query(query, k=3, **RED | plan)
        assert answer.scanned == 0
        assert CountingConnection.sent == trips, plan
    CountingConnection.sent = 0
    index.query(query, k=3, where={"n": 2})
    assert CountingConnection.sent <= 3 + 2 + 3, "gather and records, the settings and states, a scan a partition"


def test_a_scan_goes_piece_by_piece_and_keeps_only_what_is_ranked(
    client: Client, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtered_module, "FETCH_BYTES", 4 * 12 * 33)
    monkeypatch.setattr(reads_module, "SCAN_RECORDS", 10)
    matching = (np.random.default_rng(1).random(900) < 0.5).tolist()
    index = filled(client, IndexSettings(12, bits=8, partitions=partitions), matching)
    queries, kept = vectors(3, 12, seed=3), []
    keep = Matches.keep

    def noting(self: Matches, ids: set[str]) -> None:
        keep(self, ids)
        kept.append(len(self.records))

    monkeypatch.setattr(Matches, "keep", noting)
    for query, answer in zip(queries, index.query(queries, k=5, **SCANNED), strict=True):
        assert [result.id for result in answer.results] == truth(index, query, matching, 5)
        assert all(result.label == ["hit", 7] for result in answer.results)
    assert len(kept) > 3
    assert max(kept) <= 15


class Meddling(Reader):
    """Changes an item right before values are read, once: after its record was."""

    meddle: Any = None

    def values(self, wanted: Sequence[tuple[int, np.ndarray]]) -> list[Values]:
        meddle, self.meddle = self.meddle, None
        if meddle:
            meddle()
        return super().values(wanted)


def meddled(client: Client, index: Index, meddle: Any) -> None:
    reader = Meddling(client, "x", index.settings)
    reader.meddle = meddle
    index._handle.reader = reader


SCANNED: dict[str, Any] = {"exact": True, **RED}
GATHERED: dict[str, Any] = {"radius": 8, **RED}


@pytest.mark.parametrize("plan", [SCANNED, GATHERED])
def test_an_item_that_stops_matching_meanwhile_is_not_returned(client: Client, plan: dict[str, Any]) -> None:
    index = filled(client, IndexSettings(12, bits=8), [True] * 30)
    query = vectors(30, 12)[3]
    meddled(client, index, lambda: write(client, "blue", ["i00003"], query[None], [""], ['{"colour":"blue"}']))
    got = found(index, query, k=10, **plan)
    assert len(got) == 10
    assert "i00003" not in got


@pytest.mark.parametrize("plan", [SCANNED, GATHERED])
def test_an_item_that_is_moved_meanwhile_is_ranked_where_it_is_now(client: Client, plan: dict[str, Any]) -> None:
    index = filled(client, IndexSettings(12, bits=8), [True] * 30)
    query = vectors(30, 12)[3]
    meddled(client, index, lambda: write(client, "far", ["i00003"], -query[None], [""], ['{"colour":"red"}']))
    near, far = index.query(np.vstack([query, -query]), k=30, **plan)
    for answer, moved in ((near, near.results[-1]), (far, far.results[0])):
        assert moved.id == "i00003"
        assert abs(moved.score) == pytest.approx(1)
        assert moved.metadata == {"colour": "red"}
        assert len(answer.results) == 30


@pytest.mark.parametrize("plan", [SCANNED, GATHERED])
def test_an_item_number_that_went_to_another_item_does_not_bring_it_in(client: Client, plan: dict[str, Any]) -> None:
    index = filled(client, IndexSettings(12, bits=8), [True] * 30)
    query = vectors(30, 12)[3]

    def replace_item() -> None:
        Index("x", Connections(client, None)).delete(["i00003"])
        write(client, "other", ["another"], query[None], ['"hits"'], ['{"colour":"blue"}'])

    meddled(client, index, replace_item)
    assert not {"another", "i00003"} & set(found(index, query, k=10, **plan))


def test_a_value_that_is_not_checked_against_its_record_is_caught(
    real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule's mutant: whatever stands under the item number is taken for the item that matched."""

    def unchecked(self: Matches, partition: int, values: Values) -> Values:
        self.records.update(dict(self._items[partition].values()))
        return values

    monkeypatch.setattr(Matches, "_right", unchecked)
    for scenario in (
        test_an_item_that_stops_matching_meanwhile_is_not_returned,
        test_an_item_number_that_went_to_another_item_does_not_bring_it_in,
    ):
        with pytest.raises((AssertionError, KeyError)):
            scenario(real_client, GATHERED)
        real_client.flushall()


def test_matching_items_deleted_meanwhile_are_made_up_for(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=8), [True] * 40)
    query = vectors(40, 12)[3]
    nearest = found(index, query, k=30, exact=True)
    meddled(client, index, lambda: Index("x", Connections(client, None)).delete(nearest[:20]))
    got = found(index, query, k=10, budget=15, fetch=10, **RED)
    assert len(got) == 10
    assert not set(got) & set(nearest[:20])


def test_items_written_faster_than_they_are_read_end_in_an_error(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=8), [True] * 12)
    writes = iter(range(10**6))

    class Restless(Reader):
        def values(self, wanted: Any) -> list[Values]:
            write(client, f"again{next(writes)}", ["i00003"], vectors(1, 12), [""], ['{"colour":"red"}'])
            return super().values(wanted)

    index._handle.reader = Restless(client, "x", index.settings)
    with mock.patch("stream_hash.service.search.MAX_RETRIES", 2), pytest.raises(StreamHashError, match="changed"):
        index.query(vectors(1, 12), k=12, **RED)
    assert next(writes) > 10


def test_a_filtered_search_whose_generation_was_replaced_begins_again(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=6), [True] * 100)
    query = vectors(1, 12, seed=4)
    assert index.query(query, k=100, radius=6, label="hit")[0].generation == 1
    switch_generation(client)
    index.label(ids(100)[:60], ["hit"] * 60)
    (answer,) = index.query(query, k=100, radius=6, label="hit")
    assert answer.generation == 2
    assert len(answer.results) == 60


def test_a_wiped_index_is_opened_anew(client: Client) -> None:
    index = filled(client, IndexSettings(12, bits=6), [True] * 50)
    query = vectors(1, 12, seed=4)
    assert len(found(index, query, k=9, **SCANNED)) == 9
    client.flushall()
    filled(client, IndexSettings(12, bits=6), [True] * 5)
    for plan in (SCANNED, GATHERED):
        assert len(found(index, query, k=9, **plan)) == 5


def test_a_search_that_never_scans_is_caught(real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule's mutant: what the first gather finds is enough."""
    monkeypatch.setattr(filtered_module._Attempt, "_is_enough", lambda *_: True)
    index = filled(real_client, IndexSettings(12, bits=8), [row % 100 == 7 for row in range(1_000)])
    assert len(found(index, vectors(1, 12, seed=3), k=10, budget=30, **RED)) < 10


def test_what_the_servers_json_escapes_is_found(client: Client) -> None:
    """By a look-up and by a scan: what is sought in a record's bytes must be what the write script left there."""
    texts = ["a/b", 'a"b', "a\\b", "\x7f", "\n", "é", "漢字", "\u2028", "plain text", "7"]
    index = filled(client, IndexSettings(12, bits=8), [False] * 40)
    label = [json.dumps(text, ensure_ascii=False) for text in texts]
    metadata = [json.dumps({text: {text: [text]}, "t": text}, ensure_ascii=False) for text in texts]
    write(client, "texts", [f"t{row}" for row in range(len(texts))], vectors(len(texts), 12, 5), label, metadata)
    for row, text in enumerate(texts):
        for asked in ({"label": text}, {"where": {"t": text}}, {"where": {text: {text: [text]}}}):
            for plan in ({"exact": True}, {"radius": 8}):
                assert found(index, vectors(1, 12), **plan, **asked) == [f"t{row}"]


def test_an_empty_index_has_nothing_that_matches(client: Client) -> None:
    index = Index.create("x", IndexSettings(12), Connections(client, None))
    for plan in ({}, {"radius": 1}, {"exact": True}):
        (answer,) = index.query(vectors(1, 12), **plan, **RED)
        assert (answer.results, answer.matched) == ([], 0)


def test_only_some_filters_are_remembered(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtered_module, "REMEMBERED", 3)
    index = filled(client, IndexSettings(12, bits=6), [True] * 20)
    for number in range(8):
        index.query(vectors(1, 12), where={"n": number})
    memory: FilteredSearch = index._searcher._filtered
    assert len(memory._seen) == 3


def test_a_filter_that_is_none_is_refused(client: Client) -> None:
    index = filled(client, IndexSettings(12), [True] * 5)
    with pytest.raises(UsageError, match="the filter on metadata is 'colour=red'"):
        index.query(vectors(1, 12), where="colour=red")  # type: ignore[arg-type]
