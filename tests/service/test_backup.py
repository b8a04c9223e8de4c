"""Export and import: equal items and answers on any server, whatever is killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis
from backup_support import (
    COUNT,
    RUN,
    SETTINGS,
    KilledError,
    contents,
    exported,
    filled,
    ids,
    imported,
    index_of,
    send,
    snapshot,
    vectors,
)
from redis.cluster import RedisCluster

from stream_hash.client import Index
from stream_hash.errors import (
    IndexExistsError,
    IndexMissingError,
    StreamHashError,
)
from stream_hash.formats.archive_parts import (
    ItemsPart,
)
from stream_hash.service import export as export_module
from stream_hash.service import restore as restore_module
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.items import delete_items, label_items
from stream_hash.service.reindex import reindex
from stream_hash.service.restore import abandon_import
from stream_hash.service.status import server_status
from stream_hash.service.sweep import sweep
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.reads import Reader
from stream_hash.storage.scripts import Scripts
from stream_hash.storage.store import index_names
from stream_hash.storage.trainer_state import Lead

QUERIES = np.vstack([vectors(46, seed=9), vectors()[:4]])


def label_numbers(handle: IndexHandle) -> dict[str, tuple[str, int]]:
    found = zip(ids(), handle.reader.records(ids()), strict=True)
    return {i: (r.label, r.label_sequence) for i, r in found if r is not None and r.number is not None}


PLANS: list[dict[str, Any]] = [
    {},
    {"budget": 40, "fetch": 12},
    {"budget": 60, "k": 25},
    {"radius": 1},
    {"radius": 0, "k": 30},
    {"exact": True},
    {"label": "c1"},
    {"where": {"ö": 3}},
]
SAME_IN_ANY_PARTITIONS: list[dict[str, Any]] = [plan for plan in PLANS if {"radius", "exact", "where"} & plan.keys()]


def answers(client: Client, name: str, plans: list[dict[str, Any]]) -> list[Any]:
    index = index_of(client, name)
    return [[(answer.generation, answer.results) for answer in index.query(QUERIES, **plan)] for plan in plans]


def test_a_restore_on_another_engine_a_cluster_or_in_other_partitions_answers_as_the_original(
    real_client: redis.Redis, redis_url: str, cluster_url: str
) -> None:
    handle = filled(real_client)
    data = exported(handle)
    kept, plain, by_radius = contents(real_client, "x"), answers(real_client, "x", PLANS), SAME_IN_ANY_PARTITIONS
    with redis.Redis.from_url(redis_url) as other, RedisCluster.from_url(cluster_url) as cluster:
        for client, partitions, plans in (
            (other, None, PLANS),
            (cluster, None, PLANS),
            (cluster, 7, by_radius),
            (other, 1, by_radius),
        ):
            client.flushall()
            done = imported(client, data, partitions=partitions)
            assert (done.items, done.generations, done.live) == (len(kept), 2, 2)
            index = index_of(client)
            report = index.verify()
            assert (report.items, report.violations) == (len(kept), [])
            assert index.settings == replace(SETTINGS, partitions=partitions or SETTINGS.partitions)
            assert contents(client, "y") == kept
            expected = plain if plans is PLANS else answers(real_client, "x", plans)
            assert answers(client, "y", plans) == expected
            restored = IndexHandle(client, "y")
            assert label_numbers(restored) == label_numbers(handle)
            assert restored.ledger.last_sequence() == handle.ledger.last_sequence()
            used_as_any(restored)


def used_as_any(handle: IndexHandle) -> None:
    """It is written, swept, labelled, deleted from, trained and rolled back like an index that was filled here."""
    sweep(handle, lambda *_: False, lambda *_: None)
    send(handle, Batch("upsert", ["i00001", "new"], vectors(90, seed=4)[:2], ["", '"fresh"'], None))
    assert label_items(handle, ["new", "i00002"], ["fresh", "fresher"]) == []
    assert delete_items(handle, ["i00003"]) == []
    sweep(handle, lambda *_: False, lambda *_: None)
    lead = handle.trainer.lead("t", now=0, until=0)
    assert isinstance(lead, Lead)
    record = handle.trainer.publish(lead.token, handle.models.load(1), kind="lsh", created=6.0, parent=2, origin=1)
    assert record.generation == 3
    reindex(handle, lead.token, 3)
    index = index_of(handle.client)
    assert index.query(vectors(90, seed=4)[1], k=1)[0].results[0].id == "new"
    assert index.verify().violations == []


def test_generations_runs_target_and_the_saved_plan_come_along(fake: Client, archive: bytes) -> None:
    imported(fake, archive)
    handle = IndexHandle(fake, "y")
    assert [(r.generation, r.kind, r.created, r.parent) for r in handle.models.records()][1] == (2, "grh-pa", 3.0, 1)
    assert handle.trainer.target() == 2
    assert [state.live for state in handle.states] == [2, 2]
    assert handle.trainer.runs() == [RUN.to_dict()]
    plan = index_of(fake).plan
    assert plan is not None
    assert (plan.budget, plan.fetch) == (150, 90)
    assert index_of(fake).query(QUERIES[0], k=3)[0].tuned == (150, 90)
    rows = index_of(fake).generations()
    assert {row["generation"]: row["state"] for row in rows} == {1: "kept", 2: "live"}
    status = index_of(fake).status()
    assert (status["items"], status["pending"], status["dead"]) == (379, 0, 0)
    assert status["accepted"] == status["applied"] == 379
    assert status["labels_since"] == status["labelled"] - 1  # of labels up to RUN.seen one is left


def test_the_models_are_the_same_bytes(fake: Client, archive: bytes) -> None:
    with fakeredis.FakeRedis() as other:
        original = filled(other)
        imported(fake, archive)
        for generation in (1, 2):
            keys = [handle.store.keys.model(generation) for handle in (original, IndexHandle(fake, "y"))]
            assert other.get(keys[0]) == fake.get(keys[1])


def test_an_index_that_never_had_an_item_is_restored_as_it_is(fake: Client) -> None:
    Index.create("x", SETTINGS, Connections(fake, None))
    done = imported(fake, exported(IndexHandle(fake, "x")))
    assert (done.items, done.generations, done.live) == (0, 0, 0)
    handle = IndexHandle(fake, "y")
    send(handle, Batch("upsert", ids(3), vectors(3), None, None))
    assert index_of(fake).verify().items == 3


@pytest.mark.parametrize("metric", ["l2", "inner"])
def test_float16_vectors_and_every_metric_are_restored_bit_by_bit(fake: Client, metric: Any) -> None:
    handle = filled(fake, replace(SETTINGS, dtype="float16", metric=metric), 120)
    imported(fake, exported(handle))
    assert contents(fake, "y") == contents(fake, "x")
    assert answers(fake, "y", PLANS) == answers(fake, "x", PLANS)
    assert index_of(fake).verify().violations == []


def test_while_it_is_written_each_item_is_exported_as_it_was_at_some_moment(
    fake: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes fall between the read of values and that of records, the worst place there is."""
    handle = filled(fake)
    rng = np.random.default_rng(0)
    versions = {item_id: {(item["vector"], str(item["label"]))} for item_id, item in contents(fake, "x").items()}
    untouched = set(versions)
    reads = Reader.records

    def records(self: Reader, wanted: list[str]) -> Any:
        monkeypatch.setattr(Reader, "records", reads)
        for position in rng.choice(COUNT, 60, replace=False).tolist():
            item_id = ids()[position]
            untouched.discard(item_id)
            if position % 4 == 0:
                delete_items(handle, [item_id])
                continue
            vector = rng.normal(size=(1, 12)).astype(np.float32)
            send(handle, Batch("upsert", [item_id], vector, [f'"w{position}"'], None))
            versions.setdefault(item_id, set()).add((vector[0].tobytes(), f"w{position}"))
        monkeypatch.setattr(Reader, "records", records)
        return reads(self, wanted)

    monkeypatch.setattr(export_module, "ITEMS_A_BLOCK", 100)
    monkeypatch.setattr(Reader, "records", records)
    data = exported(handle)
    monkeypatch.setattr(Reader, "records", reads)
    imported(fake, data)
    found = contents(fake, "y")
    assert untouched <= found.keys()
    assert 30 < len(untouched) < len(versions)
    for item_id, item in found.items():
        assert (item["vector"], str(item["label"])) in versions[item_id], item_id
    assert index_of(fake).verify().violations == []


