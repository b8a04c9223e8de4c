"""Scenarios of how one generation replaces another in a partition; the rules of storage/generations.py.

Items of `Bench` have the code they are told in every generation that a writer writes; what is put by hand here has
code 40 (and 41) so that it can be told from what the writers wrote.
"""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from numpy.typing import NDArray
from protocol import LIVE, PARTITION_OF_A, SETTINGS, Bench, place

from stream_hash.errors import FencedError, IndexMissingError
from stream_hash.settings import IndexSettings
from stream_hash.storage import generations as generations_module
from stream_hash.storage.generations import AlreadyLive, Begun, Busy, Generations, Incomplete, Refused
from stream_hash.storage.keys import partition_of
from stream_hash.storage.places import BLOCK, encode_places, place_bytes
from stream_hash.storage.store import WRITTEN, Identity, Stale, State

BOTH = State(1, 2)
NONE = np.empty(0, np.int64)
NO_PLACES = np.empty((0, place_bytes(SETTINGS)), np.uint8)
PUT = ["2:0:40", "2:1:41"]


def neighbours(count: int) -> list[str]:
    """Ids in the partition of `a`, without it."""
    found = [i for i in map(str, range(count * SETTINGS.partitions * 3)) if partition_of(i, 6) == PARTITION_OF_A]
    return found[:count]


def generations_of(bench: Bench) -> Generations:
    return Generations(bench.client, "bench", Identity(SETTINGS, "nonce"), scripts=bench.scripts)


def put_a(bench: Bench, *, sequence: int = 1, number: int = 0, chunk: int = 0) -> Stale | None:
    """Put item number `number`, read with `sequence`, into generation 2."""
    numbers, sequences = np.array([number]), np.array([sequence])
    return generations_of(bench).put(PARTITION_OF_A, 2, chunk, numbers, sequences, place(40))


def begun(bench: Bench) -> Generations:
    """Item a (number 0, sequence 1, code 5) in generation 1, and generation 2 being built."""
    bench.upsert("a", 1, 5)
    generations = generations_of(bench)
    assert generations.begin(PARTITION_OF_A, 2, 7) == Begun(1)
    return generations


def members(bench: Bench, prefix: str = "members:") -> dict[str, int]:
    """What the partition of `a` counts, as GENERATION:TABLE → members."""
    stored = bench.client.hgetall(bench.store.partition(PARTITION_OF_A).state)
    return {k.decode().removeprefix(prefix): int(v) for k, v in stored.items() if k.startswith(prefix.encode())}


def field(bench: Bench, name: str) -> bytes | None:
    return bench.client.hget(bench.store.partition(PARTITION_OF_A).state, name)


def keys_of(bench: Bench, generation: int) -> list[str]:
    """Every key and count that a generation has in the partition of `a`."""
    prefix = bench.store.partition(PARTITION_OF_A).prefix
    kinds = ("bucket", "directory", "opened", "places", "built")
    found = [k.removeprefix(prefix) for k in bench.dump() if k.startswith(prefix)]
    kept = [k for k in found if k.split(":")[0] in kinds and k.split(":")[1] == str(generation)]
    counted = [*members(bench), *members(bench, "cleared:")]
    return kept + [at for at in counted if at.startswith(f"{generation}:")]


def retire(bench: Bench, generation: int) -> list[State | None]:
    return list(generations_of(bench).retire(PARTITION_OF_A, generation))


def a_generation_is_built_beside_the_live_one_and_takes_its_place(bench: Bench) -> None:
    generations = begun(bench)
    assert field(bench, "building") == b"2"
    assert put_a(bench) is None
    assert bench.buckets_of("a") == ["1:0:5", "1:1:6", *PUT]
    assert members(bench) == {"1:0": 1, "1:1": 1, "2:0": 1, "2:1": 1}
    assert generations.built(PARTITION_OF_A, 2, 2).tolist() == [True, False]
    assert generations.count_built(PARTITION_OF_A, 2) == 1
    assert generations.is_built(PARTITION_OF_A, 2, 0) == (BOTH, True)
    assert generations.is_built(PARTITION_OF_A, 2, 1) == (BOTH, False)
    assert generations.switch(PARTITION_OF_A, 2, 7) is None
    assert (field(bench, "live"), field(bench, "building"), field(bench, "retiring")) == (b"2", b"", b"1")
    assert generations.retiring()[PARTITION_OF_A] == [1]
    assert bench.client.exists(bench.store.partition(PARTITION_OF_A).built(2)) == 0
    assert bench.directories() == bench.all_buckets()
    retire(bench, 1)
    assert keys_of(bench, 1) == []
    assert generations.retiring()[PARTITION_OF_A] == []
    assert bench.buckets_of("a") == PUT
    assert bench.upsert("a", 2, 9, state=State(2)) == WRITTEN
    assert bench.buckets_of("a") == ["2:0:9", "2:1:10"]
    assert members(bench) == {"2:0": 1, "2:1": 1}


