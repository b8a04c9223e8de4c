"""What monitoring asks of indexes: in four round trips, however many indexes, partitions and items there are.

Rules
1. No key is scanned, and no reply grows with the items. What only all buckets together could tell exactly is told by
   SAMPLED items: each names the bucket that it is in, so a bucket is found the more surely the larger it is.
2. What is read in different round trips is of different moments: two numbers of one scrape may contradict each other
   by what was done in the milliseconds between.
3. Nothing is written; a read-only account is enough.

On a cluster a round trip goes to each node that holds something of what is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np

from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import Client
from stream_hash.storage.generations import CHUNK
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.ledger import COUNTERS
from stream_hash.storage.places import BLOCK, decode_places, place_bytes
from stream_hash.storage.store import Identity, state_of

SAMPLED: Final = 256
"""Items of an index whose buckets are looked at. A bucket with one item in fifty is among these 994 times in 1,000."""


@dataclass
class PartitionScrape:
    """items : held. given : item numbers ever. live, building : generations, 0 for none. members : of the live one, in
    all tables. buckets : of these tables, not empty. labelled : items with a label. built : items in those chunks that
    the generation being built has, about.
    """

    items: int
    given: int
    live: int
    building: int
    members: int
    buckets: int = 0
    labelled: int = 0
    built: int = 0


@dataclass
class IndexScrape:
    """counters, tallies : by name (keys.py, tallies.py). pending : batches. oldest : Unix milliseconds at which the
    oldest of these was accepted, None when none is pending. target : of the trainer, 0 for none. lease_until : the
    trainer's, Unix milliseconds. run : the record of the last training, empty before there is one. quality : the
    summary, as it is stored. bucket_sizes : of the buckets that sampled items are in.
    """

    name: str
    settings: IndexSettings
    counters: dict[str, int]
    tallies: dict[str, int]
    pending: int
    dead_letters: int
    target: int
    lease_until: int
    run: dict[str, Any]
    quality: bytes
    oldest: int | None = None
    partitions: list[PartitionScrape] = field(default_factory=list)
    bucket_sizes: list[int] = field(default_factory=list)


def scrape(client: Client, names: Sequence[str], rng: np.random.Generator) -> list[IndexScrape]:
    """What there is to tell of the indexes of these names; one that is not there (any more) is left out."""
    found, oldest = _heads(client, names)
    _read_states(client, found, oldest)
    codes = _read_counts(client, found, rng)
    replies = iter(_together(client, [["HMGET", key, *wanted] for _, key, wanted in codes]))
    for (index, _, _), sizes in zip(codes, replies, strict=True):
        # a bucket may be gone by now, or its generation retired
        index.bucket_sizes += [int(size) for size in sizes if size is not None]
    return found


def _heads(client: Client, names: Sequence[str]) -> tuple[list[IndexScrape], list[str | None]]:
    """The indexes without their partitions, and of each the oldest pending batch."""
    commands: list[list[Any]] = []
    for name in names:
        keys = IndexKeys(name)
        commands += [
            ["GET", keys.settings],
            ["HMGET", keys.counters, *COUNTERS],
            ["HGETALL", keys.tallies],
            ["ZCARD", keys.pending],
            ["ZRANGE", keys.pending, 0, 0],
            ["HLEN", keys.dead],
            ["HMGET", keys.trainer, "target", "until"],
            ["LRANGE", keys.runs, 0, 0],
            ["HGET", keys.quality, "summary"],
        ]
    replies = iter(_together(client, commands))
    found, oldest = [], []
    for name in names:
        settings, counters, tallies, pending, first, letters, trainer, runs, quality = islice(replies, 9)
        if settings is None:
            continue
        target, until = (int(value or 0) for value in trainer)
        found.append(
            IndexScrape(
                name,
                Identity.of(settings).settings,
                dict(zip(COUNTERS, (int(count or 0) for count in counters), strict=True)),
                {text.decode(): int(count) for text, count in tallies.items()},
                int(pending),
                int(letters),
                target,
                until,
                json.loads(runs[0]) if runs else {},
                quality or b"",
            )
        )
        oldest.append(first[0].decode() if first else None)
    return found, oldest


def _read_states(client: Client, found: Sequence[IndexScrape], oldest: Sequence[str | None]) -> None:
    """Fill in when the oldest batches were accepted, and the partitions as far as their states tell."""
    commands: list[list[Any]] = []
    for index, batch in zip(found, oldest, strict=True):
        keys = IndexKeys(index.name)
        commands.append(["HGET", keys.arrived, batch or ""])
        commands += [["HGETALL", keys.partition(number).state] for number in range(index.settings.partitions)]
    replies = iter(_together(client, commands))
    for index in found:
        arrived = next(replies)  # None of a batch that was accepted by an earlier version, or is finished by now
        index.oldest = int(arrived) if arrived is not None else None
        for state in islice(replies, index.settings.partitions):
            generations = state_of(state.get(b"live"), state.get(b"building"))
            members = [state.get(b"members:%d:%d" % (generations.live, t), 0) for t in range(index.settings.tables)]
            index.partitions.append(
                PartitionScrape(
                    int(state.get(b"items", 0)),
                    int(state.get(b"next", 0)),
                    generations.live,
                    generations.building or 0,
                    sum(map(int, members)),
                )
            )


Wanted = list[tuple[IndexScrape, str, list[int]]]
"""Of which index, in which directory, which codes."""


def _read_counts(client: Client, found: Sequence[IndexScrape], rng: np.random.Generator) -> Wanted:
    """Fill in what is counted of each partition; the codes of sampled items."""
    commands: list[list[Any]] = []
    sampled: list[list[list[int]]] = []
    for index in found:
        of_index = _numbers(index, rng)
        sampled.append(of_index)
        for number, (partition, numbers) in enumerate(zip(index.partitions, of_index, strict=True)):
            keys, live = IndexKeys(index.name).partition(number), partition.live
            commands += [["ZCARD", keys.labelled], ["BITCOUNT", keys.built(partition.building)]]
            commands += [["HLEN", keys.directory(live, table)] for table in range(index.settings.tables)]
            size = place_bytes(index.settings)
            for block, at in (divmod(one, BLOCK) for one in numbers):
                commands.append(["GETRANGE", keys.places(live, block), at * size, (at + 1) * size - 1])
    replies = iter(_together(client, commands))
    wanted: Wanted = []
    for index, of_index in zip(found, sampled, strict=True):
        for number, (partition, numbers) in enumerate(zip(index.partitions, of_index, strict=True)):
            keys = IndexKeys(index.name).partition(number)
            labelled, chunks = islice(replies, 2)
            partition.labelled = int(labelled)
            partition.built = min(partition.items, int(chunks) * CHUNK)
            partition.buckets = sum(int(length) for length in islice(replies, index.settings.tables))
            codes = _codes(list(islice(replies, len(numbers))), index.settings)
            for table, of_table in enumerate(codes):
                if of_table:
                    wanted.append((index, keys.directory(partition.live, table), of_table))
    return wanted


def _numbers(index: IndexScrape, rng: np.random.Generator) -> list[list[int]]:
    """Item numbers to look at, of each partition as many as its share; some may be free."""
    given = np.array([partition.given if partition.live else 0 for partition in index.partitions], dtype=np.int64)
    if not given.any():
        return [[] for _ in index.partitions]
    drawn = rng.integers(0, given.sum(), size=SAMPLED)
    ends = np.cumsum(given)
    owners = np.searchsorted(ends, drawn, side="right")
    return [sorted({int(one) for one in drawn[owners == p] - (ends[p] - given[p])}) for p in range(len(given))]


def _codes(raw: Sequence[bytes], settings: IndexSettings) -> list[list[int]]:
    """Of each table the codes in these places, as far as they are occupied; one for each item."""
    size = place_bytes(settings)
    whole = b"".join(place.ljust(size, b"\0")[:size] for place in raw)
    placed = decode_places(np.frombuffer(whole, dtype=np.uint8).reshape(len(raw), size), settings)
    return [placed.codes[placed.occupied, table].tolist() for table in range(settings.tables)]


def _together(client: Client, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The replies to commands, in one round trip."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return pipeline.execute() if commands else []
