"""The protocol of the scripts as scenarios: each is a claim that fails when its rule is taken out.

`test_protocol.py` runs them on every server, and against scripts with one rule removed, where one must fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from unittest import mock

import numpy as np
import oracle
import pytest
from numpy.typing import NDArray

from stream_hash.errors import BackPressureError, IndexMissingError, PartitionFullError
from stream_hash.settings import IndexSettings
from stream_hash.storage import ledger as ledger_module
from stream_hash.storage import store as store_module
from stream_hash.storage.codec import Batch, decode_record, encode_values
from stream_hash.storage.connection import Client, is_cluster
from stream_hash.storage.keys import partition_of
from stream_hash.storage.ledger import RECEIPT_SECONDS, DeadLetter, Ledger
from stream_hash.storage.models import Models
from stream_hash.storage.places import encode_places
from stream_hash.storage.store import HELD, IGNORED, WRITTEN, Stale, State, Store

SETTINGS = IndexSettings(3, bits=8, tables=2, partitions=6)
LIVE = State(1)
PARTITION_OF_A = partition_of("a", SETTINGS.partitions)


def place(code: int, signature: int = 2**39 - 1) -> NDArray[np.uint8]:
    """The place of one item whose code is `code` in table 0 and `code` + 1 in table 1."""
    return encode_places(np.array([[code, code + 1]], np.uint64), np.array([signature], np.uint64), SETTINGS)


class Bench:
    """An index with generation 1 live, written to by hand: an item's codes are those it is told."""

    def __init__(self, client: Client, scripts: Mapping[str, str] | None = None) -> None:
        self.client = client
        self.scripts = scripts
        self.store = Store(client, "bench", nonce="nonce", scripts=scripts)
        self.ledger = Ledger(client, "bench", scripts=scripts)
        with mock.patch.object(store_module.secrets, "token_hex", return_value="nonce"):
            self.store.create(SETTINGS)
        self.store.activate(SETTINGS, 1, "nonce")
        self.nonce = self.store.settings().nonce
        self.models = Models(client, "bench", scripts=scripts)

    def upsert(
        self,
        item_id: str,
        sequence: int,
        code: int,
        *,
        state: State = LIVE,
        label: str = "",
        metadata: str = "",
        signature: int = 2**39 - 1,
    ) -> int | Stale:
        """Write one item whose code is `code` in table 0 and `code` + 1 in table 1, of every generation."""
        vector = np.full((1, 3), sequence, dtype=np.float32)
        values = encode_values(np.array([sequence]), vector, [item_id], "float32")
        places = [place(code, signature)]
        outcome = self.store.upsert(
            partition_of(item_id, SETTINGS.partitions),
            state,
            [item_id],
            [sequence],
            values,
            [label],
            [metadata],
            places * len(state.writable),
        )
        return outcome if isinstance(outcome, Stale) else outcome[0]

    def delete(self, item_id: str, sequence: int) -> int:
        outcome = self.store.delete(partition_of(item_id, SETTINGS.partitions), LIVE, [item_id], [sequence])
        assert not isinstance(outcome, Stale)
        return outcome[0]

    def label(self, item_id: str, sequence: int, label: str) -> int:
        outcome = self.store.label(partition_of(item_id, SETTINGS.partitions), LIVE, [item_id], [sequence], [label])
        assert not isinstance(outcome, Stale)
        return outcome[0]

    def buckets_of(self, item_id: str) -> list[str]:
        """The buckets that hold an item's number, as GENERATION:TABLE:CODE."""
        keys = self.store.partition(partition_of(item_id, SETTINGS.partitions))
        text = self.client.hget(keys.records, item_id)
        number = decode_record(text).number if text is not None else None
        found = []
        for key in self.client.scan_iter(match=keys.prefix + "bucket:*"):
            if number in [int(m) & 0xFFFFFF for m in self.client.smembers(key)]:
                found.append(key.decode().removeprefix(keys.prefix + "bucket:"))
        return sorted(found)

    def all_buckets(self) -> dict[str, int]:
        return {k.decode(): self.client.scard(k) for k in self.client.scan_iter(match="sh:{bench*bucket:*")}

    def directories(self) -> dict[str, int]:
        """Every directory entry, under the key of its bucket."""
        return {
            f"{key.decode().replace('directory', 'bucket')}:{code.decode()}": int(count)
            for key in self.client.scan_iter(match="sh:{bench*directory:*")
            for code, count in self.client.hgetall(key).items()
        }

    def opened(self, table: int = 0) -> list[bytes]:
        """The buckets that were opened in the partition of "a"."""
        return self.client.lrange(self.store.partition(PARTITION_OF_A).opened(1, table), 0, -1)

    def record(self, item_id: str):
        keys = self.store.partition(partition_of(item_id, SETTINGS.partitions))
        text = self.client.hget(keys.records, item_id)
        return decode_record(text) if text is not None else None

    def set_state(self, item_id: str, **fields: str) -> None:
        keys = self.store.partition(partition_of(item_id, SETTINGS.partitions))
        self.client.hset(keys.state, mapping=fields)

    def dump(self) -> dict[str, object]:
        return oracle.dump(self.client, "bench")


