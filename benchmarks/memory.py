"""What an index takes beside its vectors, and which kinds of key take it."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any

import numpy as np

SAMPLES_A_KIND = 200
SETTLE_SECONDS = 20.0


def settled_memory(client: Any) -> dict[str, int]:
    """INFO's used_memory and used_memory_dataset once they have stopped moving: tables being resized, buffers
    being written and an append-only file being rewritten pass.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    before: dict[str, int] = {}
    while True:
        info = client.info()
        found = {name: int(info[name]) for name in ("used_memory", "used_memory_dataset")}
        moved = max((abs(found[name] - size) for name, size in before.items()), default=1 << 30)
        if time.monotonic() > deadline or (moved < 50_000 and not info["aof_rewrite_in_progress"]):
            return found
        before = found
        time.sleep(0.3)


def by_kind(client: Any, vector_bytes: int, count: int) -> list[dict[str, Any]]:
    """For each kind of key: how many there are, and its bytes an item beside the vectors, by MEMORY USAGE of
    some of them. The server's own table of keys is a kind of its own.
    """
    kinds: dict[str, list[bytes]] = {}
    numbers: Counter[str] = Counter()
    for key in client.scan_iter(count=10_000):
        kind = _kind(key.decode())
        numbers[kind] += 1
        kinds.setdefault(kind, []).append(key)
    rng = np.random.default_rng(0)
    rows = []
    for kind, keys in kinds.items():
        chosen = rng.permutation(len(keys))[:SAMPLES_A_KIND].tolist()
        sizes = [client.memory_usage(keys[i], samples=1_000) or 0 for i in chosen]
        total = float(np.mean(sizes)) * len(keys) - (vector_bytes * count if kind == "value:n" else 0)
        rows.append({"kind": kind, "keys": numbers[kind], "bytes_per_item": total / count})
    overhead = client.memory_stats()["db.0"]["overhead.hashtable.main"]
    rows.append({"kind": "(table of keys)", "keys": 1, "bytes_per_item": overhead / count})
    return sorted(rows, key=lambda row: -float(str(row["bytes_per_item"])))


def _kind(key: str) -> str:
    """`bucket:1:0:4711` and all its like are of the kind `bucket:n`."""
    kind = key.rpartition("}:")[2] if key.startswith("sh:{") else key
    kind = re.sub(r"(?<=receipt:|..batch:).*", "n", kind)
    return re.sub(r":\d.*", ":n", kind)
