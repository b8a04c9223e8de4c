"""What has to be true after a kill, when all has come to its end: a list of what is not."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from stream_hash import Index
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from tests.faults.killed_traffic import Record

_OF_A_GENERATION: Final = re.compile(r"sh:\{.*\}:(?:bucket|directory|places|built):(\d+)(?::.*)?")
_MODEL: Final = re.compile(r"sh:\{.*\}:model:(\d+)")
QUERIES: Final = 200


def violations(connections: Connections, name: str, record: Record) -> list[str]:
    """Every item accepted is there once, as it was sent last, and findable; only what is live has keys."""
    index = Index(name, connections)
    return [*index.verify().violations, *_items(index, connections, record), *_keys(connections, name)]


def _items(index: Index, connections: Connections, record: Record) -> list[str]:
    wrong = []
    status = index.status()
    balance = (status["accepted"], status["applied"], status["pending"], status["dead"])
    if balance != (record.accepted, record.accepted, 0, 0):
        wrong.append(f"{record.accepted} items were sent; accepted, applied, pending and dead are {balance}")
    handle = IndexHandle(connections.client, index.name)
    stored: list[str] = []
    vectors = [np.empty((0, index.settings.dimension), dtype=np.float32)]
    for partition in range(index.settings.partitions):
        for values in handle.reader.scan_values(partition):
            stored += values.ids
            vectors.append(values.vectors)
    found = dict(zip(stored, np.concatenate(vectors), strict=True))
    lost, extra = record.vectors.keys() - found.keys(), found.keys() - record.vectors.keys()
    other = [i for i in record.vectors.keys() & found.keys() if not np.array_equal(found[i], record.vectors[i])]
    for what, ids in (("lost", lost), ("deleted, and there", extra), ("not as sent last", other)):
        if ids:
            wrong.append(f"{len(ids)} items are {what}, such as {min(ids)}")
    if len(stored) != len(found):
        wrong.append(f"{len(stored) - len(found)} items are there twice")
    return wrong + _findable(index, record)


def _findable(index: Index, record: Record) -> list[str]:
    ids = sorted(record.vectors)
    some = [ids[at] for at in np.random.default_rng(0).choice(len(ids), size=min(QUERIES, len(ids)), replace=False)]
    answers = index.query(np.array([record.vectors[item_id] for item_id in some]), k=1, radius=0)
    missed = [i for i, answer in zip(some, answers, strict=True) if [r.id for r in answer.results] != [i]]
    return [f"{len(missed)} of {len(some)} items are not found, such as {missed[0]}"] if missed else []


def _keys(connections: Connections, name: str) -> list[str]:
    handle = IndexHandle(connections.client, name)
    wrong = []
    live = {state.live for state in handle.states}
    if len(live) != 1 or any(state.building for state in handle.states) or any(handle.generations.retiring()):
        wrong.append(f"the partitions are {handle.states}, retiring {handle.generations.retiring()}")
    keys = [key.decode() for key in connections.client.scan_iter(match=f"sh:{{{name}*", count=1_000)]
    having = {int(found[1]) for key in keys if (found := _OF_A_GENERATION.fullmatch(key))}
    if having != live:
        wrong.append(f"generations {sorted(having)} have keys, live is {sorted(live)}")
    models = {int(found[1]) for key in keys if (found := _MODEL.fullmatch(key))}
    recorded = {one.generation for one in handle.models.records()}
    if models != recorded:
        wrong.append(f"there are models of {sorted(models)}, and records of {sorted(recorded)}")
    if batches := [key for key in keys if ":batch:" in key]:
        wrong.append(f"{len(batches)} payloads of finished batches are left")
    return wrong