def an_item_is_in_one_bucket_a_table_and_counted(bench: Bench) -> None:
    assert bench.upsert("a", 1, 5) == WRITTEN
    assert bench.buckets_of("a") == ["1:0:5", "1:1:6"]
    assert bench.directories() == bench.all_buckets()


def a_writer_that_hashed_for_other_generations_writes_nothing(bench: Bench) -> None:
    bench.upsert("a", 1, 5)
    for fields, stale in (({"building": "2"}, State(1, 2)), ({"live": "2", "building": ""}, State(2))):
        bench.set_state("a", **fields)
        before = bench.dump()
        assert bench.upsert("a", 2, 7) == Stale(stale)
        assert bench.store.delete(PARTITION_OF_A, LIVE, ["a"], [2]) == Stale(stale)
        assert bench.dump() == before


def a_write_goes_to_every_writable_generation(bench: Bench) -> None:
    bench.upsert("a", 1, 5)
    bench.set_state("a", building="2")
    assert bench.upsert("a", 2, 9, state=State(1, 2)) == WRITTEN
    assert bench.buckets_of("a") == ["1:0:9", "1:1:10", "2:0:9", "2:1:10"]
    assert bench.directories() == bench.all_buckets()


def an_older_write_never_overwrites_a_newer(bench: Bench) -> None:
    bench.upsert("a", 5, 5, label='"new"')
    before = bench.dump()
    assert bench.upsert("a", 4, 9, label='"old"') == IGNORED
    assert bench.upsert("a", 5, 9) == IGNORED
    assert bench.delete("a", 4) == IGNORED
    assert bench.label("a", 4, '"old"') == IGNORED
    assert bench.dump() == before


def a_deleted_item_stays_deleted(bench: Bench) -> None:
    bench.upsert("a", 1, 5)
    assert bench.delete("a", 3) == WRITTEN
    assert bench.all_buckets() == {}
    before = bench.dump()
    assert bench.upsert("a", 2, 7) == IGNORED
    assert bench.dump() == before


def a_delete_that_overtakes_its_upsert_wins(bench: Bench) -> None:
    assert bench.delete("a", 3) == HELD
    assert bench.upsert("a", 2, 7) == IGNORED
    assert bench.all_buckets() == {}
    assert bench.upsert("a", 4, 7) == WRITTEN


def an_older_delete_never_removes_a_newer_item(bench: Bench) -> None:
    bench.upsert("a", 5, 5)
    assert bench.delete("a", 4) == IGNORED
    assert bench.buckets_of("a") == ["1:0:5", "1:1:6"]


def a_write_older_than_a_forgotten_tombstone_is_still_ignored(bench: Bench) -> None:
    """A worker paused with an upsert in its hands, while the item is deleted and the tombstone forgotten."""
    bench.upsert("a", 1, 5)
    bench.delete("a", 2)
    for partition in range(SETTINGS.partitions):
        bench.store.purge(partition, 3)
    assert bench.record("a") is None
    assert bench.upsert("a", 1, 5) == IGNORED
    assert bench.delete("a", 2) == IGNORED
    assert bench.label("a", 2, '"late"') == IGNORED
    assert bench.all_buckets() == {}
    assert bench.record("a") is None