def one_generation_is_built_at_a_time(bench: Bench) -> None:
    generations = begun(bench)
    assert generations.begin(PARTITION_OF_A, 3, 7) == Busy(2)
    assert field(bench, "building") == b"2"
    assert generations.begin(PARTITION_OF_A, 2, 7) == Begun(1)
    assert generations.begin(PARTITION_OF_A, 1, 7) == AlreadyLive()


def a_generation_number_is_never_used_again(bench: Bench) -> None:
    generations = begun(bench)
    assert generations.abandon(PARTITION_OF_A, 2, 7)
    assert generations.begin(PARTITION_OF_A, 2, 7) == Refused(1)
    bench.set_state("a", live="5", retiring="")
    assert generations.begin(PARTITION_OF_A, 4, 7) == Refused(5)
    assert generations.begin(PARTITION_OF_A, 12, 7) == Begun(1)


def nothing_is_built_before_something_is_live(bench: Bench) -> None:
    bench.client.delete(bench.store.partition(PARTITION_OF_A).state)
    assert generations_of(bench).begin(PARTITION_OF_A, 2, 7) == Refused(0)
    assert not field(bench, "building")


def who_has_an_older_token_changes_no_generation(bench: Bench) -> None:
    generations = begun(bench)
    put_a(bench)
    assert generations.begin(PARTITION_OF_A, 2, 8) == Begun(1)
    before = bench.dump()
    for call in (generations.begin, generations.switch, generations.abandon):
        with pytest.raises(FencedError, match="another trainer"):
            call(PARTITION_OF_A, 2, 7)
        assert bench.dump() == before
    assert generations.switch(PARTITION_OF_A, 2, 10) is None
    with pytest.raises(FencedError):  # not as texts: 9 is older than 10
        generations.begin(PARTITION_OF_A, 3, 9)


def who_opened_another_index_of_this_name_changes_nothing(bench: Bench) -> None:
    """It was wiped and created again, and has a generation 2 of its own."""
    begun(bench)
    other = Generations(bench.client, "bench", Identity(SETTINGS, "older nonce"), scripts=bench.scripts)
    before = bench.dump()
    calls = (
        lambda: other.begin(PARTITION_OF_A, 2, 9),
        lambda: other.put(PARTITION_OF_A, 2, 0, np.array([0]), np.array([1]), place(40)),
        lambda: other.switch(PARTITION_OF_A, 2, 9),
        lambda: other.abandon(PARTITION_OF_A, 2, 9),
        lambda: list(other.retire(PARTITION_OF_A, 3)),
        lambda: other.fence(PARTITION_OF_A, 9),
    )
    for call in calls:
        with pytest.raises(IndexMissingError, match="not the one that was opened"):
            call()
        assert bench.dump() == before


def a_partition_without_a_generation_remembers_no_token(bench: Bench) -> None:
    """Nor has it a nonce yet: the token may be one of an index that was wiped, and the next trainer's is 1."""
    generations = generations_of(bench)
    bench.client.delete(bench.store.partition(PARTITION_OF_A).state)
    before = bench.dump()
    assert generations.begin(PARTITION_OF_A, 2, 9) == Refused(0)
    assert generations.switch(PARTITION_OF_A, 2, 9) == Stale(State(0))
    assert not generations.abandon(PARTITION_OF_A, 2, 9)
    assert generations.fence(PARTITION_OF_A, 9) is None
    assert bench.dump() == before
    bench.store.activate(SETTINGS, 1, "nonce")
    assert generations.begin(PARTITION_OF_A, 2, 1) == Begun(0)


def who_was_fenced_off_begins_nothing(bench: Bench) -> None:
    """A trainer with token 6 read its target, and was paused; the one with token 7 forgets that target's model."""
    generations = begun(bench)
    assert generations.fence(PARTITION_OF_A, 7) == {1, 2}
    assert generations.abandon(PARTITION_OF_A, 2, 7)
    assert generations.fence(PARTITION_OF_A, 10) == {1, 2}, "it retires, and has keys"
    before = bench.dump()
    for late in (
        lambda: generations.begin(PARTITION_OF_A, 3, 9),  # not as texts: 9 is older than 10
        lambda: generations.fence(PARTITION_OF_A, 9),
    ):
        with pytest.raises(FencedError, match="another trainer"):
            late()
        assert bench.dump() == before
    assert generations.begin(PARTITION_OF_A, 3, 10) == Begun(1)
    assert generations.fence(PARTITION_OF_A, 10) == {1, 2, 3}


