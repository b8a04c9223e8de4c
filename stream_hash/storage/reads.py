"""Reading a partition's values, places and records. Its buckets: buckets.py.

Calls are cut so that none holds a server up for long. On one server, whatever belongs to one step of a
search travels in one round trip, however many partitions there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.settings import NUMBER_BITS, IndexSettings
from stream_hash.storage.codec import Record, Values, decode_record, decode_records, decode_values, id_offset
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys, partition_of
from stream_hash.storage.places import BLOCK, split_block
from stream_hash.storage.scripts import sources

FETCH_VALUES: Final = 1_024
"""Values in one MGET: about 2 MB of 512-dimensional float32."""

FETCH_LABELLED: Final = 4_096
"""Labelled items named in one call, ids of values in one round trip: 2 to 4 ms of server time."""

FETCH_RECORDS: Final = 1_024
"""Records in one HMGET: about 1 ms of server time."""

SCAN_RECORDS: Final = 4_096
"""Records in one HSCAN: a millisecond or two of server time. With 1,000 a scan took three times as long."""

IDENTIFY: Final = 512
"""Records by item number in one call of a script: 1 to 2 ms of server time."""

IDENTIFY_TOGETHER: Final = 8_192
"""And in one round trip: at most 8 kB each, some 100 bytes most often."""

_NUMBER_MASK: Final = (1 << NUMBER_BITS) - 1


def numbers_of(members: NDArray[np.int64]) -> NDArray[np.int64]:
    """The item numbers of members: their lowest 24 bits."""
    return members & _NUMBER_MASK


class Reader:
    """Reads one index. It changes nothing on the server."""

    def __init__(self, client: Client, index: str, settings: IndexSettings) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._settings = settings

    def sizes(self) -> list[tuple[int, int]]:
        """(items, item numbers ever given out) of each partition, in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        for p in range(self._settings.partitions):
            pipeline.hmget(self._keys.partition(p).state, "items", "next")
        return [(int(items or 0), int(given or 0)) for items, given in pipeline.execute()]

    def values(self, wanted: Sequence[tuple[int, NDArray[np.int64]]]) -> list[Values]:
        """For each (partition, item numbers): the values that are there, in one round trip."""
        commands = []
        for partition, numbers in wanted:
            prefix = self._keys.partition(partition).prefix + "value:"
            names = [prefix + str(number) for number in numbers.tolist()]
            # by its name: redis-py's pipeline.mget refuses a cluster even when all keys share a slot
            commands += [["MGET", *names[start : start + FETCH_VALUES]] for start in range(0, len(names), FETCH_VALUES)]
        replies = iter(self._together(commands))
        found = []
        for _, numbers in wanted:
            blobs: list[bytes | None] = []
            while len(blobs) < len(numbers):
                blobs.extend(next(replies))
            found.append(decode_values(numbers, blobs, self._settings.dimension, self._settings.dtype))
        return found

    def _together(self, commands: Sequence[Sequence[str]]) -> list[Any]:
        """The replies to commands, in one round trip; to a single one without the weight of a pipeline."""
        if len(commands) == 1:
            return [self._client.execute_command(*commands[0])]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute() if commands else []

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
        found: list[Record | None] = [None] * len(ids)
        replies = self._together(
            [["HMGET", self._keys.partition(p).records, *(ids[i] for i in positions)] for p, positions in pieces]
        )
        there = [
            (position, text)
            for (_, positions), texts in zip(pieces, replies, strict=True)
            for position, text in zip(positions, texts, strict=True)
            if text is not None
        ]
        for (position, _), record in zip(there, decode_records([text for _, text in there]), strict=True):
            found[position] = record
        return found

    def record_texts(self, wanted: Sequence[tuple[int, NDArray[np.int64]]]) -> list[list[tuple[bytes, bytes | None]]]:
        """For each (partition, item numbers): ids and records as they are stored, each pair as it was at one moment.

        b"" and None where there is no item. One round trip for up to IDENTIFY_TOGETHER items.
        """
        start = str(id_offset(self._settings.dimension, self._settings.dtype))
        commands, whose, size = [], [], 0
        found: list[list[tuple[bytes, bytes | None]]] = [[] for _ in wanted]
        for at, (partition, numbers) in enumerate(wanted):
            keys = self._keys.partition(partition)
            # by its text: a script of this size costs nothing to send, and may have been flushed
            call = ["EVAL", sources()["identify"], "1", keys.records, keys.prefix + "value:", start]
            for first in range(0, len(numbers), IDENTIFY):
                some = numbers[first : first + IDENTIFY]
                commands.append([*call, *map(str, some.tolist())])
                whose.append(at)
                size += len(some)
                if size >= IDENTIFY_TOGETHER:
                    self._identify(commands, whose, found)
                    commands, whose, size = [], [], 0
        self._identify(commands, whose, found)
        return found

    def _identify(
        self, commands: Sequence[Sequence[str]], whose: Sequence[int], found: list[list[tuple[bytes, bytes | None]]]
    ) -> None:
        for at, (ids, texts) in zip(whose, self._together(commands), strict=True):
            found[at] += zip(ids, texts, strict=True)

    def scan_record_texts(self, partition: int) -> Iterator[dict[bytes, bytes]]:
        """All records of a partition as they are stored, by id: a bounded piece at a time, each at least once."""
        cursor = 0
        while True:
            cursor, piece = self._client.hscan(self._keys.partition(partition).records, cursor, count=SCAN_RECORDS)
            yield piece
            if cursor == 0:
                return

    def scan_records(self, partition: int) -> Iterator[list[tuple[str, Record]]]:
        """All records of a partition, a bounded piece at a time; each at least once."""
        for piece in self.scan_record_texts(partition):
            yield [(item_id.decode(), decode_record(text)) for item_id, text in piece.items()]