def a_tombstone_is_kept_while_an_older_write_may_arrive(bench: Bench) -> None:
    bench.delete("a", 5)
    bench.store.purge(PARTITION_OF_A, 3)
    assert bench.upsert("a", 4, 7) == IGNORED
    bench.store.purge(PARTITION_OF_A, 6)
    assert bench.record("a") is None


def the_floor_never_sinks(bench: Bench) -> None:
    bench.store.purge(0, 9)
    bench.store.purge(0, 4)
    assert bench.client.hget(bench.store.partition(0).state, "floor") == b"9"


def a_bucket_that_opens_is_listed_each_time(bench: Bench) -> None:
    """In the order of events, and only when it was empty before."""
    other, third = [i for i in map(str, range(99)) if partition_of(i, SETTINGS.partitions) == PARTITION_OF_A][:2]
    bench.upsert("a", 1, 5)
    bench.upsert(other, 2, 5)
    bench.upsert(third, 3, 9)
    assert bench.opened() == [b"5", b"9"]
    bench.upsert(third, 4, 5)
    bench.delete(other, 5)
    assert bench.opened() == [b"5", b"9"]
    bench.upsert(other, 6, 9)
    assert bench.opened() == [b"5", b"9", b"9"]
    assert bench.opened(table=1) == [b"6", b"10", b"10"]


def a_list_of_opened_buckets_is_begun_anew_and_that_is_counted(bench: Bench) -> None:
    keys = bench.store.partition(PARTITION_OF_A)
    bench.client.rpush(keys.opened(1, 0), *range(1_000, 2_022))
    bench.upsert("a", 1, 5)
    assert len(bench.opened()) == 1_023
    assert bench.client.hget(keys.state, "cleared:1:0") is None
    bench.upsert("a", 2, 6)
    assert bench.opened() == []
    assert bench.client.hget(keys.state, "cleared:1:0") == b"1"
    bench.upsert("a", 3, 7)
    assert bench.opened() == [b"7"]
    assert bench.client.hget(keys.state, "cleared:1:0") == b"1"


def the_list_of_a_large_directory_is_longer(bench: Bench) -> None:
    """So that reading that directory again costs no more than a few codes for each that was opened."""
    keys = bench.store.partition(PARTITION_OF_A)
    bench.client.hset(keys.directory(1, 0), mapping={str(code): 1 for code in range(1_000, 10_000)})
    bench.client.rpush(keys.opened(1, 0), *range(1_000, 2_100))
    bench.upsert("a", 1, 5)
    assert len(bench.opened()) == 1_101
    bench.client.rpush(keys.opened(1, 0), *range(30))
    bench.upsert("a", 2, 6)
    assert bench.opened() == []


def an_upsert_removes_the_old_members_by_the_stored_codes(bench: Bench) -> None:
    bench.upsert("a", 1, 5, signature=1)
    bench.upsert("a", 2, 60, signature=2)
    assert bench.all_buckets().keys() == bench.directories().keys()
    assert bench.buckets_of("a") == ["1:0:60", "1:1:61"]
    assert len(bench.all_buckets()) == 2


def a_delete_leaves_no_member_no_value_and_no_count(bench: Bench) -> None:
    bench.upsert("a", 1, 5, label="7")
    bench.delete("a", 2)
    keys = bench.store.partition(PARTITION_OF_A)
    assert bench.all_buckets() == {}
    assert bench.directories() == {}
    assert bench.client.get(keys.value(0)) is None
    assert bench.client.zcard(keys.labelled) == 0
    assert bench.client.hget(keys.state, "items") == b"0"


def item_numbers_are_dense_and_reused(bench: Bench) -> None:
    ids = [i for i in map(str, range(200)) if partition_of(i, SETTINGS.partitions) == 0][:6]
    for sequence, item_id in enumerate(ids[:4], 1):
        bench.upsert(item_id, sequence, 5)
    bench.delete(ids[1], 10)
    bench.upsert(ids[4], 11, 5)
    bench.upsert(ids[5], 12, 5)
    numbers = [bench.record(item_id).number for item_id in ids]
    assert numbers == [0, None, 2, 3, 1, 4]


