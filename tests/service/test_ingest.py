from __future__ import annotations

import random
from collections.abc import Iterator

import fakeredis
import numpy as np
import oracle
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_hash.client import Index
from stream_hash.numerics.model import lsh_model
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import MAX_DELIVERIES, _Application, apply_batch
from stream_hash.service.sweep import sweep
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch, decode_batch, encode_batch
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import partition_of
from stream_hash.storage.ledger import DeadLetter
from stream_hash.storage.store import State

SETTINGS = IndexSettings(4, bits=5, tables=2, partitions=6, metric="l2")
SAMPLE = np.random.default_rng(7).normal(size=(50, 4)).astype(np.float32)


def opened(client: Client, index_settings: IndexSettings = SETTINGS) -> IndexHandle:
    Index.create("x", index_settings, Connections(client, None), sample=SAMPLE)
    return IndexHandle(client, "x")


def accept(handle: IndexHandle, name: str, batch: Batch) -> int:
    return handle.ledger.accept(name, batch, lease_until=0).first


def random_batches(rng: random.Random, count: int) -> list[Batch]:
    """Batches of all operations over few ids, so that they meet often."""
    batches = []
    for _ in range(count):
        ids = [rng.choice("abcdef") for _ in range(rng.randint(1, 4))]
        operation = rng.choice(["upsert", "upsert", "delete", "label"])
        vectors = np.array([[rng.gauss(0, 1) for _ in range(4)] for _ in ids], dtype=np.float32)
        labels = [rng.choice(['"x"', "1", ""]) for _ in ids]
        if operation == "upsert":
            batches.append(Batch("upsert", ids, vectors, labels, None))
        elif operation == "delete":
            batches.append(Batch("delete", ids))
        else:
            batches.append(Batch("label", ids, labels=labels))
    return batches


class Worker:
    """A worker that may pause between any two steps, and may never go on."""

    def __init__(self, handle: IndexHandle, name: str) -> None:
        self._steps = self._work(handle, name)

    @staticmethod
    def _work(handle: IndexHandle, name: str) -> Iterator[None]:
        delivery = handle.ledger.begin(name, lease_until=0)
        yield
        if delivery is None:
            return
        _Application(handle, decode_batch(delivery.payload), delivery.first).run()
        yield
        handle.ledger.finish(name)
        yield

    def step(self) -> bool:
        """Do one step; False when there is none left."""
        return next(self._steps, "end") != "end"


def simulate(client: Client, seed: int) -> tuple[bytes, bytes]:
    """Deliver random batches twice or more in a random order with random pauses.

    Returns the logical state, and that of the same batches applied once, in order. Asserts the invariants.
    """
    rng = random.Random(seed)
    batches = random_batches(rng, rng.randint(2, 8))
    states = []
    for orderly in (False, True):
        client.flushall()
        handle = opened(client)
        firsts = [accept(handle, f"b{i}", batch) for i, batch in enumerate(batches)]
        if orderly:
            for i in range(len(batches)):
                apply_batch(handle, f"b{i}")
        else:
            workers = [Worker(handle, f"b{i}") for i in range(len(batches)) for _ in range(2)]
            while workers:
                worker = rng.choice(workers)
                if not worker.step():
                    workers.remove(worker)
                if rng.random() < 0.2:
                    sweep(handle, lambda *_: True, lambda *_: None)
                assert handle.ledger.balance().holds
        sweep(handle, lambda *_: True, lambda *_: None)
        truth = oracle.live_items(oracle.replay(list(zip(firsts, batches, strict=True))))
        assert oracle.stored_items(client, "x", SETTINGS) == truth
        assert Index("x", Connections(client, None)).verify().violations == []
        states.append(oracle.logical_dump(client, "x", SETTINGS))
    return states[0], states[1]


@pytest.mark.parametrize("block", range(8))
def test_delivering_twice_in_any_order_with_pauses_leaves_the_same_state_byte_for_byte(
    block: int, real_client: redis.Redis
) -> None:
    for seed in range(block * 12, block * 12 + 12):
        shuffled, orderly = simulate(real_client, seed)
        assert shuffled == orderly, f"seed {seed}"


