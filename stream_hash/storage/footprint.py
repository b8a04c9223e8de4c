"""What an index takes of its server's memory, by MEMORY USAGE of its keys: of a sample of those that are many.

The server's own table of keys is not in it (some 30 to 50 bytes a key), nor the ledger, nor models: these do not grow
with the items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from redis.exceptions import ResponseError

from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.places import BLOCK

SAMPLED: Final = 100
"""Keys of a kind that are looked at, in each partition."""

MEMBERS: Final = 1_000
"""Fields of a hash or members of a set that the server looks at."""


def bytes_by_kind(
    client: Client, index: str, settings: IndexSettings, generations: Sequence[int], rng: np.random.Generator
) -> dict[str, float] | None:
    """Bytes of each kind of key that items take, all partitions together. generations : the live one of each.

    Values are with their vectors. None when the server does not tell (MEMORY is forbidden to some users).
    """
    found: dict[str, float] = {}
    for number, generation in enumerate(generations):
        keys = IndexKeys(index).partition(number)
        given = int(client.hget(keys.state, "next") or 0)
        kinds = {
            "records": [keys.records],
            "labelled": [keys.labelled],
            "values": [keys.value(n) for n in _some(given, rng)],
            "places": [keys.places(generation, block) for block in _some(-(-given // BLOCK), rng)],
        }
        counts = {"values": given, "places": -(-given // BLOCK)}
        for table in range(settings.tables):
            codes = client.hkeys(keys.directory(generation, table))
            chosen = [int(codes[at]) for at in _some(len(codes), rng)]
            kinds[f"buckets {table}"] = [keys.bucket(generation, table, code) for code in chosen]
            kinds[f"directory {table}"] = [keys.directory(generation, table), keys.opened(generation, table)]
            counts[f"buckets {table}"] = len(codes)
        for kind, names in kinds.items():
            sizes = _sizes(client, names)
            if sizes is None:
                return None
            own = sum(sizes) * counts.get(kind, len(names)) / max(1, len(names))
            found[kind.split()[0]] = found.get(kind.split()[0], 0.0) + own
    return found


def _some(count: int, rng: np.random.Generator) -> list[int]:
    return [int(at) for at in rng.choice(count, size=min(count, SAMPLED), replace=False)] if count else []


def _sizes(client: Client, names: Sequence[str]) -> list[int] | None:
    """Bytes of each key, 0 for one that is not there."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.memory_usage(name, samples=MEMBERS)
    try:
        return [int(size or 0) for size in pipeline.execute()] if names else []
    except ResponseError:
        return None
