"""Atomic looks at single items and buckets, for `verify` to settle what a bulk read left in doubt.

What belongs together is read in one MULTI. Which keys these are depends on the record, so the record is
read first, and again inside the MULTI: when it is the same, the rest was read beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_hash.errors import IntegrityError
from stream_hash.settings import NUMBER_BITS, IndexSettings
from stream_hash.storage.codec import Record, Values, decode_record, decode_values
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.store import State

RETRIES = 64


@dataclass(frozen=True)
class ItemView:
    """One id at one moment.

    present[i][t] : whether record.members[i]'s bucket of table t holds its member. listed : the sequence number
    under which the item stands in the list of labelled ones, None when it does not.
    """

    record: Record | None
    value: Values | None
    state: State
    present: list[list[bool]]
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
            before = self._client.hget(keys.records, item_id)
            record = decode_record(before) if before is not None else None
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hget(keys.records, item_id)
            pipeline.hmget(keys.state, "live", "building")
            number = record.number if record and record.number is not None else -1
            pipeline.get(keys.value(number))
            pipeline.zscore(keys.labelled, number)
            places = [(m, t) for m in (record.members if record else []) for t in range(len(m.codes))]
            for member, table in places:
                pipeline.sismember(keys.bucket(member.generation, table, member.codes[table]), member.member)
            after, (live, building), blob, score, *held = pipeline.execute()
            if after != before:
                continue
            values = None
            if blob is not None and record is not None and record.number is not None:
                numbers = np.array([record.number], dtype=np.int64)
                values = decode_values(numbers, [blob], self._settings.dimension, self._settings.dtype)
            flags = iter(held)
            present = [[bool(next(flags)) for _ in m.codes] for m in (record.members if record else [])]
            state = State(int(live or 0), int(building) if building else None)
            return ItemView(record, values, state, present, int(score) if score is not None else None)
        raise IntegrityError(f"item {item_id!r} changes faster than it can be read", remedy="verify again")

    def bucket(self, partition: int, generation: int, table: int, code: int) -> tuple[int, int]:
        """(members in the bucket, members its directory counts)."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.scard(keys.bucket(generation, table, code))
        pipeline.hget(keys.directory(generation, table), code)
        size, counted = pipeline.execute()
        return int(size), int(counted or 0)

    def member_is_explained(self, partition: int, generation: int, table: int, code: int, member: int) -> bool:
        """Whether a bucket's member belongs to the item its number names (or is gone from the bucket)."""
        keys = self._keys.partition(partition)
        number = member & ((1 << NUMBER_BITS) - 1)
        for _ in range(RETRIES):
            item_id = self._id_at(partition, number)
            pipeline = self._client.pipeline(transaction=True)
            pipeline.sismember(keys.bucket(generation, table, code), member)
            pipeline.exists(keys.value(number))
            pipeline.hget(keys.records, item_id or "")
            held, exists, text = pipeline.execute()
            if not held:
                return True
            if not exists:
                return False
            if self._id_at(partition, number) != item_id or text is None:
                continue
            record = decode_record(text)
            return record.number == number and any(
                (m.generation, m.member) == (generation, member) and m.codes[table] == code for m in record.members
            )
        return False

    def _id_at(self, partition: int, number: int) -> str | None:
        blob = self._client.get(self._keys.partition(partition).value(number))
        if blob is None:
            return None
        numbers = np.array([number], dtype=np.int64)
        return decode_values(numbers, [blob], self._settings.dimension, self._settings.dtype).ids[0]

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