def test_applying_a_batch_again_changes_no_key(client: Client) -> None:
    handle = opened(client)
    for i, batch in enumerate(random_batches(random.Random(3), 12)):
        first = accept(handle, f"b{i}", batch)
        apply_batch(handle, f"b{i}")
        before = oracle.dump(client, "x")
        _Application(handle, batch, first).run()
        assert apply_batch(handle, f"b{i}") is None
        assert oracle.dump(client, "x") == before


def test_a_worker_with_an_outdated_view_loads_the_new_generation_and_writes_both(client: Client) -> None:
    handle = opened(client)
    accept(handle, "b0", Batch("upsert", ["a"], SAMPLE[:1], [""], None))
    apply_batch(handle, "b0")
    second = lsh_model(IndexSettings(4, bits=5, tables=2, metric="l2", seed=9), SAMPLE)
    handle.models.publish(handle.identity.nonce, 2, second.to_arrays(), kind="lsh", created=0.0)
    for p in range(SETTINGS.partitions):
        client.hset(handle.store.partition(p).state, "building", "2")
    accept(handle, "b1", Batch("upsert", ["a", "b"], SAMPLE[1:3], ["", ""], None))
    apply_batch(handle, "b1")
    (record,) = handle.reader.records(["b"])
    assert record is not None
    keys = handle.store.partition(partition_of("b", SETTINGS.partitions))
    places = oracle.stored_places(client, keys, SETTINGS, record.number)
    assert [(g, codes) for g, _, codes in places] == [
        (g, handle.model(g).encode(SAMPLE[2:3]).codes[0].tolist()) for g in (1, 2)
    ]
    assert places[0][2] != places[1][2]


def test_bad_items_become_dead_letters_and_the_good_ones_beside_them_live(client: Client) -> None:
    handle = opened(client, IndexSettings(4, metric="cosine"))
    vectors = np.ones((7, 4), dtype=np.float32)
    vectors[1], vectors[2, 3], vectors[3, 0] = 0, np.nan, np.inf
    ids = ["good", "zero", "nan", "inf", "", "x" * 129, "label"]
    labels = ["1", "", "", "", "", "", "[[1]]"]
    accept(handle, "b0", Batch("upsert", ids, vectors, labels, None))
    apply_batch(handle, "b0")
    letters = {decode_batch(letter.payload).ids[0]: letter for letter in handle.ledger.dead_letters()}
    assert oracle.stored_items(client, "x", handle.settings).keys() == {"good"}
    assert {i: letter.reason for i, letter in letters.items()} == {
        "zero": "the vector's norm is 0; under cosine it has no direction",
        "nan": "coordinate 3 is nan; every coordinate must be finite",
        "inf": "coordinate 0 is inf; every coordinate must be finite",
        "": "an item's id is '', 0 bytes long; an id has 1 to 128 UTF-8 bytes",
        "x" * 129: f"an item's id is '{'x' * 32}…', 129 bytes long; an id has 1 to 128 UTF-8 bytes",
        "label": "a label is [[1]]; a label is text, a whole number, or a list of these",
    }
    balance = handle.ledger.balance()
    assert (balance.accepted, balance.applied, balance.dead) == (7, 1, 6)
    kept = decode_batch(letters["nan"].payload).vectors
    assert kept is not None
    assert kept.tobytes() == vectors[2].tobytes()


def test_a_batch_of_another_dimension_is_dead_item_by_item(client: Client) -> None:
    handle = opened(client)
    accept(handle, "b0", Batch("upsert", ["a", "b"], np.ones((2, 3), np.float32), ["", ""], None))
    apply_batch(handle, "b0")
    reasons = [letter.reason for letter in handle.ledger.dead_letters()]
    assert reasons == ["the vector has 3 coordinates; the index has 4"] * 2


def test_a_damaged_payload_is_buried_whole(client: Client) -> None:
    handle = opened(client)
    accept(handle, "b0", Batch("upsert", ["a", "b"], SAMPLE[:2], ["", ""], None))
    client.set(handle.store.keys.batch("b0"), b"not a batch")
    apply_batch(handle, "b0")
    (letter,) = handle.ledger.dead_letters()
    assert isinstance(letter, DeadLetter)
    assert letter.items == 2
    assert letter.payload == b"not a batch"
    assert handle.ledger.balance().holds


