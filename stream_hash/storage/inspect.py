"""Atomic looks at some items and buckets, for `verify` to settle what a bulk read left in doubt.

What belongs together is read in one MULTI. Which keys these are depends on the record and the places, so these are
read first, and again inside the MULTI: when they are the same, the rest was read beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
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

    def items(self, partition: int, ids: Sequence[str]) -> dict[str, ItemView]:
        """All that is stored of each id at one moment. Three round trips for all that nobody writes: hand in some tens.

        Raises IntegrityError when an item changes each time that it is read.
        """
        keys = self._keys.partition(partition)
        views: dict[str, ItemView] = {}
        waiting = list(ids)
        for _ in range(RETRIES):
            views |= self._unchanged(keys, waiting)
            waiting = [item_id for item_id in waiting if item_id not in views]
            if not waiting:
                return views
        raise IntegrityError(f"item {waiting[0]!r} changes faster than it can be read", remedy="verify again")

    def _unchanged(self, keys: PartitionKeys, ids: Sequence[str]) -> dict[str, ItemView]:
        """Of some ids, those that were the same when all of them were read in one MULTI as just before."""
        before = self._records(keys, ids)
        state = state_of(*before[0])
        records = [decode_record(text) if text is not None else None for text in before[1:]]
        numbers = [record.number if record and record.number is not None else -1 for record in records]
        places = self._places(keys, state.writable, numbers)
        pipeline = self._client.pipeline(transaction=True)
        self._read_records(pipeline, keys, ids)
        for number, own in zip(numbers, places, strict=True):
            pipeline.get(keys.value(number))
            pipeline.zscore(keys.labelled, number)
            pipeline.getbit(keys.built(state.building or 0), max(0, number) // CHUNK)
            for generation, place in own.items():
                self._read_place(pipeline, keys, generation, number)
                codes, signature = place or ([], 0)
                for table, code in enumerate(codes):
                    pipeline.sismember(keys.bucket(generation, table, code), signature << NUMBER_BITS | number)
        replies = iter(pipeline.execute())
        after = list(islice(replies, len(before)))
        if after[0] != before[0]:
            return {}
        views = {}
        for row, (item_id, record, number) in enumerate(zip(ids, records, numbers, strict=True)):
            same = after[row + 1] == before[row + 1]
            blob, score, built = islice(replies, 3)
            found: dict[int, ItemPlace | None] = {}
            for generation, place in places[row].items():
                same = self._decoded(next(replies)) == place and same
                found[generation] = place and ItemPlace(*place, [bool(next(replies)) for _ in place[0]])
            if not same:
                continue
            values = None
            if blob is not None and number >= 0:
                one = np.array([number], dtype=np.int64)
                values = decode_values(one, [blob], self._settings.dimension, self._settings.dtype)
            listed = int(score) if score is not None else None
            views[item_id] = ItemView(record, values, state, found, bool(built), listed)
        return views

    def _records(self, keys: PartitionKeys, ids: Sequence[str]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=True)
        self._read_records(pipeline, keys, ids)
        return list(pipeline.execute())

    def _read_records(self, pipeline: Any, keys: PartitionKeys, ids: Sequence[str]) -> None:
        pipeline.hmget(keys.state, "live", "building")
        for item_id in ids:
            pipeline.hget(keys.records, item_id)

    def _places(
        self, keys: PartitionKeys, generations: Sequence[int], numbers: Sequence[int]
    ) -> list[dict[int, tuple[list[int], int] | None]]:
        """Of each item number, by generation, the codes and signature of its place; None when that is free.

        Nothing for a number below 0: there is no such item.
        """
        wanted = [number for number in numbers if number >= 0]
        pipeline = self._client.pipeline(transaction=False)
        for number, generation in product(wanted, generations):
            self._read_place(pipeline, keys, generation, number)
        replies = iter(pipeline.execute())
        return [
            {generation: self._decoded(next(replies)) for generation in generations} if number >= 0 else {}
            for number in numbers
        ]

    def _read_place(self, pipeline: Any, keys: PartitionKeys, generation: int, number: int) -> None:
        block, position = divmod(number, BLOCK)
        start = position * place_bytes(self._settings)
        pipeline.getrange(keys.places(generation, block), start, start + place_bytes(self._settings) - 1)

    def _decoded(self, raw: bytes) -> tuple[list[int], int] | None:
        size = place_bytes(self._settings)
        places = np.frombuffer(raw.ljust(size, b"\0"), dtype=np.uint8).reshape(1, size)
        placed = decode_places(places, self._settings)
        return (placed.codes[0].tolist(), int(placed.signatures[0])) if placed.occupied[0] else None

    def miscounted(
        self, partition: int, buckets: Sequence[tuple[int, int, int]]
    ) -> list[tuple[int, int, int, int, int]]:
        """Of some (generation, table, code) the buckets that hold another number of members than their directory
        counts, each with the two numbers. None are of a generation that is not written any more. One round trip.
        """
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(keys.state, "live", "building")
        for generation, table, code in buckets:
            pipeline.scard(keys.bucket(generation, table, code))
            pipeline.hget(keys.directory(generation, table), code)
        replies = iter(pipeline.execute())
        writable = state_of(*next(replies)).writable
        found = []
        for generation, table, code in buckets:
            size, counted = int(next(replies)), int(next(replies) or 0)
            if size != counted and generation in writable:
                found.append((generation, table, code, size, counted))
        return found

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

    def occupied_in_vain(self, partition: int, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Of some (generation, item number) those that have a place, in a generation that is written, and no item."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(keys.state, "live", "building")
        for generation, number in places:
            pipeline.exists(keys.value(number))
            self._read_place(pipeline, keys, generation, number)
        replies = iter(pipeline.execute())
        writable = state_of(*next(replies)).writable
        found = []
        for generation, number in places:
            used, place = next(replies), self._decoded(next(replies))
            if generation in writable and not used and place is not None:
                found.append((generation, number))
        return found

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

    def free_and_used(self, partition: int, numbers: Sequence[int]) -> list[int]:
        """Of some item numbers those that stand among the free ones although they have a value."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.lrange(keys.free, 0, -1)
        for number in numbers:
            pipeline.exists(keys.value(number))
        free, *used = pipeline.execute()
        given_back = set(map(int, free))
        return [number for number, one in zip(numbers, used, strict=True) if one and number in given_back]

    def labelled(self, partition: int) -> dict[int, int]:
        """Item number → sequence number of its label, of the items in the list of labelled ones."""
        pairs = self._client.zrange(self._keys.partition(partition).labelled, 0, -1, withscores=True)
        return {int(number): int(score) for number, score in pairs}

    def listed_in_vain(self, partition: int, numbers: Sequence[int]) -> list[int]:
        """Of some item numbers those that stand in the list of labelled ones although no item has them."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        for number in numbers:
            pipeline.zscore(keys.labelled, number)
            pipeline.exists(keys.value(number))
        replies = pipeline.execute()
        pairs = zip(numbers, replies[::2], replies[1::2], strict=True)
        return [number for number, score, used in pairs if score is not None and not used]
