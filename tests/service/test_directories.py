"""Directories that are kept: no item is missed for it, and they are read again when they have to be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import redis
from test_search import filled, ids, vectors

from stream_hash.client import Index
from stream_hash.service import directories as directories_module
from stream_hash.service.connections import Connections
from stream_hash.service.directories import Directories
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.settings import IndexSettings
from stream_hash.storage import buckets as buckets_module
from stream_hash.storage.buckets import BucketReader, Gathered
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client

SETTINGS = IndexSettings(12, bits=16, tables=2)
PLANS: list[dict[str, Any]] = [{"budget": 10_000, "fetch": None}, {"radius": 16}]
"""Plans that go by the directory and find every item."""


def write(client: Client, name: str, item_ids: list[str], x: np.ndarray) -> None:
    """Another process writes items."""
    handle = IndexHandle(client, "x")
    handle.ledger.accept(name, Batch("upsert", item_ids, x, None, None), lease_until=0)
    apply_batch(handle, name)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was read of buckets: "directories" and "gather"."""
    told: list[str] = []
    for name in ("directories", "gather"):
        whole = getattr(BucketReader, name)

        def reading(self: BucketReader, wanted: Any, name: str = name, whole: Any = whole) -> Any:
            told.append(name)
            return whole(self, wanted)

        monkeypatch.setattr(BucketReader, name, reading)
    return told


def new_buckets_are_found(client: Client, partitions: int) -> None:
    """Items that lie in buckets which opened after the directory was read."""
    index = filled(client, IndexSettings(12, bits=16, tables=2, partitions=partitions), 150)
    query = vectors(1, 12, seed=3)[0]
    for plan in PLANS:
        index.query(query, **plan)
    for step in range(4):
        far = query + np.random.default_rng(step).normal(0, 0.2, (3, 12)).astype(np.float32)
        write(client, f"new{step}", [f"n{step}{row}" for row in range(3)], far)
        for plan in PLANS:
            assert index.query(query, **plan)[0].results == index.query(query, exact=True)[0].results


def test_an_item_in_a_bucket_newer_than_the_directory_is_found(client: Client, partitions: int) -> None:
    new_buckets_are_found(client, partitions)


