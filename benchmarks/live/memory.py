"""What a generation takes: its own keys, by MEMORY USAGE, and its share of the server's table of keys. And what is kept
for learning: the last models and the learner's state, whatever the number of items.
"""

from __future__ import annotations

from typing import Any

from stream_hash.service.handle import IndexHandle
from stream_hash.storage.keys import IndexKeys

PLACES_A_KEY = 512
AT_ONCE = 1_000


def generation_bytes(client: Any, handle: IndexHandle, generation: int) -> dict[str, float]:
    """Bytes by kind of key, of a generation that is live everywhere."""
    keys: dict[str, list[str]] = {"bucket:n": [], "directory": [], "opened": [], "places:n": []}
    index = IndexKeys(handle.name)
    for partition, (_, given) in enumerate(handle.reader.sizes()):
        own = index.partition(partition)
        tables = handle.buckets.directories([(partition, generation)])[0]
        for table, directory in enumerate(tables):
            keys["bucket:n"] += [own.bucket(generation, table, code) for code in directory.codes.tolist()]
            keys["directory"].append(own.directory(generation, table))
            keys["opened"].append(own.opened(generation, table))
        keys["places:n"] += [own.places(generation, block) for block in range(-(-given // PLACES_A_KEY))]
    total = {kind: float(sum(_sizes(client, own))) for kind, own in keys.items()}
    a_key = client.memory_stats()["db.0"]["overhead.hashtable.main"] / client.dbsize()
    return {**total, "(table of keys)": a_key * sum(map(len, keys.values()))}


def learning_bytes(client: Any, handle: IndexHandle) -> float:
    """Bytes of the models that are kept and of the learner."""
    keys = IndexKeys(handle.name)
    return float(
        sum(_sizes(client, [keys.learner, *(keys.model(record.generation) for record in handle.models.records())]))
    )


def _sizes(client: Any, keys: list[str]) -> list[int]:
    sizes: list[int] = []
    for start in range(0, len(keys), AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for key in keys[start : start + AT_ONCE]:
            pipeline.memory_usage(key, samples=0)
        sizes += [size or 0 for size in pipeline.execute()]
    return sizes
