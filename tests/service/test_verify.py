"""Verify sees every kind of damage, and nothing where there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import redis
from test_search import filled, vectors

from stream_hash.client import Index
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch, encode_values
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys

SETTINGS = IndexSettings(12, bits=6, tables=2)
KEYS = IndexKeys("x").partition(0)


def some_bucket(client: Client) -> tuple[str, bytes]:
    key = sorted(client.scan_iter(match=KEYS.prefix + "bucket:1:0:*"))[0]
    return key.decode(), sorted(client.smembers(key))[0]


def drop_a_member(client: Client) -> None:
    client.srem(*some_bucket(client))


def add_a_member_of_nobody(client: Client) -> None:
    client.sadd(some_bucket(client)[0], (5 << 24) + 9_999)


def move_a_member(client: Client) -> None:
    key, member = some_bucket(client)
    client.smove(key, KEYS.bucket(1, 0, 63), member)


def miscount_a_bucket(client: Client) -> None:
    key, _ = some_bucket(client)
    client.hincrby(KEYS.directory(1, 0), key.rsplit(":", 1)[1], 1)


def forget_a_bucket(client: Client) -> None:
    key, _ = some_bucket(client)
    client.hdel(KEYS.directory(1, 0), key.rsplit(":", 1)[1])


def change_a_vector(client: Client) -> None:
    (blob,) = encode_values(np.array([1]), -vectors(60, 12)[:1], ["i00000"], "float32")
    client.set(KEYS.value(0), blob)


def change_a_sequence_number(client: Client) -> None:
    (blob,) = encode_values(np.array([7]), vectors(60, 12)[:1], ["i00000"], "float32")
    client.set(KEYS.value(0), blob)


def lose_a_value(client: Client) -> None:
    client.delete(KEYS.value(3))


def lose_a_record(client: Client) -> None:
    client.hdel(KEYS.records, "i00003")


def miscount_the_items(client: Client) -> None:
    client.hincrby(KEYS.state, "items", 1)


def leave_buckets_of_a_retired_generation(client: Client) -> None:
    handle = IndexHandle(client, "x")
    handle.models.publish(handle.identity.nonce, 2, handle.models.load(1), kind="lsh", created=0.0)
    client.hset(KEYS.directory(2, 0), "5", 1)


def miscount_the_members(client: Client) -> None:
    client.hincrby(KEYS.state, "members:1:1", 1)


def change_a_place(client: Client) -> None:
    client.setrange(KEYS.places(1, 0), 3 * 7 + 4, b"\xff\xff\xff")


def lose_a_place(client: Client) -> None:
    client.setrange(KEYS.places(1, 0), 3 * 7, bytes(7))


def give_a_place_to_nobody(client: Client) -> None:
    client.setrange(KEYS.places(1, 0), 400 * 7, b"\x80")


def leave_places_of_a_retired_generation(client: Client) -> None:
    handle = IndexHandle(client, "x")
    handle.models.publish(handle.identity.nonce, 2, handle.models.load(1), kind="lsh", created=0.0)
    client.set(KEYS.places(2, 0), "x")


def leave_counts_of_a_retired_generation(client: Client) -> None:
    handle = IndexHandle(client, "x")
    handle.models.publish(handle.identity.nonce, 2, handle.models.load(1), kind="lsh", created=0.0)
    client.hset(KEYS.state, "members:2:0", 5)


def say_that_a_chunk_is_built(client: Client) -> None:
    handle = IndexHandle(client, "x")
    handle.models.publish(handle.identity.nonce, 2, handle.models.load(1), kind="lsh", created=0.0)
    handle.generations.begin(0, 2, 1)
    client.setbit(KEYS.built(2), 0, 1)


def free_a_number_in_use(client: Client) -> None:
    client.rpush(KEYS.free, 3)


def list_a_label_of_nobody(client: Client) -> None:
    client.zadd(KEYS.labelled, {"9999": 5})


def forget_a_label(client: Client) -> None:
    client.zrem(KEYS.labelled, 3)


def lose_an_accepted_item(client: Client) -> None:
    client.hincrby(IndexKeys("x").counters, "accepted", 1)


def rewind_the_sequence(client: Client) -> None:
    client.set(IndexKeys("x").sequence, 3)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_a_member, "is missing from its bucket"),
        (add_a_member_of_nobody, "belongs to no item"),
        (move_a_member, "is missing from its bucket"),
        (miscount_a_bucket, "holds"),
        (forget_a_bucket, "holds"),
        (change_a_vector, "not the hash of its vector"),
        (change_a_sequence_number, "of different writes"),
        (lose_a_value, "has a record and no value"),
        (lose_a_record, "counts 60 items and has records of 59"),
        (miscount_the_items, "counts 61 items"),
        (leave_buckets_of_a_retired_generation, "generation 2 is not in use and has 1 keys left"),
        (leave_places_of_a_retired_generation, "generation 2 is not in use and has 1 keys left"),
        (leave_counts_of_a_retired_generation, "generation 2 is not in use and has 1 keys left"),
        (miscount_the_members, "it counts 61 members in table 1, generation 1, which has 60"),
        (change_a_place, "not the hash of its vector"),
        (lose_a_place, "item 'i00003' has no place in generation 1"),
        (give_a_place_to_nobody, "item number 400 has a place in generation 1 and belongs to no item"),
        (say_that_a_chunk_is_built, "has no place in generation 2"),
        (lose_an_accepted_item, "the ledger has accepted 61"),
        (rewind_the_sequence, "has a sequence number that was never given out"),
        (free_a_number_in_use, "item number 3 is free and in use"),
        (list_a_label_of_nobody, "item number 9999 is listed as labelled"),
        (forget_a_label, "is not listed as labelled"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damage_is_reported(damage: Callable[[Client], None], said: str, client: Client) -> None:
    index = filled(client, SETTINGS, 60)
    assert index.verify().violations == []
    damage(client)
    violations = index.verify().violations
    assert any(said in violation for violation in violations), violations


def test_many_suspects_are_settled_in_as_many_round_trips_as_one(
    real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind there is: items, buckets, members, places, labels, free numbers."""
    index = filled(real_client, SETTINGS, 60)
    assert index.verify().violations == []
    sent: list[int] = []
    execute = redis.client.Pipeline.execute

    def noted(self: redis.client.Pipeline, *args: bool, **options: bool) -> list[object]:
        sent.append(1)
        return execute(self, *args, **options)

    monkeypatch.setattr(redis.client.Pipeline, "execute", noted)
    trips = []
    for count in (1, 40):
        for number in range(count):
            real_client.zadd(KEYS.labelled, {str(number): 10**6, str(9_000 + number): 5})
            real_client.rpush(KEYS.free, number)
            real_client.setrange(KEYS.places(1, 0), (400 + number) * 7, b"\xff" * 7)
        for bucket in sorted(real_client.scan_iter(match=KEYS.prefix + "bucket:1:0:*"))[:count]:
            real_client.sadd(bucket, (5 << 24) + 9_999)
        sent.clear()
        violations = index.verify().violations
        trips.append(len(sent))
        for said in ("not listed as labelled", "listed as labelled and", "is free", "has a place", "holds", "no item"):
            assert sum(said in one for one in violations) >= min(count, 15), (said, violations)
    assert trips[0] == trips[1]