def a_full_partition_refuses_new_items_and_takes_updates(bench: Bench) -> None:
    bench.upsert("a", 1, 5)
    bench.set_state("a", next=str(2**24))
    assert bench.upsert("a", 2, 6) == WRITTEN
    other = next(i for i in map(str, range(200)) if partition_of(i, SETTINGS.partitions) == PARTITION_OF_A)
    before = bench.dump()
    with pytest.raises(PartitionFullError, match="full"):
        bench.upsert(other, 3, 5)
    assert bench.dump() == before
    bench.delete("a", 4)
    assert bench.upsert(other, 5, 5) == WRITTEN


def a_label_newer_than_its_item_survives_the_item(bench: Bench) -> None:
    assert bench.label("a", 5, '"cat"') == HELD
    assert bench.upsert("a", 4, 9, label='"dog"') == WRITTEN
    assert bench.record("a").label == '"cat"'
    assert bench.label("a", 6, "") == WRITTEN
    assert bench.record("a").label == ""


def a_label_newer_than_a_delete_outlives_it(bench: Bench) -> None:
    """upsert 1, delete 2, label 4 before upsert 3: the horizon has passed 2 but not 3."""
    bench.upsert("a", 1, 5, label='"old"')
    bench.label("a", 4, '"new"')
    assert bench.delete("a", 2) == WRITTEN
    bench.store.purge(PARTITION_OF_A, 3)
    assert bench.upsert("a", 3, 6) == WRITTEN
    assert bench.record("a").label == '"new"'


def a_delete_takes_an_older_label_with_it(bench: Bench) -> None:
    bench.upsert("a", 1, 5, label='"old"')
    bench.delete("a", 3)
    assert bench.label("a", 2, '"late"') == IGNORED
    assert (bench.record("a").label, bench.record("a").label_sequence) == ("", 0)
    bench.upsert("a", 4, 5)
    assert bench.record("a").label == ""


def a_generation_goes_live_once(bench: Bench) -> None:
    bench.upsert("a", 1, 5)
    bench.set_state("a", live="2")
    before = bench.dump()
    bench.store.activate(SETTINGS, 1, "nonce")
    assert bench.dump() == before


def a_partition_goes_live_for_the_index_that_has_the_name(bench: Bench) -> None:
    """Not for one that was wiped, by a worker that was paused between publishing the first model and activating it."""
    bench.client.flushall()
    if is_cluster(bench.client):  # the settings are on another node: who comes late is not told
        bench.store.activate(SETTINGS, 1, "nonce")
        assert bench.client.hget(bench.store.partition(0).state, "nonce") == b"nonce"
        return
    with pytest.raises(IndexMissingError, match="any more"):
        bench.store.activate(SETTINGS, 1, "nonce")
    bench.store.create(SETTINGS)
    before = bench.dump()
    with pytest.raises(IndexMissingError, match="any more"):
        bench.store.activate(SETTINGS, 1, "nonce")
    assert bench.dump() == before
    bench.store.activate(SETTINGS, 1, bench.store.settings().nonce)
    assert bench.store.states(SETTINGS.partitions) == [LIVE] * SETTINGS.partitions


def a_model_once_published_never_changes(bench: Bench) -> None:
    first = bench.models.publish(bench.nonce, 1, {"w": np.ones(3)}, kind="lsh", created=1.0)
    assert bench.models.publish(bench.nonce, 1, {"w": np.zeros(3)}, kind="lsh", created=2.0) == first
    assert bench.models.load(1)["w"].tolist() == [1, 1, 1]


def a_model_of_another_index_is_not_published(bench: Bench) -> None:
    """By a worker that was paused before it published the first, until the index was wiped and created again."""
    before = bench.dump()
    with pytest.raises(IndexMissingError, match="not the one that was opened"):
        bench.models.publish("older nonce", 1, {"w": np.ones(3)}, kind="lsh", created=1.0)
    assert bench.dump() == before
    bench.client.delete(bench.store.keys.settings)
    with pytest.raises(IndexMissingError):
        bench.models.publish(bench.nonce, 1, {"w": np.ones(3)}, kind="lsh", created=1.0)
    assert bench.models.records() == []


def a_generation_that_was_forgotten_is_not_published_again(bench: Bench) -> None:
    """By a worker that was paused before it published the first, until others had followed and it was forgotten."""
    bench.models.publish(bench.nonce, 2, {"w": np.ones(3)}, kind="lsh", created=1.0)
    before = bench.dump()
    assert bench.models.publish(bench.nonce, 1, {"w": np.zeros(3)}, kind="lsh", created=2.0) is None
    assert bench.dump() == before