def test_a_batch_that_fails_every_delivery_is_buried_with_the_last_reason(client: Client) -> None:
    handle = opened(client)
    accept(handle, "b0", Batch("delete", ["a"]))
    for _ in range(MAX_DELIVERIES):
        handle.ledger.begin("b0", lease_until=0)
        handle.ledger.release("b0", now=0, failure="ValueError: boom", blame_server=False)
    apply_batch(handle, "b0")
    (letter,) = handle.ledger.dead_letters()
    assert letter.reason == f"delivered {MAX_DELIVERIES} times without success; ValueError: boom"


def test_what_is_hashed_is_what_is_stored_also_in_float16(client: Client) -> None:
    handle = opened(client, IndexSettings(4, bits=20, dtype="float16"))
    vectors = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    accept(handle, "b0", Batch("upsert", [str(i) for i in range(300)], vectors, None, None))
    apply_batch(handle, "b0")
    assert Index("x", Connections(client, None)).verify().violations == []
    accept(handle, "b1", Batch("upsert", ["big"], np.full((1, 4), 1e5, np.float32), None, None))
    apply_batch(handle, "b1")
    assert "coordinate 0 is inf" in handle.ledger.dead_letters()[0].reason


@pytest.mark.parametrize(("first_batch", "centred"), [(100, True), (99, False)])
def test_generation_1_takes_its_mean_from_a_first_batch_that_is_large_enough(
    client: Client, first_batch: int, centred: bool
) -> None:
    Index.create("x", SETTINGS, Connections(client, None))
    handle = IndexHandle(client, "x")
    vectors = np.random.default_rng(0).normal(5, 1, size=(first_batch, 4)).astype(np.float32)
    accept(handle, "b0", Batch("upsert", [str(i) for i in range(first_batch)], vectors, None, None))
    apply_batch(handle, "b0")
    expected = vectors.mean(axis=0) if centred else np.zeros(4)
    assert np.allclose(handle.model(1).mean, expected, atol=1e-5)


def test_workers_that_meet_an_empty_index_together_agree_on_one_generation(client: Client) -> None:
    Index.create("x", SETTINGS, Connections(client, None))
    handles = [IndexHandle(client, "x") for _ in range(3)]
    for i, handle in enumerate(handles):
        handle.begin_first_generation(SAMPLE[i * 10 : i * 10 + 5 * i])
    models = [handle.model(1).mean.tolist() for handle in handles]
    assert models[0] == models[1] == models[2]
    assert [state.live for state in handles[0].store.states(6)] == [1] * 6


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20), partitions=st.integers(1, 5))
def test_an_id_lives_in_the_partition_of_its_hash(real_client: redis.Redis, ids: list[str], partitions: int) -> None:
    real_client.flushall()
    index_settings = IndexSettings(4, partitions=partitions, metric="l2")
    handle = opened(real_client, index_settings)
    accept(handle, "b0", Batch("upsert", ids, SAMPLE[: len(ids)], None, None))
    apply_batch(handle, "b0")
    expected = oracle.partition_counts(sorted(set(ids)), partitions)
    assert [items for items, _ in handle.reader.sizes()] == expected