def test_a_generation_that_is_being_retired_may_have_keys(client: Client) -> None:
    index = filled(client, SETTINGS, 60)
    leave_places_of_a_retired_generation(client)
    client.hset(KEYS.state, "retiring", "2")
    assert index.verify().violations == []


def test_a_busy_index_is_clean(real_client: redis.Redis, embedded_url: str) -> None:
    index = filled(real_client, SETTINGS, 200)
    stop = threading.Event()

    def write() -> None:
        with redis.Redis.from_url(embedded_url) as client:
            handle = IndexHandle(client, "x")
            rng = np.random.default_rng(5)
            for round_number in range(100_000):
                if stop.is_set():
                    return
                ids = [f"i{i:05}" for i in rng.integers(0, 300, 20)]
                x = rng.normal(0.3, 1, (20, 12)).astype(np.float32)
                batch = Batch("upsert", ids, x) if round_number % 3 else Batch("delete", ids)
                handle.ledger.accept(f"w{round_number}", batch, lease_until=0)
                apply_batch(handle, f"w{round_number}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        reports = [index.verify() for _ in range(15)]
    finally:
        stop.set()
        writer.join()
    assert [report.violations for report in reports] == [[]] * 15
    assert all(report.items for report in reports)
    assert Index("x", Connections(real_client, None)).status()["applied"] > 400