def all_tombstones_below_the_horizon_are_forgotten_at_once(bench: Bench) -> None:
    ids = [f"i{i}" for i in range(2_500 * SETTINGS.partitions)]
    mine = [i for i in ids if partition_of(i, SETTINGS.partitions) == 0]
    bench.store.delete(0, LIVE, mine, list(range(1, len(mine) + 1)))
    assert bench.store.purge(0, len(mine)) == len(mine) - 1
    assert bench.client.hlen(bench.store.partition(0).records) == 1


def labelled_items_are_listed_by_the_age_of_their_label(bench: Bench) -> None:
    ids = [i for i in map(str, range(200)) if partition_of(i, SETTINGS.partitions) == 0][:3]
    keys = bench.store.partition(0)
    for sequence, item_id in enumerate(ids, 1):
        bench.upsert(item_id, sequence, 5, label="1" if sequence != 2 else "")
    assert bench.client.zrange(keys.labelled, 0, -1, withscores=True) == [(b"0", 1.0), (b"2", 3.0)]
    bench.label(ids[0], 9, "2")
    bench.label(ids[2], 10, "")
    assert bench.client.zrange(keys.labelled, 0, -1, withscores=True) == [(b"0", 9.0)]


def members_are_exact_up_to_their_63rd_bit(bench: Bench) -> None:
    # a script adds the number to the last nine digits: some of these carry into the tenth
    carrying = [s for s in range(2**38, 2**38 + 3_000) if (s << 24) % 10**9 > 999_000_000]
    assert carrying
    signatures = [0, 1, 59, 60, 2**39 - 1, *carrying]
    for sequence, signature in enumerate(signatures, 1):
        item_id = f"i{sequence}"
        bench.set_state(item_id, next=str(1_000_000 + sequence))
        bench.upsert(item_id, sequence, 5, signature=signature)
        record = bench.record(item_id)
        keys = bench.store.partition(partition_of(item_id, SETTINGS.partitions))
        members = bench.client.smembers(keys.bucket(1, 0, 5)) | bench.client.smembers(keys.bucket(1, 1, 6))
        assert b"%d" % ((signature << 24) + record.number) in members


def a_batch_is_accepted_once(bench: Bench) -> None:
    batch = Batch("delete", ["a", "b"])
    first = bench.ledger.accept("x", batch, lease_until=0)
    again = bench.ledger.accept("x", batch, lease_until=0)
    assert (first.first, first.known, again.first, again.known) == (1, False, 1, True)
    bench.ledger.begin("x", lease_until=0)
    bench.ledger.finish("x")
    assert bench.ledger.accept("x", batch, lease_until=0).known
    assert bench.ledger.accept("y", batch, lease_until=0).first == 3
    assert bench.ledger.balance().accepted == 4


def a_batch_is_finished_once_and_the_balance_holds_throughout(bench: Bench) -> None:
    letter = DeadLetter(2, 1, "x", "why", b"payload")
    assert bench.ledger.balance().holds
    bench.ledger.accept("x", Batch("delete", ["a", "b", "c"]), lease_until=0)
    assert bench.ledger.balance().holds
    assert bench.ledger.finish("x", [letter])
    assert not bench.ledger.finish("x", [letter])
    balance = bench.ledger.balance()
    assert (balance.accepted, balance.applied, balance.pending, balance.dead) == (3, 2, 0, 1)
    assert bench.ledger.dead_letters() == [letter]


def a_finished_batch_is_not_begun(bench: Bench) -> None:
    bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=0)
    delivery = bench.ledger.begin("x", lease_until=0)
    assert delivery is not None
    assert (delivery.first, delivery.attempts, delivery.items) == (1, 1, 1)
    bench.ledger.finish("x")
    assert bench.ledger.begin("x", lease_until=0) is None
    left = [
        key
        for key in bench.dump()
        if "batch:" in key or key.endswith(("pending", "leases", "sizes", "arrived", "attempts", "begun"))
    ]
    assert left == []


