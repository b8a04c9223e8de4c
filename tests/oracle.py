"""Plain Python beside the fast paths: what an index must hold, and what is stored, in a form to compare."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch, decode_record, decode_values
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys, PartitionKeys, partition_of


@dataclass
class Stored:
    """What the last write of an id left."""

    sequence: int
    vector: bytes | None
    label: str
    label_sequence: int


def replay(batches: list[tuple[int, Batch]]) -> dict[str, Stored]:
    """The items after all batches, applied one write at a time in the order of their sequence numbers.

    batches : (first sequence number, batch), in any order.
    """
    items: dict[str, Stored] = {}
    for first, batch in sorted(batches, key=lambda pair: pair[0]):
        for position, item_id in enumerate(batch.ids):
            sequence = first + position
            stored = items.setdefault(item_id, Stored(0, None, "", 0))
            if batch.operation == "upsert":
                assert batch.vectors is not None
                stored.sequence, stored.vector = sequence, batch.vectors[position].tobytes()
            elif batch.operation == "delete":
                stored.sequence, stored.vector = sequence, None
            label = batch.labels[position] if batch.labels else ""
            stored.label, stored.label_sequence = label, sequence
    return items


def live_items(items: dict[str, Stored]) -> dict[str, tuple[bytes, str]]:
    """(vector, label) of the ids that have an item."""
    return {i: (s.vector, s.label) for i, s in items.items() if s.vector is not None}


def stored_items(client: Client, index: str, settings: IndexSettings) -> dict[str, tuple[bytes, str]]:
    """(vector, label) of the ids that a server holds, read key by key."""
    found = {}
    for p in range(settings.partitions):
        keys = IndexKeys(index).partition(p)
        for item_id, text in client.hgetall(keys.records).items():
            record = decode_record(text)
            if record.number is not None:
                numbers = np.array([record.number])
                blob = client.get(keys.value(record.number))
                values = decode_values(numbers, [blob], settings.dimension, settings.dtype)
                found[item_id.decode()] = (values.vectors[0].tobytes(), record.label)
    return found


def dump(client: Client, index: str) -> dict[str, Any]:
    """Every key of an index with its content, exactly."""
    dumped: dict[str, Any] = {}
    for key in sorted(client.scan_iter(match=f"sh:{{{index}*")):
        kind = client.type(key)
        read = {
            b"string": lambda k=key: client.get(k),
            b"hash": lambda k=key: sorted(client.hgetall(k).items()),
            b"set": lambda k=key: sorted(client.smembers(k)),
            b"zset": lambda k=key: sorted(client.zrange(k, 0, -1, withscores=True)),
            b"list": lambda k=key: client.lrange(k, 0, -1),
        }[kind]
        dumped[key.decode()] = read()
    return dumped


def logical_dump(client: Client, index: str, settings: IndexSettings) -> bytes:
    """What an index holds, with ids in the place of item numbers: these depend on who came first."""
    partitions = []
    for p in range(settings.partitions):
        keys = IndexKeys(index).partition(p)
        records = {i.decode(): decode_record(text) for i, text in client.hgetall(keys.records).items()}
        owner = {r.number: i for i, r in records.items() if r.number is not None}
        buckets, directories = {}, {}
        for key in client.scan_iter(match=keys.prefix + "bucket:*"):
            place = key.decode().removeprefix(keys.prefix)
            members = [int(m) for m in client.smembers(key)]
            buckets[place] = sorted((owner[m & 0xFFFFFF], m >> 24) for m in members)
        for key in client.scan_iter(match=keys.prefix + "directory:*"):
            directories[key.decode().removeprefix(keys.prefix)] = sorted(
                (code.decode(), count.decode()) for code, count in client.hgetall(key).items()
            )
        items = {
            i: [
                r.sequence,
                r.label,
                r.label_sequence,
                r.metadata,
                stored_places(client, keys, settings, r.number),
                (client.get(keys.value(r.number)) or b"").hex() if r.number is not None else None,
            ]
            for i, r in records.items()
        }
        state = {k.decode(): v.decode() for k, v in client.hgetall(keys.state).items() if k not in (b"next", b"nonce")}
        tombstones = sorted((m.decode(), s) for m, s in client.zrange(keys.tombstones, 0, -1, withscores=True))
        labelled = sorted((owner[int(m)], s) for m, s in client.zrange(keys.labelled, 0, -1, withscores=True))
        partitions.append([state, items, buckets, directories, tombstones, labelled])
    counters = {k.decode(): v.decode() for k, v in client.hgetall(IndexKeys(index).counters).items()}
    return json.dumps([partitions, counters], sort_keys=True).encode()


def stored_places(
    client: Client, keys: PartitionKeys, settings: IndexSettings, number: int | None
) -> list[tuple[int, int, list[int]]]:
    """(generation, signature, codes) of an item number, for each writable generation it has a place in."""
    found = []
    width = 5 + settings.tables * -(-settings.bits // 8)
    for text in client.hmget(keys.state, "live", "building"):
        if number is None or not text:
            continue
        block = client.get(keys.places(int(text), number // 512))
        place = block[number % 512 * width :][:width] if block else b"\0"
        if place[0] & 0x80:
            size = -(-settings.bits // 8)
            codes = [int.from_bytes(place[start : start + size], "big") for start in range(5, width, size)]
            found.append((int(text), int.from_bytes(place[:5], "big") - 2**39, codes))
    return found


def naive_codes(
    vectors: NDArray[np.float32],
    hyperplanes: NDArray[np.float32],
    mean: NDArray[np.float32],
    tables: int,
    bits: int,
    *,
    normalise: bool,
) -> list[list[int]]:
    """Codes by loops: cosine (normalise) and l2."""
    codes = []
    for vector in vectors.astype(float):
        embedded = (vector / np.sqrt((vector**2).sum()) if normalise else vector) - mean
        row = []
        for table in range(tables):
            code = 0
            for bit in range(bits):
                code = 2 * code + int(float(hyperplanes[table * bits + bit].astype(float) @ embedded) >= 0)
            row.append(code)
        codes.append(row)
    return codes


def naive_search(
    query: NDArray[np.float32], ids: list[str], vectors: NDArray[np.float32], metric: str, k: int
) -> list[str]:
    """The ids of the k nearest, by a sort of all scores in float64."""
    q, x = query.astype(float), vectors.astype(float)
    if metric == "l2":
        scores = -np.sqrt(((x - q) ** 2).sum(axis=1))
    else:
        scores = (x * q).sum(axis=1)
        if metric == "cosine":
            scores = scores / np.sqrt((x**2).sum(axis=1) * (q**2).sum())
    order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
    return [ids[i] for i in order[:k]]


def partition_counts(ids: list[str], partitions: int) -> list[int]:
    """How many of the ids live in each partition."""
    counts = [0] * partitions
    for item_id in ids:
        counts[partition_of(item_id, partitions)] += 1
    return counts
