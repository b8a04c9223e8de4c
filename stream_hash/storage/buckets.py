"""Reading buckets: the directory of a table, and the union of the buckets that are probed.

Rules
1. A gather reads `live` in the same atomic call as the buckets. Generations are never reused, so if it is the
   generation the codes were made with, the buckets were complete while they were read, and an old generation may be
   deleted as soon as `live` has moved.
2. The list of opened buckets (scripts/partition.lua) is read in that call too, from where the caller had read it
   before. So who keeps a directory learns of every bucket that was opened since, before or with the reply to its
   probes; or that the list was begun anew meanwhile, and the directory must be read again.
3. A directory is read after its position in the list: what is opened between the two is in both, and nothing in
   neither.

On one server, whatever belongs to a gather travels in one round trip, however many partitions and queries there are;
on a cluster it is one round trip a partition, since MULTI cannot span slots.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError
from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import Client, is_cluster
from stream_hash.storage.keys import IndexKeys, PartitionKeys

UNION_KEYS: Final = 8_192
"""Buckets read in one atomic call: at 1 to 2 µs a key, some 15 ms of server time."""

UNION_AT_ONCE: Final = 64
"""Buckets in one SUNION. The server collects a union in a sorted array, as far as its limit for intsets allows, and so
takes its time with thousands of members: 900 buckets of 6,000 members came in a third of it in pieces."""

DIRECTORY_AT_ONCE: Final = 65_536
"""Directories up to this size are read by one HGETALL (all of 16 bits), larger ones by HSCAN."""


class Position(NamedTuple):
    """How far a list of opened buckets was read: how often it had been begun anew, and how long it was then."""

    cleared: int
    length: int


@dataclass(frozen=True)
class Listing:
    """The directory of one table. codes : (n_buckets,) uint64, ascending. counts : (n_buckets,) int64.

    position : in the list of opened buckets, before the directory was read. items : of the partition, then.
    """

    codes: NDArray[np.uint64]
    counts: NDArray[np.int64]
    position: Position
    items: int


@dataclass(frozen=True)
class Probes:
    """Buckets to look up in one partition: `queries[q][t]` are the codes that query q probes in table t.

    since : the position, in each table's list of opened buckets, from which to read it; None leaves it unread.
    """

    partition: int
    generation: int
    queries: Sequence[Sequence[NDArray[np.uint64]]]
    since: Sequence[Position] | None = None


@dataclass(frozen=True)
class Gathered:
    """What the probes of one partition found.

    live, nonce : the generation that was live then, and the index's nonce; the rest means nothing unless they are
    those that were probed for.
    items, buckets : how many items the partition holds, and non-empty buckets all its tables.
    members : for each query (n,) int64, each once, in ascending order.
    opened : for each table the codes of buckets opened since the position asked for; None when its list was begun
    anew after that. Empty when no position was given.
    """

    live: int
    nonce: str
    items: int
    buckets: int
    members: list[NDArray[np.int64]]
    opened: list[NDArray[np.uint64] | None] = field(default_factory=list)


Part = list[tuple[int, list[tuple[int, list[str]]]]]
"""What is read in one atomic call: (position in the probes, [(query, keys of its buckets)])."""


class BucketReader:
    """Reads the buckets of one index. It changes nothing on the server."""

    def __init__(self, client: Client, index: str, settings: IndexSettings) -> None:
        self._client = client
        self._cluster = is_cluster(client)
        self._keys = IndexKeys(index)
        self._tables = range(settings.tables)

    def gather(self, probes: Sequence[Probes]) -> list[Gathered]:
        """For each partition the union of each query's buckets, each part read with `live` in one atomic call.

        One round trip for up to UNION_KEYS buckets, on a cluster one for each partition. More buckets take more
        calls, so that none holds the server up; each reads `live` and what was opened anew.
        """
        found: list[list[tuple[list[int], Gathered]]] = [[] for _ in probes]
        for part in self._parts(probes):
            pipeline = self._client.pipeline(transaction=True)
            if not self._cluster:  # redis-py would make a set of every union: a third of the time of a batch
                pipeline.response_callbacks = {}
            for position, unions in part:
                self._ask(pipeline, probes[position], unions)
            replies = iter(pipeline.execute())
            for position, unions in part:
                gathered = self._answer(replies, probes[position], unions)
                found[position].append(([query for query, _ in unions], gathered))
        return [_joined(parts, len(probe.queries)) for parts, probe in zip(found, probes, strict=True)]

    def _ask(self, pipeline: Any, probe: Probes, unions: Sequence[tuple[int, list[str]]]) -> None:
        keys = self._keys.partition(probe.partition)
        fields = ["live", "nonce", "items"]
        if probe.since is not None:
            fields += [f"cleared:{probe.generation}:{table}" for table in self._tables]
        pipeline.execute_command("HMGET", keys.state, *fields)
        for table in self._tables:
            pipeline.execute_command("HLEN", keys.directory(probe.generation, table))
            if probe.since is not None:
                opened = keys.opened(probe.generation, table)
                pipeline.execute_command("LRANGE", opened, probe.since[table].length, -1)
        for _, names in unions:
            for start in range(0, len(names), UNION_AT_ONCE):
                # by its name: redis-py's pipeline.sunion refuses a cluster even when all keys share a slot
                pipeline.execute_command("SUNION", *names[start : start + UNION_AT_ONCE])

    def _answer(self, replies: Iterator[Any], probe: Probes, unions: Sequence[tuple[int, list[str]]]) -> Gathered:
        live, nonce, items, *cleared = next(replies)
        buckets, opened = 0, []
        for table in self._tables:
            buckets += next(replies)
            if probe.since is not None:
                codes = _integers(next(replies)).astype(np.uint64)
                opened.append(codes if int(cleared[table] or 0) == probe.since[table].cleared else None)
        members = [_members([next(replies) for _ in range(0, len(names), UNION_AT_ONCE)]) for _, names in unions]
        return Gathered(int(live or 0), (nonce or b"").decode(), int(items or 0), buckets, members, opened)

    def _parts(self, probes: Sequence[Probes]) -> Iterator[Part]:
        """What is read in one atomic call, a call at a time. Each partition is in one at the least."""
        part: Part = []
        room = UNION_KEYS
        for position, probe in enumerate(probes):
            if part and self._cluster:  # a transaction stays in one slot
                yield part
                part, room = [], UNION_KEYS
            part.append((position, []))
            for query, codes in enumerate(probe.queries):
                names = self._names(probe, codes)
                while names:
                    if not room:
                        yield part
                        part, room = [(position, [])], UNION_KEYS
                    part[-1][1].append((query, names[:room]))
                    names, room = names[room:], room - len(names[:room])
        if part:
            yield part

    def _names(self, probe: Probes, codes: Sequence[NDArray[np.uint64]]) -> list[str]:
        keys = self._keys.partition(probe.partition)
        names: list[str] = []
        for table, some in enumerate(codes):
            prefix = keys.buckets(probe.generation, table)
            names += [prefix + str(code) for code in some.tolist()]
        return names

    def directories(self, wanted: Sequence[tuple[int, int]]) -> list[list[Listing]]:
        """For each (partition, generation): the directory of each table.

        One round trip for their sizes and positions, and one for all directories that are read at once.
        """
        places = [(self._keys.partition(p), g, table) for p, g in wanted for table in self._tables]
        pipeline = self._client.pipeline(transaction=False)
        for keys, generation, table in places:
            # how often it was begun anew is read before its length: if it is between the two, a gather notices
            pipeline.hmget(keys.state, f"cleared:{generation}:{table}", "items")
            pipeline.llen(keys.opened(generation, table))
            pipeline.hlen(keys.directory(generation, table))
        replies = iter(pipeline.execute())
        states = [(next(replies), next(replies), next(replies)) for _ in places]
        for (keys, generation, table), (_, _, size) in zip(places, states, strict=True):
            if size <= DIRECTORY_AT_ONCE:
                pipeline.hgetall(keys.directory(generation, table))
        read = iter(pipeline.execute())
        found = []
        for (keys, generation, table), ((cleared, items), length, size) in zip(places, states, strict=True):
            reply = next(read) if size <= DIRECTORY_AT_ONCE else self._scan(keys, generation, table)
            position = Position(int(cleared or 0), int(length))
            found.append(Listing(*_directory(reply), position, int(items or 0)))
        step = len(self._tables)
        return [found[i * step : (i + 1) * step] for i in range(len(wanted))]

    def _scan(self, keys: PartitionKeys, generation: int, table: int) -> dict[bytes, bytes]:
        return dict(self._client.hscan_iter(keys.directory(generation, table), count=10_000))

    def members(
        self, partition: int, generation: int, table: int, codes: NDArray[np.uint64]
    ) -> list[NDArray[np.int64]]:
        """The members of each bucket, in one round trip."""
        prefix = self._keys.partition(partition).buckets(generation, table)
        pipeline = self._client.pipeline(transaction=False)
        for code in codes.tolist():
            pipeline.smembers(prefix + str(code))
        return [np.sort(_integers(reply)) for reply in (pipeline.execute() if len(codes) else [])]


def _joined(parts: Sequence[tuple[list[int], Gathered]], queries: int) -> Gathered:
    """One partition's parts as one; `live` is 0 unless they all agree. parts : (the query of each union, the part)."""
    members: list[list[NDArray[np.int64]]] = [[] for _ in range(queries)]
    for asked, part in parts:
        for query, found in zip(asked, part.members, strict=True):
            members[query].append(found)
    none = np.empty(0, dtype=np.int64)
    whole = [own[0] if len(own) == 1 else distinct(np.concatenate(own)) if own else none for own in members]
    agree = len({(part.live, part.nonce) for _, part in parts}) == 1
    last = parts[-1][1]  # what was opened by then was opened by any earlier part too, or is of no matter
    return Gathered(last.live if agree else 0, last.nonce, last.items, last.buckets, whole, last.opened)


def _members(pieces: Sequence[Collection[bytes]]) -> NDArray[np.int64]:
    """Each once and ascending: the same on every server."""
    if len(pieces) == 1:
        return np.sort(_integers(pieces[0]))
    return distinct(_integers([text for piece in pieces for text in piece]))  # tables share members


def distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each number once, ascending: np.unique, which imports numpy.ma at its first call, for 30 ms."""
    ordered = np.sort(numbers)
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def _integers(texts: Collection[bytes]) -> NDArray[np.int64]:
    """Decimal texts as integers: all in one pass, in half the time of `int` for each.

    Raises IntegrityError when one is no integer.
    """
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