def an_attempt_counts_once_however_often_its_reply_is_lost(bench: Bench) -> None:
    bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=0)
    for attempts in (1, 2):
        with mock.patch.object(ledger_module.secrets, "token_hex", return_value=f"attempt {attempts}"):
            first = bench.ledger.begin("x", lease_until=1_000)
            after = bench.dump()
            assert bench.ledger.begin("x", lease_until=1_000) == first
        assert bench.dump() == after
        assert first is not None
        assert first.attempts == attempts
    assert bench.ledger.lease_overdue(999, 2_000) == []
    third = bench.ledger.begin("x", lease_until=1_000)
    assert third is not None
    assert third.attempts == 3, "who comes later is another, be it with the same lease"


def a_finished_batch_leaves_a_receipt_that_expires_and_nothing_else(bench: Bench) -> None:
    bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=0)
    bench.ledger.begin("x", lease_until=0)
    bench.ledger.release("x", now=0, failure="boom", blame_server=False)
    bench.ledger.begin("x", lease_until=0)
    bench.ledger.finish("x")
    bench.ledger.release("x", now=0, failure="late", blame_server=True)
    prefix = bench.ledger._keys.prefix
    left = {key.removeprefix(prefix) for key in bench.dump() if key.startswith(prefix)}
    assert left == {"settings", "sequence", "counters", "tallies", "receipt:x"}
    assert 0 < bench.client.ttl(prefix + "receipt:x") <= RECEIPT_SECONDS


def an_overdue_batch_is_leased_to_one_sweeper(bench: Bench) -> None:
    bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=1_000)
    assert bench.ledger.lease_overdue(999, 2_000) == []
    assert bench.ledger.lease_overdue(1_000, 2_000) == ["x"]
    assert bench.ledger.lease_overdue(1_000, 2_000) == []
    bench.ledger.begin("x", lease_until=5_000)
    assert bench.ledger.lease_overdue(4_999, 6_000) == []


def a_released_batch_is_due_at_once_and_the_server_is_not_held_against_it(bench: Bench) -> None:
    bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=1_000)
    for blame_server, expected in ((False, 2), (True, 2), (False, 3)):
        bench.ledger.begin("x", lease_until=9_000)
        bench.ledger.release("x", now=50, failure="boom", blame_server=blame_server)
        assert bench.ledger.lease_overdue(50, 9_000) == ["x"]
        delivery = bench.ledger.begin("x", lease_until=9_000)
        assert delivery is not None
        assert delivery.failure == "boom"
        assert delivery.attempts == expected
        bench.ledger.release("x", now=50, failure="boom", blame_server=True)


def a_batch_is_given_back_once_however_often_its_reply_is_lost(bench: Bench) -> None:
    bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=1_000)
    for now in (50, 60):
        bench.ledger.begin("x", lease_until=9_000)
        bench.ledger.release("x", now=now, failure="boom", blame_server=True)
        after = bench.dump()
        bench.ledger.release("x", now=now, failure="boom", blame_server=True)
        assert bench.dump() == after
    bench.ledger.begin("x", lease_until=70)
    bench.ledger.release("x", now=70, failure="as its lease ran out", blame_server=True)
    delivery = bench.ledger.begin("x", lease_until=9_000)
    assert delivery is not None
    assert (delivery.attempts, delivery.failure) == (1, "as its lease ran out")


def the_horizon_is_the_oldest_write_still_on_its_way(bench: Bench) -> None:
    assert bench.ledger.horizon() == 1
    bench.ledger.accept("x", Batch("delete", ["a", "b"]), lease_until=0)
    bench.ledger.accept("y", Batch("delete", ["a", "b"]), lease_until=0)
    assert bench.ledger.horizon() == 1
    bench.ledger.finish("y")
    assert bench.ledger.horizon() == 1
    bench.ledger.finish("x")
    assert bench.ledger.horizon() == 5


def the_bound_on_pending_batches_refuses_and_takes_nothing(bench: Bench) -> None:
    for name in ("x", "y"):
        bench.ledger.accept(name, Batch("delete", ["a"]), lease_until=0, max_pending=2)
    before = bench.dump()
    with pytest.raises(BackPressureError, match="2 batches are pending"):
        bench.ledger.accept("z", Batch("delete", ["a"]), lease_until=0, max_pending=2)
    assert bench.dump() == before
    assert bench.ledger.accept("x", Batch("delete", ["a"]), lease_until=0, max_pending=2).known