def an_item_that_changed_since_it_was_read_is_not_put(bench: Bench) -> None:
    """The chunk was read, then the item was deleted and its number given to another."""
    begun(bench)
    keys = bench.store.partition(PARTITION_OF_A)
    (other,) = neighbours(1)
    bench.store.delete(PARTITION_OF_A, BOTH, ["a"], [2])
    put_a(bench)
    assert bench.all_buckets() == {}
    assert members(bench) == {}
    bench.upsert(other, 3, 9, state=BOTH)
    assert bench.record(other).number == 0
    # as if it had been written before generation 2 was begun, and so had no place there
    bench.client.srem(keys.bucket(2, 0, 9), *bench.client.smembers(keys.bucket(2, 0, 9)))
    bench.client.delete(keys.places(2, 0))
    put_a(bench)
    assert "2:0:40" not in bench.buckets_of(other)


def an_item_that_the_writers_put_there_is_left_alone(bench: Bench) -> None:
    begun(bench)
    bench.upsert("a", 2, 9, state=BOTH)
    before = bench.dump()
    put_a(bench, sequence=2)
    after = bench.dump()
    del after[bench.store.partition(PARTITION_OF_A).built(2)]
    assert after == before


def a_chunk_may_be_put_again(bench: Bench) -> None:
    begun(bench)
    put_a(bench)
    before = bench.dump()
    put_a(bench)
    assert bench.dump() == before


def what_is_not_being_built_is_not_put_into(bench: Bench) -> None:
    generations = begun(bench)
    generations.abandon(PARTITION_OF_A, 2, 7)
    before = bench.dump()
    assert put_a(bench) == Stale(LIVE)
    assert bench.dump() == before
    assert keys_of(bench, 2) == []


def a_chunk_is_built_when_its_last_call_is_done(bench: Bench) -> None:
    """Two calls: after the first alone the chunk is not built."""
    ids = neighbours(3)
    for sequence, item_id in enumerate(ids, 1):
        bench.upsert(item_id, sequence, 5)
    generations = generations_of(bench)
    generations.begin(PARTITION_OF_A, 2, 7)
    places = np.concatenate([place(40)] * 3)
    state = bench.store.partition(PARTITION_OF_A).state
    item = b"\0\0\0" + (1).to_bytes(8, "little") + places[0].tobytes()
    generations._scripts("generation_put", [state], [2, "nonce", 5, 0, item])
    assert generations.count_built(PARTITION_OF_A, 2) == 0
    assert members(bench)["2:0"] == 1
    most = generations_module.PUT_PLACES
    try:
        generations_module.PUT_PLACES = 2  # one item a call, in two tables
        generations.put(PARTITION_OF_A, 2, 5, np.arange(3), np.arange(1, 4), places)
    finally:
        generations_module.PUT_PLACES = most
    assert members(bench)["2:0"] == 3
    assert generations.built(PARTITION_OF_A, 2, 7).tolist() == [False] * 5 + [True, False]
    generations.put(PARTITION_OF_A, 2, 6, NONE, NONE, NO_PLACES)  # a chunk without items
    assert generations.count_built(PARTITION_OF_A, 2) == 2


def only_a_complete_generation_goes_live(bench: Bench) -> None:
    generations = begun(bench)
    (other,) = neighbours(1)
    bench.upsert(other, 2, 9, state=BOTH)
    assert generations.switch(PARTITION_OF_A, 2, 7) == Incomplete(2, [1, 1])
    assert (field(bench, "live"), field(bench, "building")) == (b"1", b"2")
    put_a(bench)
    keys = bench.store.partition(PARTITION_OF_A)
    bench.client.hincrby(keys.state, "members:2:1", -1)
    assert generations.switch(PARTITION_OF_A, 2, 7) == Incomplete(2, [2, 1])
    bench.client.hincrby(keys.state, "members:2:1", 1)
    bench.client.hincrby(keys.state, "members:2:0", -1)
    assert generations.switch(PARTITION_OF_A, 2, 7) == Incomplete(2, [1, 2])
    bench.client.hincrby(keys.state, "members:2:0", 1)
    assert generations.switch(PARTITION_OF_A, 2, 7) is None


