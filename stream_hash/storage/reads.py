"""Reading a partition: buckets, directories, values, records.

Rule: a gather reads `live` in the same atomic call as the buckets. Generations are never reused, so if it
is the generation the codes were made with, the buckets were complete while they were read, and an old
generation may be deleted as soon as `live` has moved.

Calls are cut so that none holds a server up for long. On one server, whatever belongs to one step of a
search travels in one round trip, however many partitions there are; on a cluster a gather is one round
trip a partition, since MULTI cannot span slots.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError
from stream_hash.settings import NUMBER_BITS, IndexSettings
from stream_hash.storage.codec import Record, Values, decode_record, decode_values, id_offset
from stream_hash.storage.connection import Client, is_cluster
from stream_hash.storage.keys import IndexKeys, PartitionKeys, partition_of
from stream_hash.storage.places import BLOCK, split_block

UNION_KEYS: Final = 8_192
"""Buckets read in one atomic call: at 1 to 2 µs a key, some 15 ms of server time."""

FETCH_VALUES: Final = 1_024
"""Values in one MGET: about 2 MB of 512-dimensional float32."""

FETCH_LABELLED: Final = 4_096
"""Labelled items named in one call, ids of values in one round trip: 2 to 4 ms of server time."""

FETCH_RECORDS: Final = 1_024
"""Records in one HMGET: about 1 ms of server time."""

DIRECTORY_AT_ONCE: Final = 65_536
"""Directories up to this size are read by one HGETALL (all of 16 bits), larger ones by HSCAN."""

_NUMBER_MASK: Final = (1 << NUMBER_BITS) - 1


@dataclass(frozen=True)
class Probes:
    """Buckets to look up in one partition: `codes[t]` are those of table t in `generation`."""

    partition: int
    generation: int
    codes: Sequence[NDArray[np.uint64]]

    @property
    def count(self) -> int:
        return sum(len(codes) for codes in self.codes)


@dataclass(frozen=True)
class Gathered:
    """What the probes of one partition found.

    live, nonce : the generation that was live then, and the index's nonce; the rest means nothing unless they are
    those that were probed for.
    items, buckets : how many items the partition holds, and non-empty buckets all its tables.
    members : (n,) int64, each once, in ascending order.
    """

    live: int
    nonce: str
    items: int
    buckets: int
    members: NDArray[np.int64]


def numbers_of(members: NDArray[np.int64]) -> NDArray[np.int64]:
    """The item numbers of members: their lowest 24 bits."""
    return members & _NUMBER_MASK


class Reader:
    """Reads one index. It changes nothing on the server."""

    def __init__(self, client: Client, index: str, settings: IndexSettings) -> None:
        self._client = client
        self._cluster = is_cluster(client)
        self._keys = IndexKeys(index)
        self._settings = settings

    def gather(self, probes: Sequence[Probes]) -> list[Gathered]:
        """The union of the probed buckets of each partition, each part read with `live` in one atomic call.

        One round trip for up to UNION_KEYS buckets, on a cluster one for each partition. More buckets take more
        calls, so that none holds the server up; each reads `live` anew.
        """
        found: list[list[Gathered]] = [[] for _ in probes]
        for group in self._groups(probes):
            pipeline = self._client.pipeline(transaction=True)
            for position, names in group:
                keys = self._keys.partition(probes[position].partition)
                pipeline.hmget(keys.state, "live", "nonce", "items")
                for table in range(self._settings.tables):
                    pipeline.hlen(keys.directory(probes[position].generation, table))
                if names:
                    # by its name: redis-py's pipeline.sunion refuses a cluster even when all keys share a slot
                    pipeline.execute_command("SUNION", *names)
            replies = iter(pipeline.execute())
            for position, names in group:
                live, nonce, items = next(replies)
                buckets = sum(next(replies) for _ in range(self._settings.tables))
                members = _members([next(replies)] if names else [])
                found[position].append(
                    Gathered(int(live or 0), (nonce or b"").decode(), int(items or 0), buckets, members)
                )
        return [_joined(parts) for parts in found]

    def _groups(self, probes: Sequence[Probes]) -> Iterator[list[tuple[int, list[str]]]]:
        """(position in `probes`, keys of buckets): what is read in one atomic call, a call at a time."""
        group: list[tuple[int, list[str]]] = []
        room = UNION_KEYS
        for position, probe in enumerate(probes):
            keys = self._keys.partition(probe.partition)
            names = [
                prefix + str(code)
                for table, codes in enumerate(probe.codes)
                for prefix in (keys.buckets(probe.generation, table),)
                for code in codes.tolist()
            ]
            if group and self._cluster:  # a transaction stays in one slot
                yield group
                group, room = [], UNION_KEYS
            group.append((position, names[:room]))
            names, room = names[room:], room - len(names[:room])
            while names:
                yield group
                group, room = [(position, names[:UNION_KEYS])], UNION_KEYS - len(names[:UNION_KEYS])
                names = names[UNION_KEYS:]
        if group:
            yield group

    def sizes(self) -> list[tuple[int, int]]:
        """(items, item numbers ever given out) of each partition, in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        for p in range(self._settings.partitions):
            pipeline.hmget(self._keys.partition(p).state, "items", "next")
        return [(int(items or 0), int(given or 0)) for items, given in pipeline.execute()]

    def directories(
        self, wanted: Sequence[tuple[int, int]]
    ) -> list[list[tuple[NDArray[np.uint64], NDArray[np.int64]]]]:
        """For each (partition, generation): for each table the non-empty codes and their member counts.

        One round trip for the sizes and one for all directories that are read at once.
        """
        places = [(self._keys.partition(p), g, t) for p, g in wanted for t in range(self._settings.tables)]
        pipeline = self._client.pipeline(transaction=False)
        for keys, generation, table in places:
            pipeline.hlen(keys.directory(generation, table))
        small = [size <= DIRECTORY_AT_ONCE for size in pipeline.execute()]
        for (keys, generation, table), at_once in zip(places, small, strict=True):
            if at_once:
                pipeline.hgetall(keys.directory(generation, table))
        read = iter(pipeline.execute())
        tables = [
            _directory(next(read) if at_once else self._scan(keys, generation, table))
            for (keys, generation, table), at_once in zip(places, small, strict=True)
        ]
        step = self._settings.tables
        return [tables[i * step : (i + 1) * step] for i in range(len(wanted))]

    def _scan(self, keys: PartitionKeys, generation: int, table: int) -> dict[bytes, bytes]:
        return dict(self._client.hscan_iter(keys.directory(generation, table), count=10_000))

    def values(self, wanted: Sequence[tuple[int, NDArray[np.int64]]]) -> list[Values]:
        """For each (partition, item numbers): the values that are there, in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        for partition, numbers in wanted:
            prefix = self._keys.partition(partition).prefix + "value:"
            names = [prefix + str(number) for number in numbers.tolist()]
            for start in range(0, len(names), FETCH_VALUES):
                # by its name, for the same reason
                pipeline.execute_command("MGET", *names[start : start + FETCH_VALUES])
        replies = iter(pipeline.execute() if len(pipeline) else [])
        found = []
        for _, numbers in wanted:
            blobs: list[bytes | None] = []
            while len(blobs) < len(numbers):
                blobs.extend(next(replies))
            found.append(decode_values(numbers, blobs, self._settings.dimension, self._settings.dtype))
        return found

    def labelled(
        self, partition: int, *, below: int, count: int, above: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Item numbers of labelled items, the newest label first, and the sequence numbers of their labels.

        below, above : only labels of sequence numbers between, neither included. count : at most so many.
        """
        key = self._keys.partition(partition).labelled
        found: list[tuple[bytes, float]] = []
        while len(found) < count:
            most = f"({below if not found else int(found[-1][1])}"
            room = min(FETCH_LABELLED, count - len(found))
            piece = self._client.zrevrangebyscore(key, most, f"({above}", start=0, num=room, withscores=True)
            found += piece
            if len(piece) < room:
                break
        numbers = np.array([int(number) for number, _ in found], dtype=np.int64)
        return numbers, np.array([int(score) for _, score in found], dtype=np.int64)

    def count_labelled(self, *, above: int, below: int) -> int:
        """How many items have a label of a sequence number between, neither included; in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(self._settings.partitions):
            pipeline.zcount(self._keys.partition(partition).labelled, f"({above}", f"({below}")
        return int(sum(pipeline.execute()))

    def ids(self, partition: int, numbers: NDArray[np.int64]) -> list[str | None]:
        """The ids of items, None where there is none; their vectors stay on the server."""
        prefix = self._keys.partition(partition).prefix + "value:"
        start = id_offset(self._settings.dimension, self._settings.dtype)
        found: list[str | None] = []
        for first in range(0, len(numbers), FETCH_LABELLED):
            pipeline = self._client.pipeline(transaction=False)
            for number in numbers[first : first + FETCH_LABELLED].tolist():
                pipeline.getrange(f"{prefix}{number}", start, -1)
            found += [text.decode() if text else None for text in pipeline.execute()]
        return found

    def scan_values(self, partition: int) -> Iterator[Values]:
        """All values of a partition by ascending item number, a bounded piece at a time."""
        given = self.sizes()[partition][1]
        for start in range(0, given, FETCH_VALUES):
            numbers = np.arange(start, min(start + FETCH_VALUES, given), dtype=np.int64)
            yield self.values([(partition, numbers)])[0]

    def places(self, partition: int, generation: int, first: int, count: int) -> NDArray[np.uint8]:
        """The places of `count` item numbers from `first` on, a multiple of BLOCK. Shape (count, place_bytes)."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=False)
        for block in range(first // BLOCK, -(-(first + count) // BLOCK)):
            pipeline.get(keys.places(generation, block))
        blocks = [split_block(block, self._settings) for block in pipeline.execute()]
        return np.concatenate(blocks)[:count]

    def records(self, ids: Sequence[str]) -> list[Record | None]:
        """The records of ids, None for an id never seen (or forgotten), in one round trip."""
        by_partition: dict[int, list[int]] = {}
        for position, item_id in enumerate(ids):
            by_partition.setdefault(partition_of(item_id, self._settings.partitions), []).append(position)
        pieces = [
            (partition, positions[start : start + FETCH_RECORDS])
            for partition, positions in by_partition.items()
            for start in range(0, len(positions), FETCH_RECORDS)
        ]
        pipeline = self._client.pipeline(transaction=False)
        for partition, positions in pieces:
            pipeline.hmget(self._keys.partition(partition).records, [ids[p] for p in positions])
        found: list[Record | None] = [None] * len(ids)
        replies = pipeline.execute() if ids else []
        for (_, positions), texts in zip(pieces, replies, strict=True):
            for position, text in zip(positions, texts, strict=True):
                found[position] = decode_record(text) if text is not None else None
        return found

    def scan_records(self, partition: int) -> Iterator[list[tuple[str, Record]]]:
        """All records of a partition, a bounded piece at a time; each at least once."""
        cursor = 0
        while True:
            cursor, piece = self._client.hscan(self._keys.partition(partition).records, cursor, count=1_000)
            yield [(item_id.decode(), decode_record(text)) for item_id, text in piece.items()]
            if cursor == 0:
                return

    def bucket_members(
        self, partition: int, generation: int, table: int, codes: NDArray[np.uint64]
    ) -> list[NDArray[np.int64]]:
        """The members of each bucket, in one round trip."""
        prefix = self._keys.partition(partition).buckets(generation, table)
        pipeline = self._client.pipeline(transaction=False)
        for code in codes.tolist():
            pipeline.smembers(prefix + str(code))
        return [_members([reply]) for reply in (pipeline.execute() if len(codes) else [])]


def _joined(parts: Sequence[Gathered]) -> Gathered:
    """One partition's parts as one; `live` is 0 unless they all agree."""
    if len(parts) == 1:
        return parts[0]
    agree = len({(part.live, part.nonce) for part in parts}) == 1
    last = parts[-1]
    members = np.unique(np.concatenate([part.members for part in parts]))
    return Gathered(last.live if agree else 0, last.nonce, last.items, last.buckets, members)


def _members(replies: Sequence[Any]) -> NDArray[np.int64]:
    """The members in SMEMBERS or SUNION replies, each once, ascending: the same on every server.

    Raises IntegrityError when one is no integer.
    """
    parts = [np.sort(_integers(reply)) for reply in replies]
    if len(parts) == 1:
        return parts[0]  # a set has no member twice
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


def _integers(texts: Collection[bytes]) -> NDArray[np.int64]:
    """Decimal texts as integers: all in one pass, in half the time of `int` for each."""
    try:
        numbers = np.fromstring(b" ".join(texts), dtype=np.int64, sep=" ")
    except ValueError as error:
        raise IntegrityError("a bucket or directory holds what is no integer", why=str(error)) from error
    if len(numbers) != len(texts):
        raise IntegrityError(
            "a bucket or directory holds what is no integer", why=f"of {len(texts)}, {len(numbers)} are"
        )
    return numbers


def _directory(reply: dict[bytes, bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    codes, counts = _integers(reply.keys()).astype(np.uint64), _integers(reply.values())
    order = np.argsort(codes)
    return codes[order], counts[order]