def writes_of_one_call_see_each_other(bench: Bench) -> None:
    """A call reads its records before its first write: the second write of an id must see the first."""
    first, second, third = [i for i in map(str, range(200)) if partition_of(i, SETTINGS.partitions) == 0][:3]
    keys = bench.store.partition(0)

    def upsert(ids: list[str], sequence: int, labels: list[str]) -> None:
        sequences = list(range(sequence, sequence + len(ids)))
        values = encode_values(np.array(sequences), np.zeros((len(ids), 3), np.float32), ids, "float32")
        codes = np.array([[s, s + 1] for s in sequences], np.uint64)
        hashed = [encode_places(codes, np.zeros(len(ids), np.uint64), SETTINGS)]
        outcome = bench.store.upsert(0, LIVE, ids, sequences, values, labels, [""] * len(ids), hashed)
        assert outcome == [WRITTEN] * len(ids)

    upsert([first, second, first], 1, ["1", "2", ""])
    assert bench.buckets_of(first) == ["1:0:3", "1:1:4"]
    assert bench.directories() == bench.all_buckets()
    assert bench.client.hmget(keys.state, "next", "items") == [b"2", b"2"]
    assert bench.client.zrange(keys.labelled, 0, -1, withscores=True) == [(b"1", 2.0)]
    assert bench.client.get(keys.value(0))[:8] == (3).to_bytes(8, "little")

    assert bench.store.delete(0, LIVE, [first, first], [4, 5]) == [WRITTEN, HELD]
    assert bench.client.hget(keys.state, "items") == b"1"
    assert bench.client.lrange(keys.prefix + "free", 0, -1) == [b"0"]
    upsert([third, first], 6, ["", ""])
    assert [bench.record(i).number for i in (third, first, second)] == [0, 2, 1]
    assert bench.client.zcard(keys.tombstones) == 0
    assert bench.client.hmget(keys.state, "next", "items") == [b"3", b"3"]


STORE_SCENARIOS = (
    an_item_is_in_one_bucket_a_table_and_counted,
    a_writer_that_hashed_for_other_generations_writes_nothing,
    a_write_goes_to_every_writable_generation,
    an_older_write_never_overwrites_a_newer,
    a_deleted_item_stays_deleted,
    a_delete_that_overtakes_its_upsert_wins,
    an_older_delete_never_removes_a_newer_item,
    a_write_older_than_a_forgotten_tombstone_is_still_ignored,
    a_tombstone_is_kept_while_an_older_write_may_arrive,
    the_floor_never_sinks,
    a_bucket_that_opens_is_listed_each_time,
    a_list_of_opened_buckets_is_begun_anew_and_that_is_counted,
    the_list_of_a_large_directory_is_longer,
    an_upsert_removes_the_old_members_by_the_stored_codes,
    a_delete_leaves_no_member_no_value_and_no_count,
    item_numbers_are_dense_and_reused,
    a_full_partition_refuses_new_items_and_takes_updates,
    a_label_newer_than_its_item_survives_the_item,
    a_label_newer_than_a_delete_outlives_it,
    a_delete_takes_an_older_label_with_it,
    a_generation_goes_live_once,
    a_partition_goes_live_for_the_index_that_has_the_name,
    a_model_once_published_never_changes,
    a_model_of_another_index_is_not_published,
    a_generation_that_was_forgotten_is_not_published_again,
    all_tombstones_below_the_horizon_are_forgotten_at_once,
    labelled_items_are_listed_by_the_age_of_their_label,
    members_are_exact_up_to_their_63rd_bit,
    writes_of_one_call_see_each_other,
)
LEDGER_SCENARIOS = (
    a_batch_is_accepted_once,
    a_batch_is_finished_once_and_the_balance_holds_throughout,
    a_finished_batch_is_not_begun,
    an_attempt_counts_once_however_often_its_reply_is_lost,
    a_finished_batch_leaves_a_receipt_that_expires_and_nothing_else,
    an_overdue_batch_is_leased_to_one_sweeper,
    a_released_batch_is_due_at_once_and_the_server_is_not_held_against_it,
    a_batch_is_given_back_once_however_often_its_reply_is_lost,
    the_horizon_is_the_oldest_write_still_on_its_way,
    the_bound_on_pending_batches_refuses_and_takes_nothing,
)
