"""Atomic looks at single items and buckets, for `verify` to settle what a bulk read left in doubt.

What belongs together is read in one MULTI. Which keys these are depends on the record and the places, so these are
read first, and again inside the MULTI: when they are the same, the rest was read beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from stream_hash.errors import IntegrityError
from stream_hash.settings import NUMBER_BITS, IndexSettings
from stream_hash.storage.codec import Record, Values, decode_record, decode_values
from stream_hash.storage.connection import Client
from stream_hash.storage.generations import CHUNK
from stream_hash.storage.keys import IndexKeys, PartitionKeys
from stream_hash.storage.places import BLOCK, decode_places, place_bytes
from stream_hash.storage.store import State, state_of

RETRIES = 64


@dataclass(frozen=True)
class ItemPlace:
    """Where one generation says an item is. present[t] : whether the bucket of table t holds it."""

    codes: list[int]
    signature: int
    present: list[bool]


@dataclass(frozen=True)
class ItemView:
    """One id at one moment.

    places : by generation, of those that are written; None where the item has no place. built : whether the item's
    chunk is said to be in the generation that is being built. listed : the sequence number under which the item
    stands in the list of labelled ones, None when it does not.
    """

    record: Record | None
    value: Values | None
    state: State
    places: dict[int, ItemPlace | None]
    built: bool
    listed: int | None


@dataclass(frozen=True)
class Counts:
    """items : as the partition counts them. records : of items. given : item numbers ever. free : given back."""

    items: int
    records: int
    given: int
    free: int


class Inspector:
    """Looks at one index. It changes nothing."""

    def __init__(self, client: Client, index: str, settings: IndexSettings) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._settings = settings

    def item(self, partition: int, item_id: str) -> ItemView:
        """All that is stored of one id."""
        keys = self._keys.partition(partition)
        for _ in range(RETRIES):
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hget(keys.records, item_id)
            pipeline.hmget(keys.state, "live", "building")
            before = pipeline.execute()
            record = decode_record(before[0]) if before[0] is not None else None
            state = state_of(*before[1])
            number = record.number if record and record.number is not None else -1
            places = {g: self._place(keys, g, number) for g in state.writable} if number >= 0 else {}
            pipeline.hget(keys.records, item_id)
            pipeline.hmget(keys.state, "live", "building")
            pipeline.get(keys.value(number))
            pipeline.zscore(keys.labelled, number)
            pipeline.getbit(keys.built(state.building or 0), max(0, number) // CHUNK)
            for generation, place in places.items():
                self._read_place(pipeline, keys, generation, number)
                if place is not None:
                    codes, signature = place
                    for table, code in enumerate(codes):
                        pipeline.sismember(keys.bucket(generation, table, code), signature << NUMBER_BITS | number)
            replies = iter(pipeline.execute())
            *after, blob, score, built = islice(replies, 5)
            views: dict[int, ItemPlace | None] = {}
            same = after == before
            for generation, place in places.items():
                same = same and self._decoded(next(replies)) == place
                views[generation] = None
                if place is not None:
                    views[generation] = ItemPlace(*place, [bool(next(replies)) for _ in place[0]])
            if not same:
                continue
            values = None
            if blob is not None and number >= 0:
                numbers = np.array([number], dtype=np.int64)
                values = decode_values(numbers, [blob], self._settings.dimension, self._settings.dtype)
            return ItemView(record, values, state, views, bool(built), int(score) if score is not None else None)
        raise IntegrityError(f"item {item_id!r} changes faster than it can be read", remedy="verify again")

    def _place(self, keys: PartitionKeys, generation: int, number: int) -> tuple[list[int], int] | None:
        """The codes and signature of an item number's place; None when it is free."""
        pipeline = self._client.pipeline(transaction=False)
        self._read_place(pipeline, keys, generation, number)
        return self._decoded(pipeline.execute()[0])

    def _read_place(self, pipeline: Any, keys: PartitionKeys, generation: int, number: int) -> None:
        block, position = divmod(number, BLOCK)
        start = position * place_bytes(self._settings)
        pipeline.getrange(keys.places(generation, block), start, start + place_bytes(self._settings) - 1)

    def _decoded(self, raw: bytes) -> tuple[list[int], int] | None:
        size = place_bytes(self._settings)
        places = np.frombuffer(raw.ljust(size, b"\0"), dtype=np.uint8).reshape(1, size)
        placed = decode_places(places, self._settings)
        return (placed.codes[0].tolist(), int(placed.signatures[0])) if placed.occupied[0] else None

    def bucket(self, partition: int, generation: int, table: int, code: int) -> tuple[int, int]:
        """(members in the bucket, members its directory counts)."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.scard(keys.bucket(generation, table, code))
        pipeline.hget(keys.directory(generation, table), code)
        size, counted = pipeline.execute()
        return int(size), int(counted or 0)

    def unexplained(
        self, partition: int, generation: int, members: Sequence[tuple[int, int, int]]
    ) -> list[tuple[int, int, int]]:
        """Those of the (table, code, member) that are in their bucket without belonging to the item they name.

        None are when the generation is not written any more. One round trip, one moment: hand in some hundreds.
        """
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(keys.state, "live", "building")
        for table, code, member in members:
            number = member & ((1 << NUMBER_BITS) - 1)
            pipeline.sismember(keys.bucket(generation, table, code), member)
            pipeline.exists(keys.value(number))
            self._read_place(pipeline, keys, generation, number)
        replies = iter(pipeline.execute())
        if generation not in state_of(*next(replies)).writable:
            return []
        found = []
        for table, code, member in members:
            held, exists, raw = islice(replies, 3)
            place = self._decoded(raw)
            belongs = exists and place and (place[0][table], place[1]) == (code, member >> NUMBER_BITS)
            if held and not belongs:
                found.append((table, code, member))
        return found

    def is_occupied_in_vain(self, partition: int, generation: int, number: int) -> bool:
        """Whether a generation that is written has a place for an item number that no item has."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(keys.state, "live", "building")
        pipeline.exists(keys.value(number))
        self._read_place(pipeline, keys, generation, number)
        state, used, raw = pipeline.execute()
        return generation in state_of(*state).writable and not used and self._decoded(raw) is not None

    def members(self, partition: int, generation: int, table: int) -> tuple[int, int]:
        """(members the partition counts in a table, sum of the table's directory), at one moment."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hget(keys.state, f"members:{generation}:{table}")
        pipeline.hvals(keys.directory(generation, table))
        counted, counts = pipeline.execute()
        return int(counted or 0), sum(map(int, counts))

    def leftovers(self, partition: int, generation: int) -> int:
        """How many keys and counts a generation has left that is neither in use nor being retired; else 0."""
        keys, tables = self._keys.partition(partition), range(self._settings.tables)
        blocks = -(-int(self._client.hget(keys.state, "next") or 0) // BLOCK)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(keys.state, "live", "building", "retiring")
        fields = [f"{count}:{generation}:{table}" for count in ("members", "cleared") for table in tables]
        pipeline.hmget(keys.state, fields)
        names = [name(generation, table) for name in (keys.directory, keys.opened) for table in tables]
        names += [keys.places(generation, block) for block in range(blocks)] + [keys.built(generation)]
        for start in range(0, len(names), 1_000):
            # by its name: redis-py's cluster client splits `exists`, and a transaction stays whole
            pipeline.execute_command("EXISTS", *names[start : start + 1_000])
        (live, building, retiring), counts, *found = pipeline.execute()
        if generation in state_of(live, building).writable or str(generation).encode() in (retiring or b"").split(b","):
            return 0
        return sum(map(int, found)) + sum(count is not None for count in counts)

    def counts(self, partition: int) -> Counts:
        """A partition's own counts, and what they count, at one moment."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(keys.state, "items", "next")
        pipeline.hlen(keys.records)
        pipeline.zcard(keys.tombstones)
        pipeline.llen(keys.free)
        (items, given), records, tombstones, free = pipeline.execute()
        return Counts(int(items or 0), int(records) - int(tombstones), int(given or 0), int(free))

    def free_numbers(self, partition: int) -> list[int]:
        """The item numbers that were given back."""
        return [int(number) for number in self._client.lrange(self._keys.partition(partition).free, 0, -1)]

    def is_free_and_used(self, partition: int, number: int) -> bool:
        """Whether an item number stands among the free ones although it has a value."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.lrange(keys.free, 0, -1)
        pipeline.exists(keys.value(number))
        free, used = pipeline.execute()
        return bool(used) and number in map(int, free)

    def labelled(self, partition: int) -> dict[int, int]:
        """Item number → sequence number of its label, of the items in the list of labelled ones."""
        pairs = self._client.zrange(self._keys.partition(partition).labelled, 0, -1, withscores=True)
        return {int(number): int(score) for number, score in pairs}

    def is_listed_in_vain(self, partition: int, number: int) -> bool:
        """Whether an item number stands in the list of labelled ones although no item has it."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.zscore(keys.labelled, number)
        pipeline.exists(keys.value(number))
        score, used = pipeline.execute()
        return score is not None and not used
