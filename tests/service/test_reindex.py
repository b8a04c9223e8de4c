"""A generation is replaced under a live index: nothing is lost, and no query is short, at any moment of it."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import redis
from test_search import filled, ids, vectors

from stream_hash.client import Index
from stream_hash.errors import FencedError, IntegrityError, UsageError
from stream_hash.numerics.model import lsh_model
from stream_hash.service import reindex as reindex_module
from stream_hash.service import verify as verify_module
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.reindex import Chunk, Progress, build_chunk, in_process, reindex, retire_all
from stream_hash.service.rollback import forget_old
from stream_hash.settings import IndexSettings
from stream_hash.storage import generations as generations_module
from stream_hash.storage import inspect as inspect_module
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.discard import discard
from stream_hash.storage.generations import CHUNK, Begun
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.reads import Reader
from stream_hash.storage.store import Stale
from stream_hash.storage.trainer_state import MODELS_KEPT, Lead

DIMENSION = 12
SMALL = IndexSettings(DIMENSION, bits=6, tables=2)


def publish(handle: IndexHandle, seed: int, token: int = 1) -> int:
    """Publish another LSH model than the first; returns its generation."""
    settings = handle.settings
    model = lsh_model(
        IndexSettings(DIMENSION, bits=settings.bits, tables=settings.tables, seed=seed), vectors(50, DIMENSION)
    )
    return handle.trainer.publish(token, model.to_arrays(), kind="lsh", created=0.0).generation


def lead(handle: IndexHandle, holder: str = "t") -> int:
    found = handle.trainer.lead(holder, now=0, until=0)
    assert isinstance(found, Lead)
    return found.token


def opened(client: Client, settings: IndexSettings, count: int) -> IndexHandle:
    filled(client, settings, count)
    return IndexHandle(client, "x")


def apply(handle: IndexHandle, name: str, batch: Batch) -> None:
    handle.ledger.accept(name, batch, lease_until=0)
    apply_batch(handle, name)


def check(client: Client, queries: int = 2) -> None:
    """Verify is clean, and every query finds k items."""
    index = Index("x", Connections(client, None))
    assert index.verify().violations == []
    count = index.status()["items"]
    for answer in index.query(vectors(queries, DIMENSION, seed=count), k=10):
        assert len(answer.results) == min(10, count)


class Meddler:
    """Writes of all kinds, by a worker who learns of generations only when it is told that it is stale."""

    def __init__(self, client: Client, seed: int, known: int) -> None:
        self._handle = IndexHandle(client, "x")
        self._rng = random.Random(seed)
        self._known = known
        self._batches = 0

    def __call__(self) -> None:
        for _ in range(3):
            names = [f"i{self._rng.randrange(self._known + 50):05}" for _ in range(6)]
            operation = self._rng.choice(["upsert", "upsert", "delete", "label"])
            batch = Batch("delete", names)
            if operation == "upsert":
                batch = Batch("upsert", names, vectors(6, DIMENSION, seed=self._rng.randrange(10**6)), ["1"] * 6)
            elif operation == "label":
                batch = Batch("label", names, labels=['"x"'] * 6)
            self._batches += 1
            apply(self._handle, f"m{self._rng.random()}-{self._batches}", batch)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a quarter of their size: as many of them, of a quarter of the items."""
    for module in (generations_module, inspect_module, reindex_module, verify_module):
        monkeypatch.setattr(module, "CHUNK", CHUNK // 4)


@pytest.mark.usefixtures("small_chunks")
def test_while_reindexing_under_writes_nothing_is_wrong_at_any_moment(client: Client, partitions: int) -> None:
    partitions = min(partitions, 3)
    settings = IndexSettings(DIMENSION, bits=6, tables=2, partitions=partitions)
    count = 325 * partitions  # two chunks a partition
    handle = opened(client, settings, count)
    meddle = Meddler(client, 5, count)
    token = lead(handle)
    work = in_process(handle)

    def run(chunks: Sequence[Chunk]) -> Iterator[None]:
        for chunk in chunks:
            meddle()
            yield from work([chunk])
            meddle()
            check(client)
            yield

    seen: list[Progress] = []
    for seed in (7, 8):
        generation = publish(handle, seed, token)
        reindex(handle, token, generation, run=run, on_progress=seen.append)
        assert {state.live for state in handle.states} == {generation}
        assert {state.building for state in handle.states} == {None}
        assert handle.generations.retiring() == [[]] * partitions
        check(client)
    assert seen[-1].done == seen[-1].items > 0
    assert seen[-1].rate > 0
    index = Index("x", Connections(client, None))
    queries = vectors(3, DIMENSION, seed=4)
    probed = index.query(queries, radius=settings.bits)
    assert [answer.results for answer in probed] == [answer.results for answer in index.query(queries, exact=True)]
    assert {answer.generation for answer in probed} == {3}


def keys_of(client: Client, generation: int) -> list[bytes]:
    """What partition 0 has left of a generation."""
    kinds = ("bucket", "directory", "places", "built")
    return [key for kind in kinds for key in client.scan_iter(match=f"sh:{{x:0}}:{kind}:{generation}*")]


class DiedError(Exception):
    """The process dies here."""


@pytest.mark.usefixtures("small_chunks")
def test_whoever_has_a_newer_token_goes_on_where_another_stopped(client: Client, partitions: int) -> None:
    """It dies later each time: before the first chunk, after each, after the last."""
    partitions = min(partitions, 3)
    settings = IndexSettings(DIMENSION, bits=6, tables=2, partitions=partitions)
    handle = opened(client, settings, 325 * partitions)
    generation = publish(handle, 7, lead(handle, "first"))
    meddle = Meddler(client, 6, 325 * partitions)
    for allowed in range(100):
        reports = 0

        def on_progress(_: Progress, allowed: int = allowed) -> None:
            nonlocal reports
            reports += 1
            if reports > allowed:
                raise DiedError

        meddle()
        fresh = IndexHandle(client, "x")
        try:
            reindex(fresh, lead(fresh, f"t{allowed}"), generation, on_progress=on_progress)
        except DiedError:
            check(client, 1)
            continue
        break
    assert {state.live for state in fresh.states} == {generation}
    assert fresh.generations.retiring() == [[]] * partitions
    check(client)


@pytest.mark.parametrize("steps", range(4))
def test_retiring_goes_on_after_a_crash(client: Client, steps: int) -> None:
    handle = opened(client, SMALL, 200)
    token = lead(handle)
    generation = publish(handle, 7, token)
    handle.generations.begin(0, generation, token)
    build_chunk(handle, 0, generation, 0)
    assert handle.generations.switch(0, generation, token) is None
    for _, _ in zip(range(steps), handle.generations.retire(0, 1), strict=False):
        check(client, 1)
    retire_all(handle)
    assert handle.generations.retiring() == [[]]
    assert keys_of(client, 1) == []
    check(client)


def test_an_older_token_changes_nothing(client: Client) -> None:
    handle = opened(client, SMALL, 50)
    old = lead(handle, "old")
    generation = publish(handle, 7, old)
    new = lead(handle, "new")
    newer = publish(handle, 8, new)
    reindex(handle, new, newer)
    with pytest.raises(FencedError):
        reindex(handle, old, generation)
    assert handle.states[0].live == newer
    with pytest.raises(UsageError, match="cannot be built"):
        reindex(handle, new, generation)
    reindex(handle, new, newer)  # already live: nothing to do
    check(client)


def test_a_target_that_nobody_wants_any_more_is_abandoned_and_retired(client: Client) -> None:
    handle = opened(client, SMALL, 1_500)
    token = lead(handle)
    first, second = publish(handle, 7, token), publish(handle, 8, token)
    assert handle.generations.begin(0, first, token) == Begun(1_500)
    build_chunk(handle, 0, first, 0)
    reindex(handle, token, second)
    assert (handle.states[0].live, handle.generations.retiring()) == (second, [[]])
    check(client)
    with pytest.raises(UsageError, match="cannot be built"):
        reindex(handle, token, first)


def test_chunks_that_a_runner_leaves_out_are_built_all_the_same(client: Client) -> None:
    handle = opened(client, SMALL, 3_000)
    token = lead(handle)
    given: list[list[int]] = []

    def run(chunks: Sequence[Chunk]) -> Iterator[None]:
        given.append([chunk.number for chunk in chunks])
        if len(given) == 1:
            yield from in_process(handle)(chunks[1:2])

    reindex(handle, token, publish(handle, 7, token), run=run)
    assert given == [[0, 1, 2], [0, 2], [0, 2]]
    check(client)


def test_what_was_lost_without_a_trace_is_put_again(client: Client) -> None:
    """The bits say that all is built, and nothing is."""
    handle = opened(client, SMALL, 50)
    token = lead(handle)
    generation = publish(handle, 7, token)
    handle.generations.begin(0, generation, token)
    client.setbit(IndexKeys("x").partition(0).built(generation), 0, 1)
    reindex(handle, token, generation)
    assert handle.states[0].live == generation
    check(client)


def test_an_incomplete_generation_never_goes_live(client: Client) -> None:
    handle = opened(client, SMALL, 50)
    token = lead(handle)
    generation = publish(handle, 7, token)
    client.hincrby(handle.store.partition(0).state, "items", 1)
    with pytest.raises(IntegrityError, match="is incomplete"):
        reindex(handle, token, generation)
    handle.reload_states()
    assert (handle.states[0].live, handle.states[0].building) == (1, generation)


def test_a_chunk_is_read_only_once_the_generation_is_begun(client: Client) -> None:
    """Or a write between the read and the beginning would be seen by neither."""
    handle = opened(client, SMALL, 50)
    token = lead(handle)
    generation = publish(handle, 7, token)
    assert not build_chunk(handle, 0, generation, 0)
    handle.generations.begin(0, generation, token)
    assert build_chunk(handle, 0, generation, 0)
    handle.generations.abandon(0, generation, token)
    assert not build_chunk(handle, 0, generation, 0)


def test_a_chunk_of_long_vectors_is_read_in_pieces_and_built_after_the_last(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = opened(client, SMALL, 1_500)
    token = lead(handle)
    generation = publish(handle, 7, token)
    handle.generations.begin(0, generation, token)
    monkeypatch.setattr(reindex_module, "READ_BYTES", 300 * 4 * DIMENSION)
    read, built = Reader.values, []

    def watching(self: Reader, wanted: Sequence[tuple[int, np.ndarray]]) -> list:
        built.append(handle.generations.count_built(0, generation))
        return read(self, wanted)

    monkeypatch.setattr(Reader, "values", watching)
    assert build_chunk(handle, 0, generation, 0)
    assert build_chunk(handle, 0, generation, 1)
    assert built == [0, 0, 0, 0, 1, 1, 1, 1]
    monkeypatch.undo()
    assert handle.generations.switch(0, generation, token) is None
    check(client)


def test_a_chunk_that_is_there_already_is_not_read_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = opened(client, SMALL, 50)
    token = lead(handle)
    generation = publish(handle, 7, token)
    handle.generations.begin(0, generation, token)
    assert build_chunk(handle, 0, generation, 0)
    monkeypatch.setattr(Reader, "values", None)
    assert build_chunk(handle, 0, generation, 0)


def test_items_written_between_the_read_and_the_put_of_their_chunk_are_kept(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = opened(client, SMALL, 100)
    token = lead(handle)
    generation = publish(handle, 7, token)
    read = Reader.values
    meddle = Meddler(client, 9, 100)

    def meddling(self: Reader, wanted: Sequence[tuple[int, np.ndarray]]) -> list:
        found = read(self, wanted)
        monkeypatch.setattr(Reader, "values", read)
        for _ in range(5):
            meddle()
        return found

    handle.generations.begin(0, generation, token)
    monkeypatch.setattr(Reader, "values", meddling)
    assert build_chunk(handle, 0, generation, 0)
    check(client)
    assert handle.generations.switch(0, generation, token) is None
    retire_all(handle)
    check(client)


def test_a_handle_that_knows_only_forgotten_generations_finds_the_new_one(client: Client) -> None:
    handle = opened(client, SMALL, 60)
    asleep, writer = Index("x", Connections(client, None)), IndexHandle(client, "x")
    token = lead(handle)
    generation = publish(handle, 7, token)
    reindex(handle, token, generation)
    assert handle.trainer.forget(token, [generation], keep=1) == [1]
    assert [answer.generation for answer in asleep.query(vectors(1, DIMENSION))] == [generation]
    apply(writer, "late", Batch("upsert", ["late"], vectors(1, DIMENSION, seed=3)))
    check(client)


def test_a_generation_in_use_without_its_model_is_an_error(client: Client) -> None:
    opened(client, SMALL, 60)
    client.delete(IndexKeys("x").model(1))
    with pytest.raises(IntegrityError, match="model of generation 1"):
        Index("x", Connections(client, None)).query(vectors(1, DIMENSION))


def test_a_partition_that_was_left_without_a_first_generation_gets_it(client: Client) -> None:
    handle = opened(client, IndexSettings(DIMENSION, bits=6, partitions=3), 60)
    token = lead(handle)
    generation = publish(handle, 7, token)
    empty = IndexHandle(client, "x")
    client.hset(empty.store.partition(2).state, "live", "0")  # as if whoever made the first had died midway
    for key in client.scan_iter(match="sh:{x:2}:*"):
        client.delete(key)
    reindex(handle, token, generation)
    assert {state.live for state in handle.states} == {generation}


def test_a_late_trainer_is_not_misled_by_what_it_read_before_another_finished(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = opened(client, IndexSettings(DIMENSION, bits=6, partitions=3), 60)
    client.hset(late.store.partition(2).state, "live", "0")  # as if whoever made the first had died midway
    for key in client.scan_iter(match="sh:{x:2}:*"):
        client.delete(key)
    other = IndexHandle(client, "x")
    token = lead(other)
    generation = publish(other, 7, token)
    read_states = late.reload_states

    def read_then_sleep() -> None:
        """The first read is from before another trainer took over, finished and forgot generation 1."""
        read_states()
        monkeypatch.setattr(late, "reload_states", read_states)
        reindex(other, token, generation)
        assert other.trainer.forget(token, [generation], keep=1) == [1]

    monkeypatch.setattr(late, "reload_states", read_then_sleep)
    reindex(late, token, generation)
    assert {state.live for state in late.states} == {generation}


def test_the_first_generation_is_kept_while_a_partition_has_yet_to_begin_with_it(client: Client) -> None:
    handle = opened(client, IndexSettings(DIMENSION, bits=6, partitions=2), 60)
    client.hset(handle.store.partition(1).state, "live", "0")
    token = lead(handle)
    newer = [publish(handle, seed, token) for seed in range(2, MODELS_KEPT + 3)]
    client.hset(handle.store.partition(0).state, "live", str(newer[-1]))
    assert forget_old(handle, token) == []
    client.hset(handle.store.partition(1).state, "live", str(newer[-1]))
    assert 1 in {record.generation for record in handle.models.records()}
    assert 1 in forget_old(handle, token)


@pytest.mark.parametrize("began", ["before", "after"])
def test_a_trainer_that_was_paused_before_it_began_begins_nothing_that_is_forgotten(client: Client, began: str) -> None:
    """It had read the target. Until it comes back, ten newer ones are published, of which none is begun."""
    handle, late = opened(client, SMALL, 60), IndexHandle(client, "x")
    old_token = lead(late, "old")
    old = publish(late, 2, old_token)
    token = lead(handle, "new")
    newest = [publish(handle, seed, token) for seed in range(3, 3 + MODELS_KEPT)][-1]
    if began == "before":
        late.generations.begin(0, old, old_token)
    assert (old in forget_old(handle, token)) == (began == "after"), "what is being built is kept"
    with pytest.raises(FencedError, match="another trainer has taken over"):
        reindex(late, old_token, old)
    apply(IndexHandle(client, "x"), "late", Batch("upsert", ["late"], vectors(1, DIMENSION, seed=3)))
    reindex(handle, token, newest)
    check(client)


def test_an_index_without_a_generation_has_nothing_to_replace(client: Client) -> None:
    Index.create("x", SMALL, Connections(client, None))
    with pytest.raises(UsageError, match="no generation yet"):
        reindex(IndexHandle(client, "x"), 1, 2)


def test_throttled_it_rests_for_the_other_share_of_the_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = opened(client, SMALL, 50)
    token = lead(handle)
    slept: list[float] = []
    clock = iter(range(1_000))
    monkeypatch.setattr(reindex_module.time, "sleep", slept.append)
    monkeypatch.setattr(reindex_module.time, "perf_counter", lambda: float(next(clock)))
    reindex(handle, token, publish(handle, 7, token), throttle=0.25)
    assert slept == [3.0]
    for throttle in (0.0, 1.5):
        with pytest.raises(UsageError, match="throttle"):
            in_process(handle, throttle=throttle)


def test_somebody_who_takes_it_out_of_building_is_noticed(client: Client) -> None:
    handle = opened(client, SMALL, 50)
    token = lead(handle)
    generation = publish(handle, 7, token)

    def run(_: Sequence[Chunk]) -> Iterator[None]:
        handle.generations.abandon(0, generation, token)
        yield

    with pytest.raises(IntegrityError, match="not being built any more"):
        reindex(handle, token, generation, run=run)
    assert isinstance(handle.generations.switch(0, generation, token), Stale)
    check(client)


def test_writes_queries_and_verify_go_on_while_generations_replace_each_other(
    real_client: redis.Redis, embedded_url: str
) -> None:
    """A writer, a trainer who replaces one generation after the other, and here queries and verify in turn."""
    opened(real_client, SMALL, 3_000)
    stop, faults = threading.Event(), []

    def write() -> None:
        with redis.Redis.from_url(embedded_url) as client:
            meddle = Meddler(client, 8, 3_000)
            while not stop.is_set():
                meddle()

    def train() -> None:
        try:
            with redis.Redis.from_url(embedded_url) as client:
                handle = IndexHandle(client, "x")
                token = lead(handle)
                for seed in itertools.count(2):
                    if stop.is_set():
                        return
                    reindex(handle, token, publish(handle, seed, token))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to fail with it
            faults.append(error)

    threads = [threading.Thread(target=work) for work in (write, train)]
    for thread in threads:
        thread.start()
    index = Index("x", Connections(real_client, None))
    lengths, violations, generations = set(), [], set()
    try:
        for seed in range(10):
            answers = index.query(vectors(20, DIMENSION, seed=seed), k=10)
            lengths |= {len(answer.results) for answer in answers}
            generations |= {answer.generation for answer in answers}
            violations += index.verify().violations
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (faults, violations, lengths) == ([], [], {10})
    assert len(generations) > 2
    check(real_client)


def memory(client: redis.Redis, kind: str = "") -> int:
    """Bytes of the keys of partition 0 whose names begin so, by MEMORY USAGE, all members counted."""
    keys = list(client.scan_iter(match=f"sh:{{x:0}}:{kind}*", count=1_000))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.memory_usage(key, samples=0)
    return sum(pipeline.execute())


def test_a_second_generation_takes_at_most_30_bytes_an_item_and_table_and_gives_them_back(
    real_client: redis.Redis,
) -> None:
    count, settings = 16_000, IndexSettings(DIMENSION, bits=9, tables=2)
    x = np.random.default_rng(5).normal(size=(count, DIMENSION)).astype(np.float32)
    Index.create("x", settings, Connections(real_client, None), sample=x[:500])
    handle = IndexHandle(real_client, "x")
    for start in range(0, count, 4_000):
        apply(handle, f"b{start}", Batch("upsert", ids(count)[start : start + 4_000], x[start : start + 4_000]))
    before = memory(real_client)
    token = lead(handle)
    # the same model again, so that both generations weigh the same
    generation = handle.trainer.publish(token, handle.models.load(1), kind="lsh", created=0.0, origin=1).generation
    handle.generations.begin(0, generation, token)
    for chunk in range(-(-count // CHUNK)):
        build_chunk(handle, 0, generation, chunk)
    building = memory(real_client)
    assert building - before <= 30 * count * settings.tables
    places = memory(real_client, f"places:{generation}:")
    assert places <= 1.25 * count * 9  # a block is allocated once, and not at twice its size
    assert handle.generations.switch(0, generation, token) is None
    retire_all(handle)
    assert abs(memory(real_client) - before) <= 0.01 * before
    assert keys_of(real_client, 1) == []


def test_an_index_that_is_discarded_while_it_is_rebuilt_leaves_nothing(client: Client) -> None:
    handle = opened(client, SMALL, 1_500)
    token = lead(handle)
    generation = publish(handle, 7, token)
    handle.generations.begin(0, generation, token)
    build_chunk(handle, 0, generation, 0)
    handle.trainer.checkpoint(token, learner=b"x", run={"id": "r"})
    discard(client, "x", handle.settings)
    left = [key for key in client.scan_iter(match="sh:{x*") if b":receipt:" not in key]
    assert left == []


def test_no_more_partitions_are_built_together_than_come_to_a_few_chunks(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindex_module, "GROUP_CHUNKS", 2)
    handle = opened(client, IndexSettings(DIMENSION, bits=6, partitions=5), 200)
    token = lead(handle)
    generation = publish(handle, 7, token)
    building: list[list[int]] = []

    def run(chunks: Sequence[Chunk]) -> Iterator[None]:
        handle.reload_states()
        building.append([p for p, state in enumerate(handle.states) if state.building == generation])
        assert {chunk.partition for chunk in chunks} == set(building[-1])
        yield from in_process(handle)(chunks)

    reindex(handle, token, generation, run=run)
    assert building == [[0, 1], [2, 3], [4]]
    check(client)