@pytest.mark.parametrize(
    ("tables", "dimension", "expected"), [(1, 4, 128), (4, 4, 100), (64, 4, 6), (1, 8_192, 32), (64, 16_384, 6)]
)
def test_a_call_of_the_write_script_is_shorter_the_more_it_has_to_write(
    tables: int, dimension: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = opened_plain(IndexSettings(dimension, bits=4, tables=tables))
    calls: list[int] = []
    write = handle.store.upsert

    def counting(partition: int, state: State, ids: list[str], *rest: object) -> object:
        calls.append(len(ids))
        return write(partition, state, ids, *rest)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(handle.store, "upsert", counting)
    vectors = np.ones((130, dimension), dtype=np.float32)
    accept(handle, "b", Batch("upsert", [str(i) for i in range(130)], vectors))
    apply_batch(handle, "b")
    assert calls == [expected] * (130 // expected) + [130 % expected] * (130 % expected > 0)


def opened_plain(index_settings: IndexSettings) -> IndexHandle:
    """An index in memory whose generation 1 has no mean."""
    client = fakeredis.FakeRedis()
    Index.create("x", index_settings, Connections(client, None))
    handle = IndexHandle(client, "x")
    handle.begin_first_generation(np.empty((0, index_settings.dimension), dtype=np.float32))
    return handle


def test_a_full_partition_buries_new_items_and_still_takes_updates_beside_them(client: Client) -> None:
    handle = opened(client, IndexSettings(4, metric="l2"))
    accept(handle, "b0", Batch("upsert", ["a", "b"], SAMPLE[:2], None, None))
    apply_batch(handle, "b0")
    client.hset(handle.store.partition(0).state, "next", 2**24)
    accept(handle, "b1", Batch("upsert", ["a", "new", "b"], SAMPLE[2:5], None, None))
    apply_batch(handle, "b1")
    (letter,) = handle.ledger.dead_letters()
    assert decode_batch(letter.payload).ids == ["new"]
    assert "full" in letter.reason
    assert oracle.stored_items(client, "x", handle.settings)["b"][0] == SAMPLE[4].tobytes()


def test_a_payload_with_other_items_than_were_accepted_is_buried(client: Client) -> None:
    handle = opened(client)
    accept(handle, "b0", Batch("upsert", ["a", "b"], SAMPLE[:2], None, None))
    client.set(handle.store.keys.batch("b0"), encode_batch(Batch("upsert", ["a"], SAMPLE[:1], None, None)))
    apply_batch(handle, "b0")
    (letter,) = handle.ledger.dead_letters()
    assert letter.reason == "the payload holds 1 items, not 2"


def test_the_sweep_forgets_every_tombstone_that_no_write_can_reach(client: Client) -> None:
    handle = opened(client)
    accept(handle, "b0", Batch("delete", [str(i) for i in range(3_000)]))
    apply_batch(handle, "b0")
    sweep(handle, lambda *_: True, lambda *_: None)
    assert [client.zcard(handle.store.partition(p).tombstones) for p in range(6)] == [0] * 6


def test_an_index_wiped_and_created_again_is_written_with_its_own_settings(client: Client) -> None:
    """Under a worker that had opened the one before it."""
    worker = opened(client)
    reader = Index("x", Connections(client, None))
    accept(worker, "b0", Batch("upsert", ["a"], SAMPLE[:1], None, None))
    apply_batch(worker, "b0")
    assert reader.query(SAMPLE[0], k=1)[0].results[0].id == "a"
    client.flushall()
    other = opened(client, IndexSettings(4, bits=9, tables=1, metric="l2", seed=3))
    ids = [str(i) for i in range(50)]
    accept(other, "b0", Batch("upsert", ids, SAMPLE, None, None))
    apply_batch(worker, "b0")
    assert Index("x", Connections(client, None)).verify().violations == []
    answers = reader.query(SAMPLE, k=1, radius=0, widen=False)
    assert [answer.results[0].id for answer in answers] == ids


def test_out_of_memory_deletes_are_taken_and_begun_batches_finished(real_client: redis.Redis) -> None:
    handle = opened(real_client, IndexSettings(4, metric="l2"))
    index = Index("x", Connections(real_client, None))
    ids = [str(i) for i in range(50)]
    accept(handle, "b0", Batch("upsert", ids, SAMPLE, None, None))
    apply_batch(handle, "b0")
    accept(handle, "b1", Batch("delete", ids[:5]))
    new = Batch("upsert", ["new"], SAMPLE[:1], None, None)
    try:
        real_client.config_set("maxmemory", 1)
        apply_batch(handle, "b1")
        assert index.delete(ids[5:10]) == []
        sweep(handle, lambda *_: True, lambda *_: None)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            accept(handle, "b2", new)
    finally:
        real_client.config_set("maxmemory", 0)
    accept(handle, "b2", new)
    apply_batch(handle, "b2")
    assert index.status()["items"] == 41
    assert index.verify().violations == []


def test_out_of_memory_what_was_accepted_is_applied(real_client: redis.Redis) -> None:
    """Applying is what frees the payloads: were it refused, a server full of them could never go on."""
    handle = opened(real_client, IndexSettings(4, metric="l2"))
    accept(handle, "b", Batch("upsert", [str(i) for i in range(50)], SAMPLE, ["1"] * 50, None))
    try:
        real_client.config_set("maxmemory", 1)
        apply_batch(handle, "b")
    finally:
        real_client.config_set("maxmemory", 0)
    assert handle.ledger.balance().pending == 0
    assert Index("x", Connections(real_client, None)).verify().violations == []