def test_an_index_wiped_during_its_export_is_told(fake: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = filled(fake)
    written = export_module.write_runs

    def wipe(*arguments: Any) -> None:
        written(*arguments)
        fake.flushall()
        Index.create("x", SETTINGS, Connections(fake, None))

    monkeypatch.setattr(export_module, "write_runs", wipe)
    with pytest.raises(IndexMissingError, match="is not the one"):
        exported(handle)


NEVER, CALLS = 10**9, 15
"""Calls of scripts in the import of `small_blocks`."""


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "before its reply"])
def test_an_import_killed_at_any_call_goes_on_and_is_not_seen_before_its_end(
    small_blocks: bytes, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, calls = Scripts.__call__, 0

    def killed_at(deadline: int) -> Callable[..., Any]:
        left = deadline

        def run(self: Scripts, *arguments: Any) -> Any:
            nonlocal left, calls
            left, calls = left - 1, calls + 1
            if left == 0 and not after:
                raise KilledError
            reply = call(self, *arguments)
            if left == 0:
                raise KilledError
            return reply

        return run

    reference: dict[str, Any] | None = None
    for deadline in [NEVER, *range(1, CALLS + 1)]:
        with fakeredis.FakeRedis() as client:
            monkeypatch.setattr(Scripts, "__call__", killed_at(deadline))
            try:
                imported(client, small_blocks)
                assert (deadline, calls) == (NEVER, CALLS)
            except KilledError:
                monkeypatch.setattr(Scripts, "__call__", call)
                if client.get("sh:{y}:settings") is None:
                    with pytest.raises(IndexMissingError):
                        index_of(client)
                imported(client, small_blocks)
            monkeypatch.setattr(Scripts, "__call__", call)
            found = {"items": contents(client, "y"), "labels": label_numbers(IndexHandle(client, "y"))}
            reference = reference or found
            assert found == reference
            assert index_of(client).verify().violations == []
            assert index_names(client) == ["y"]
            assert not client.smembers("sh:imports")
            assert client.hget("sh:{y}:counters", "accepted") == b"%d" % len(found["items"])


def test_what_an_earlier_attempt_brought_in_is_not_written_again(
    fake: Client, small_blocks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = restore_module._Import._write, list[int]()

    def counted(self: Any, part: ItemsPart, *others: Any) -> None:
        if len(written) == 2:
            raise KilledError
        written.append(len(part.ids))
        write(self, part, *others)

    monkeypatch.setattr(restore_module._Import, "_write", counted)
    with pytest.raises(KilledError):
        imported(fake, small_blocks)
    monkeypatch.setattr(restore_module._Import, "_write", write)
    assert imported(fake, small_blocks).skipped == sum(written) > 0


def test_two_imports_of_the_same_file_at_once_come_to_one_index(
    fake: Client, small_blocks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = restore_module._Import._write

    def overtaken(self: Any, part: ItemsPart, *others: Any) -> None:
        monkeypatch.setattr(restore_module._Import, "_write", write)
        write(self, part, *others)
        assert not imported(fake, small_blocks).already

    monkeypatch.setattr(restore_module._Import, "_write", overtaken)
    with pytest.raises(StreamHashError, match="given up meanwhile"):
        imported(fake, small_blocks)  # by the next block the other has finished: nothing is left to be done
    assert imported(fake, small_blocks).already
    assert index_of(fake).verify().violations == []


def test_an_index_that_stands_or_is_being_imported_from_elsewhere_is_left_alone(
    fake: Client, archive: bytes, small_blocks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    Index.create("x", SETTINGS, Connections(fake, None))
    with pytest.raises(IndexExistsError, match="index 'x' exists"):
        imported(fake, archive, "x")
    monkeypatch.setattr(restore_module._Import, "_write", lambda *_: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        imported(fake, archive)
    before = snapshot(fake)
    for data, options in ((small_blocks, {}), (archive, {"partitions": 3})):
        with pytest.raises(IndexExistsError, match="being imported already"):
            imported(fake, data, **options)
    with pytest.raises(IndexExistsError, match="is being imported under the name"):
        Index.create("y", SETTINGS, Connections(fake, None))
    assert snapshot(fake) == before
    monkeypatch.undo()
    imported(fake, archive)
    assert imported(fake, archive).already
    with pytest.raises(IndexExistsError, match="with other settings"):
        imported(fake, archive, partitions=3)


def test_what_is_being_imported_is_shown_by_status_and_can_be_given_up(
    real_client: redis.Redis, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = Connections(real_client, real_client)
    monkeypatch.setattr(restore_module.Imports, "finish", lambda *_, **__: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        imported(real_client, archive)
    assert server_status(connections)["importing"] == ["y"]
    assert server_status(connections)["indexes"] == []
    with pytest.raises(IndexMissingError) as caught:
        index_of(real_client)
    assert "379 items so far" in caught.value.why
    assert abandon_import(real_client, "y")
    assert not abandon_import(real_client, "y")
    assert list(real_client.scan_iter("sh:*")) == []


def test_an_import_given_up_while_it_runs_stops_and_leaves_nothing(
    fake: Client, small_blocks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = restore_module._Import._write

    def given_up(self: Any, part: ItemsPart, *others: Any) -> None:
        monkeypatch.setattr(restore_module._Import, "_write", write)
        write(self, part, *others)
        assert abandon_import(fake, "y")
        write(self, part, *others)

    monkeypatch.setattr(restore_module._Import, "_write", given_up)
    with pytest.raises(StreamHashError, match="given up"):
        imported(fake, small_blocks)
    assert list(fake.scan_iter("*")) == []


def test_an_import_whose_partition_is_not_as_it_was_stops_rather_than_leave_items_out(
    fake: Client, small_blocks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stray trainer has begun a generation in it: the write script refuses every item."""
    write = restore_module._Import._write

    def meddled(self: Any, part: ItemsPart, *others: Any) -> None:
        for partition in range(SETTINGS.partitions):
            fake.hset(IndexKeys("y").partition(partition).state, "building", "9")
        write(self, part, *others)

    monkeypatch.setattr(restore_module._Import, "_write", meddled)
    with pytest.raises(StreamHashError, match="given up"):
        imported(fake, small_blocks)
    assert fake.hget(IndexKeys("y").importing, "done") == b"0"


def test_an_index_listed_and_not_there_yet_keeps_nobody_from_the_status(real_client: redis.Redis) -> None:
    real_client.sadd("sh:indexes", "later")
    assert server_status(Connections(real_client, real_client))["indexes"] == []
