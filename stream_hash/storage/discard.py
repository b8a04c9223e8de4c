"""Deleting a whole index that nobody else uses: a temporary one.

Nothing guards this against a writer or a search that is under way; an index in use must not be discarded. What is
deleted is found through the index's own structures, never by scanning the server's keys. Receipts of
batches are not listed anywhere: they expire on their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice, product
from typing import Final

from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import INDEXES, IndexKeys, PartitionKeys
from stream_hash.storage.places import BLOCK

_AT_ONCE: Final = 1_000

_OF_INDEX: Final = ("settings", "generations", "sequence", "counters", "tallies", "dead", "held", "plan")
_OF_LEDGER: Final = ("pending", "leases", "sizes", "arrived", "attempts", "begun", "failures")
_OF_TRAINER: Final = ("trainer", "learner", "runs", "progress", "quality", "figures")
_OF_PARTITION: Final = ("state", "records", "free", "tombstones", "labelled")


def discard(client: Client, index: str, settings: IndexSettings) -> None:
    """Delete every key of an index."""
    keys = IndexKeys(index)
    client.srem(INDEXES, index)
    generations = [int(generation) for generation in client.hkeys(keys.generations)]
    for number in range(settings.partitions):
        _unlink(client, _of_partition(client, keys.partition(number), generations, settings.tables))
    pending = [keys.batch(batch.decode()) for batch in client.zrange(keys.pending, 0, -1)]
    models = [keys.model(generation) for generation in generations]
    own = [keys.prefix + name for name in (*_OF_INDEX, *_OF_LEDGER, *_OF_TRAINER)]
    _unlink(client, [*pending, *models, *own])


def _of_partition(client: Client, keys: PartitionKeys, generations: Iterable[int], tables: int) -> Iterable[str]:
    used = int(client.hget(keys.state, "next") or 0)
    found: list[Iterable[str]] = [map(keys.value, range(used))]
    for generation, table in product(generations, range(tables)):
        directory = keys.directory(generation, table)
        prefix = keys.buckets(generation, table)
        found += [
            [prefix + code.decode() for code in client.hkeys(directory)],
            [directory, keys.opened(generation, table)],
        ]
    for generation in generations:
        found += [[keys.places(generation, block) for block in range(-(-used // BLOCK))], [keys.built(generation)]]
    return chain(*found, (keys.prefix + name for name in _OF_PARTITION))


def _unlink(client: Client, keys: Iterable[str]) -> None:
    left = iter(keys)
    while some := list(islice(left, _AT_ONCE)):
        client.unlink(*some)