def switching_again_changes_nothing(bench: Bench) -> None:
    generations = begun(bench)
    put_a(bench)
    generations.switch(PARTITION_OF_A, 2, 7)
    before = bench.dump()
    assert generations.switch(PARTITION_OF_A, 2, 7) is None
    assert generations.switch(PARTITION_OF_A, 3, 7) == Stale(State(2))
    assert bench.dump() == before


def an_abandoned_generation_is_written_no_more_and_retired(bench: Bench) -> None:
    generations = begun(bench)
    put_a(bench)
    assert generations.abandon(PARTITION_OF_A, 2, 7)
    assert not generations.abandon(PARTITION_OF_A, 2, 7)
    assert (field(bench, "building"), field(bench, "retiring")) == (b"", b"2")
    assert bench.upsert("a", 2, 9, state=BOTH) == Stale(LIVE)
    assert bench.upsert("a", 2, 9) == WRITTEN
    retire(bench, 2)
    assert keys_of(bench, 2) == []
    assert bench.buckets_of("a") == ["1:0:9", "1:1:10"]


def what_is_in_use_is_never_retired(bench: Bench) -> None:
    begun(bench)
    put_a(bench)
    before = bench.dump()
    assert retire(bench, 1) == [BOTH]
    assert retire(bench, 2) == [BOTH]
    assert bench.dump() == before


def retiring_is_done_in_pieces_and_begun_anew_after_a_crash(bench: Bench) -> None:
    ids = neighbours(40)
    for sequence, item_id in enumerate(ids, 1):
        bench.upsert(item_id, sequence, sequence)
    bench.set_state("a", next=str(5 * BLOCK))
    generations = generations_of(bench)
    generations.begin(PARTITION_OF_A, 2, 7)
    numbers = np.arange(len(ids))
    places = np.concatenate([place(100 + n) for n in numbers])
    generations.put(PARTITION_OF_A, 2, 0, numbers, numbers + 1, places)
    generations.begin(PARTITION_OF_A, 2, 7)
    generations.switch(PARTITION_OF_A, 2, 7)
    bench.set_state("a", **{"retiring": "12,1,11", "cleared:1:0": "1", "cleared:1:1": "2"})
    bench.client.set(bench.store.partition(PARTITION_OF_A).places(1, 4), "x")
    kept = keys_of(bench, 2)
    most = generations_module.RETIRE_KEYS
    try:
        generations_module.RETIRE_KEYS = 2
        for stop in range(1, 8):  # each time it dies a step later, and is begun anew
            for step, _ in enumerate(generations.retire(PARTITION_OF_A, 1), 1):
                assert generations.retiring()[PARTITION_OF_A] == [12, 1, 11] or keys_of(bench, 1) == []
                if step == stop:
                    break
        retire(bench, 1)
    finally:
        generations_module.RETIRE_KEYS = most
    assert keys_of(bench, 1) == []
    assert keys_of(bench, 2) == kept
    assert generations.retiring()[PARTITION_OF_A] == [12, 11]


def a_write_leaves_nothing_behind_in_any_generation(bench: Bench) -> None:
    begun(bench)
    put_a(bench)
    bench.upsert("a", 2, 9, state=BOTH)
    assert bench.buckets_of("a") == ["1:0:9", "1:1:10", "2:0:9", "2:1:10"]
    assert members(bench) == {"1:0": 1, "1:1": 1, "2:0": 1, "2:1": 1}
    bench.store.delete(PARTITION_OF_A, BOTH, ["a"], [3])
    assert bench.all_buckets() == {}
    assert bench.directories() == {}
    assert members(bench) == {}
    for generation in (1, 2):
        block = bench.client.get(bench.store.partition(PARTITION_OF_A).places(generation, 0))
        assert set(block) == {0}


def places_are_allocated_a_whole_block_at_once(bench: Bench) -> None:
    bench.set_state("a", next=str(BLOCK - 1))
    first, second = neighbours(2)
    keys = bench.store.partition(PARTITION_OF_A)
    size = BLOCK * place_bytes(SETTINGS)
    bench.upsert("a", 1, 5)
    assert bench.client.strlen(keys.places(1, 0)) == size
    bench.upsert(first, 2, 6)
    assert bench.client.strlen(keys.places(1, 1)) == size
    bench.upsert(second, 3, 7)
    raw = bench.client.get(keys.places(1, 1))
    assert raw[: 2 * place_bytes(SETTINGS)] == place(6).tobytes() + place(7).tobytes()
    assert set(raw[2 * place_bytes(SETTINGS) :]) == {0}


