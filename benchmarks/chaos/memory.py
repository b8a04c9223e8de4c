"""A server that fills up: how a producer fares at 80, 95 and 100 % of maxmemory, what is there afterwards, and how it
goes on when there is memory again.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.report import progress, table
from benchmarks.services import running_server, running_workers
from stream_hash import Index, Producer
from stream_hash.errors import OutOfMemoryError
from stream_hash.service.connections import Connections
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch

SHARES = (0.80, 0.95, 1.00)
DIMENSION = 64
BATCH = 100
SETTLE_SECONDS = 180.0
K = 10


def measure(items: int, *, seconds: float) -> dict[str, Any]:
    """items : in the index at first. seconds : for which is produced each time, at the most."""
    with running_server() as url, running_workers(url, 2):
        stream = _Stream(url)
        while stream.sent < items:
            stream.send()
        stream.settle()
        rows = []
        for share in SHARES:
            progress(f"{share:.0%} full")
            rows.append(stream.under(share, seconds))
    return {"in_order": _in_order(rows), "shares": rows}


def _in_order(rows: list[dict[str, Any]]) -> bool:
    """Whether each share was lived through as it has to be, and memory did run out in one of them."""
    return any(row["refused"] for row in rows) and all(
        not row["violations"] and not row["half_written"] and row["recovered"] and row["answered"] == K for row in rows
    )


class _Stream:
    """New items into one index, without an end."""

    def __init__(self, url: str) -> None:
        self._connections = Connections.open(url)
        self._client = self._connections.client
        settings = IndexSettings(DIMENSION, bits=10)
        self._rng = np.random.default_rng(0)
        self._index = Index.create("x", settings, self._connections, sample=self._vectors())
        self._producer = Producer("x", self._connections, when_full="raise")
        self._asked = self._vectors()[0]
        self.sent = 0

    def send(self) -> None:
        """A batch of new items. Raises OutOfMemoryError."""
        ids = [str(self.sent + n) for n in range(BATCH)]
        self._producer.submit(Batch("upsert", ids, self._vectors(), None, None), f"b{self.sent}")
        self.sent += BATCH

    def settle(self) -> float:
        """Wait until nothing is pending; seconds, infinite if it takes too long."""
        start = time.monotonic()
        while self._index.status()["pending"]:
            if time.monotonic() - start > SETTLE_SECONDS:
                return float("inf")
            time.sleep(0.02)
        return time.monotonic() - start

    def under(self, share: float, seconds: float) -> dict[str, Any]:
        """Produce while memory is bounded; then let everything be applied, look at it, and give memory back."""
        self._client.config_set("maxmemory", int(self._client.info("memory")["used_memory"] / share))
        before, start, error = self.sent, time.monotonic(), ""
        while not error and time.monotonic() - start < seconds:
            try:
                self.send()
            except OutOfMemoryError as refused:
                error = f"{refused}: {refused.why} ({refused.remedy})"
        produced = time.monotonic() - start
        answered = len(self._index.query(self._asked, k=K)[0].results)
        applied = self.settle()
        info = self._client.info("memory")
        status = self._index.status()
        row = {
            "share": share,
            "accepted": self.sent - before,
            "seconds": produced,
            "refused": error,
            "applied_seconds": applied,
            "full": info["used_memory"] / info["maxmemory"],
            "answered": answered,
            "half_written": status["items"] != self.sent or status["dead"] != 0,
            "violations": self._index.verify().violations,
        }
        self._client.config_set("maxmemory", 0)
        start = time.monotonic()
        self.send()
        row["recovered"] = self.settle() < SETTLE_SECONDS
        row["recovery_seconds"] = time.monotonic() - start
        return row

    def _vectors(self) -> Any:
        return self._rng.normal(size=(BATCH, DIMENSION)).astype(np.float32)


def tables(result: dict[str, Any]) -> list[str]:
    heading = (
        *("full at first", "items accepted", "in s", "refused", "pending applied, s", "full then"),
        *(
            f"a query's results (target: {K})",
            "half written, violations (target: 0)",
            "next batch searchable when memory is back, s",
        ),
    )
    rows = [
        (
            *(f"{row['share']:.0%}", f"{row['accepted']:,}", f"{row['seconds']:.1f}", row["refused"] or "no"),
            *(f"{row['applied_seconds']:.1f}", f"{row['full']:.1%}", str(row["answered"])),
            *(f"{int(row['half_written'])}, {len(row['violations'])}", f"{row['recovery_seconds']:.1f}"),
        )
        for row in result["shares"]
    ]
    return [table([heading, *rows])]