def test_a_search_that_learns_nothing_of_new_buckets_is_caught(
    real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(self: Directories, partition: int, found: Gathered) -> list[np.ndarray]:
        return [np.empty(0, dtype=np.uint64) for _ in found.opened]

    monkeypatch.setattr(Directories, "learn", learn)
    with pytest.raises(AssertionError):
        new_buckets_are_found(real_client, 1)


def test_a_list_begun_anew_before_it_was_read_makes_the_directory_be_read(
    client: Client, partitions: int, reads: list[str]
) -> None:
    index = filled(client, IndexSettings(12, bits=16, partitions=partitions), 300)
    query = vectors(1, 12, seed=3)[0]
    index.query(query)
    for p in range(partitions):
        keys = index._handle.store.partition(p)
        client.rpush(keys.opened(1, 0), *[1] * 1_100)
    reads.clear()
    write(client, "new", ["near"], query[None, :])
    (answer,) = index.query(query)
    assert answer.results[0].id == "near"
    assert reads.count("gather") == 2


def test_a_directory_is_read_once_and_new_buckets_far_away_cost_no_second_gather(
    client: Client, reads: list[str]
) -> None:
    index = filled(client, SETTINGS, 2_000)
    queries = vectors(30, 12, seed=3)
    for query in queries:
        index.query(query, budget=30)
    assert reads == ["directories"] + 30 * ["gather"]
    reads.clear()
    write(client, "new", ["n0", "n1"], -queries[:2])
    index.query(queries[0], budget=30)
    assert reads == ["gather"]


def test_a_new_bucket_that_would_have_been_probed_is_gathered_at_once(client: Client, reads: list[str]) -> None:
    index = filled(client, SETTINGS, 2_000)
    query = vectors(1, 12, seed=3)[0]
    index.query(query, budget=30)
    # of hundreds of items this near one lies in a bucket that was empty
    near = query + np.random.default_rng(0).normal(0, 0.3, (100, 12)).astype(np.float32)
    reads.clear()
    write(client, "new", [f"n{row}" for row in range(100)], near)
    index.query(query, budget=30)
    assert reads == ["gather", "gather"]


@pytest.mark.parametrize("by", [-250, 250])
def test_a_partition_of_many_more_or_fewer_items_has_its_directory_read_again(
    client: Client, reads: list[str], by: int
) -> None:
    index = filled(client, SETTINGS, 1_000)
    query = vectors(1, 12, seed=3)[0]
    index.query(query, budget=30)
    if by > 0:
        write(client, "new", [f"n{row}" for row in range(by)], vectors(by, 12, seed=8))
    else:
        Index("x", Connections(client, None)).delete(ids(1_000)[by:])
    reads.clear()
    index.query(query, budget=30)
    assert reads == ["gather", "directories", "gather"]


def test_an_old_directory_is_read_again(client: Client, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled(client, SETTINGS, 100)
    query = vectors(1, 12, seed=3)[0]
    for now, expected in ((1_000.0, 1), (1_059.0, 1), (1_061.0, 2), (900.0, 3)):  # a clock may be set back
        monkeypatch.setattr(directories_module, "now_seconds", lambda now=now: now)
        index.query(query, budget=30)
        assert reads.count("directories") == expected


def count_too_high(index: Index, by: int) -> None:
    """Let the directory that was kept say that there are so many times more members in each bucket."""
    kept = index._handle.directories.kept(0, 1)
    assert kept is not None
    for table in kept.tables:
        table.members *= by
        table._counts *= by


def test_counts_too_high_keep_no_item_from_a_budget_that_is_enough_for_all(client: Client) -> None:
    """Members moved into other buckets, and each is counted in both."""
    index = filled(client, IndexSettings(12, bits=16), 100)
    query = vectors(1, 12, seed=3)[0]
    index.query(query, budget=150)
    count_too_high(index, 3)
    (answer,) = index.query(query, budget=150, fetch=None)
    assert answer.candidates == 100


def test_what_replaces_a_budget_that_fell_short_holds_the_budget(client: Client) -> None:
    """Of a few candidates that are near in bits some are far away, and what the budget had found is not looked at."""
    index = filled(client, IndexSettings(12, bits=16), 200)
    query = vectors(1, 12, seed=3)[0]
    index.query(query, budget=80)
    count_too_high(index, 100)
    (answer,) = index.query(query, k=10, budget=80)
    assert answer.widened
    assert answer.candidates >= 80


def test_buckets_that_were_emptied_do_no_harm(client: Client) -> None:
    index = filled(client, SETTINGS, 200)
    query = vectors(1, 12, seed=3)[0]
    index.query(query, budget=40)
    nearest = [result.id for result in index.query(query, k=19, exact=True)[0].results]
    Index("x", Connections(client, None)).delete(nearest)
    (answer,) = index.query(query, k=10, budget=10_000, fetch=None)
    assert answer.results == index.query(query, k=10, exact=True)[0].results
    assert len(index.query(query, k=181, budget=5)[0].results) == 181


def test_directories_larger_than_one_call_may_read_are_kept_all_the_same(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets_module, "DIRECTORY_AT_ONCE", 10)
    with mock.patch.object(BucketReader, "_scan", autospec=True, side_effect=BucketReader._scan) as scanned:
        new_buckets_are_found(client, 1)
    assert scanned.called


def opened_between(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets open after the positions in the lists were read, and before the directories are."""
    index = filled(client, IndexSettings(12, bits=16), 30)
    query = vectors(1, 12, seed=3)[0]
    directory = buckets_module._directory

    def late(reply: dict[bytes, bytes]) -> Any:
        """As if the directory had been read before the bucket opened."""
        monkeypatch.setattr(buckets_module, "_directory", directory)
        write(client, "new", ["near"], query[None, :])
        return directory(reply)

    monkeypatch.setattr(buckets_module, "_directory", late)
    assert index.query(query, budget=5, k=1)[0].results[0].id == "near"


def test_a_bucket_that_opens_while_the_directory_is_read_is_found(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_between(client, monkeypatch)


def test_reading_the_position_after_the_directory_is_caught(
    real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of rule 3: a position of a moment later."""
    directories = BucketReader.directories

    def later(self: BucketReader, wanted: Any) -> Any:
        found = directories(self, wanted)
        now = directories(self, wanted)
        return [
            [
                buckets_module.Listing(one.codes, one.counts, new.position, one.items)
                for one, new in zip(tables, newer, strict=True)
            ]
            for tables, newer in zip(found, now, strict=True)
        ]

    monkeypatch.setattr(BucketReader, "directories", later)
    with pytest.raises(AssertionError):
        opened_between(real_client, monkeypatch)