def neighbours_in_one_call_keep_their_own_places(bench: Bench) -> None:
    """Across the end of a block, in one call, with one of them written twice."""
    bench.set_state("a", next=str(BLOCK - 2))
    ids = neighbours(4)
    ids = [*ids, ids[1]]
    codes = [3, 4, 5, 6, 7]
    values = [sequence.to_bytes(8, "little") for sequence in range(1, 6)]
    texts = [""] * 5
    places = [np.concatenate([place(code) for code in codes])]
    assert bench.store.upsert(PARTITION_OF_A, LIVE, ids, range(1, 6), values, texts, texts, places) == [WRITTEN] * 5
    keys = bench.store.partition(PARTITION_OF_A)
    found = [oracle.stored_places(bench.client, keys, SETTINGS, BLOCK - 2 + n)[0][2][0] for n in range(4)]
    assert found == [3, 7, 5, 6]
    assert bench.directories() == bench.all_buckets()
    assert members(bench) == {"1:0": 4, "1:1": 4}


def codes_of_any_length_survive(bench: Bench) -> None:
    """Bytes become the decimal digits of codes and members in the script, which has no integers of 64 bits."""
    rng = np.random.default_rng(3)
    for bits in range(1, 63):
        settings = IndexSettings(3, bits=bits, tables=2)
        bench.client.flushall()
        bench.store.create(settings)
        bench.store.activate(settings, 1, bench.store.settings().nonce)
        top = 2**bits - 1
        codes = [(0, top), (top, 0), *(rng.integers(0, top, 2, endpoint=True).tolist() for _ in range(3))]
        # sums just below and above a multiple of 10^9, where a carry is lost or made up
        codes += [(c, c) for k in (1, 999, 10**6) for c in (k * 10**9 - 1, k * 10**9) if c <= top]
        signatures = [0, 2**39 - 1, *rng.integers(0, 2**39, len(codes) - 2).tolist()]
        ids = [f"i{n}" for n in range(len(codes))]
        texts, values = [""] * len(ids), [b"%08d" % n for n in range(len(ids))]
        places = [encode_places(np.array(codes, np.uint64), np.array(signatures, np.uint64), settings)]
        bench.store.upsert(0, LIVE, ids, range(1, len(ids) + 1), values, texts, texts, places)
        keys = bench.store.partition(0)
        for number, (row, signature) in enumerate(zip(codes, signatures, strict=True)):
            for table, code in enumerate(row):
                held = bench.client.smembers(keys.bucket(1, table, int(code)))
                assert b"%d" % ((signature << 24) + number) in held, (bits, code, signature)
        bench.store.delete(0, LIVE, ids, range(100, 100 + len(ids)))
        assert bench.all_buckets() == {}


def places_that_do_not_fit_are_refused(bench: Bench) -> None:
    before = bench.dump()
    wide: NDArray[np.uint8] = np.zeros((1, place_bytes(SETTINGS) + 1), np.uint8)
    for places in (wide, wide[:, :-2], NO_PLACES):
        with pytest.raises(Exception, match="places are not as many"):
            bench.store.upsert(PARTITION_OF_A, LIVE, ["a"], [1], [b""], [""], [""], [places])
    assert bench.dump() == before


SCENARIOS = (
    a_generation_is_built_beside_the_live_one_and_takes_its_place,
    one_generation_is_built_at_a_time,
    a_generation_number_is_never_used_again,
    nothing_is_built_before_something_is_live,
    who_has_an_older_token_changes_no_generation,
    who_opened_another_index_of_this_name_changes_nothing,
    a_partition_without_a_generation_remembers_no_token,
    who_was_fenced_off_begins_nothing,
    an_item_that_changed_since_it_was_read_is_not_put,
    an_item_that_the_writers_put_there_is_left_alone,
    a_chunk_may_be_put_again,
    what_is_not_being_built_is_not_put_into,
    a_chunk_is_built_when_its_last_call_is_done,
    only_a_complete_generation_goes_live,
    switching_again_changes_nothing,
    an_abandoned_generation_is_written_no_more_and_retired,
    what_is_in_use_is_never_retired,
    retiring_is_done_in_pieces_and_begun_anew_after_a_crash,
    a_write_leaves_nothing_behind_in_any_generation,
    places_are_allocated_a_whole_block_at_once,
    neighbours_in_one_call_keep_their_own_places,
    places_that_do_not_fit_are_refused,
    codes_of_any_length_survive,
)
