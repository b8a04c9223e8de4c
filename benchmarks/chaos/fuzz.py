"""What strangers send: bad items, malformed jobs, hostile files. A hash worker process lives through all of it.

Half of the bad items come as batches that no producer has looked at, so that it is for the worker to find them; the
others as lines of a file, through the reader and the producer. Good ones are among them, and have to be stored.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chaos.bad_items import DIMENSION, Raw, as_line, bad_item, good_item
from benchmarks.chaos.bad_jobs import bad_jobs
from benchmarks.chaos.canary import CANARY
from benchmarks.chaos.processes import peak_bytes, resident_bytes
from benchmarks.report import progress, table
from stream_hash import Index, Producer, formats
from stream_hash.queue import HASH_QUEUE, SafeJob, SafeQueue, live_workers
from stream_hash.service.connections import Connections
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.server import EmbeddedServer

BATCH = 100
GOOD_EVERY = 5
GROWTH_BYTES = 64 * 2**20
WAIT_SECONDS = 300.0


def measure(items: int, jobs: int, files: int, *, seed: int) -> dict[str, Any]:
    """So many of each, about."""
    rng = np.random.default_rng([seed, 41])
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        server = EmbeddedServer(Path(folder) / "data")
        server.start()
        try:
            with _Target(server.url, Path(folder)) as target:
                told = {"items": _items(target, items, rng)}
                told["jobs"] = _jobs(target, jobs, rng)
                told["worker"] = target.state()
        finally:
            server.stop()
    told["files"] = _files(files, rng)
    in_order = not any(
        (
            *(told["items"][name] for name in ("bad_stored", "good_lost", "left_pending", "violations")),
            *(told["jobs"][name] for name in ("not_set_aside", "good_lost")),
            *(told["worker"][name] for name in ("ended", "executions")),
            *(told["files"][name] for name in ("stopped_otherwise", "beyond_bound")),
            told["worker"]["peak_growth_bytes"] > GROWTH_BYTES,
        )
    )
    return {"in_order": in_order, **told}


class _Target:
    """An index, and a hash worker as it is deployed."""

    def __init__(self, url: str, folder: Path) -> None:
        self._canary, self._log = folder / "canary", folder / "worker.log"
        self.connections = Connections.open(url)
        settings = IndexSettings(DIMENSION, bits=4)
        self.index = Index.create("x", settings, self.connections, sample=np.eye(DIMENSION))
        self.producer = Producer("x", self.connections)
        environment = {**os.environ, "STREAM_HASH_URL": url, CANARY: str(self._canary)}
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "workers.hash_worker"]
            self._worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def __enter__(self) -> _Target:
        self._wait(lambda: live_workers(self.connections.broker, HASH_QUEUE), "the worker to begin")
        self.send([good_item(np.random.default_rng(0), 10**9)])
        self.settle()
        self._resident = resident_bytes(self._worker.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.terminate()
        try:
            self._worker.wait(timeout=30)
        finally:
            self._worker.kill()

    def send(self, items: list[Raw]) -> None:
        """A batch that nobody has looked at."""
        vectors = np.array([item.vector for item in items])
        labels, metadata = [item.label for item in items], [item.metadata for item in items]
        self.producer.submit(Batch("upsert", [item.item_id for item in items], vectors, labels, metadata))

    def settle(self) -> None:
        """Wait until nothing is pending, and nothing waits."""
        queue = SafeQueue(HASH_QUEUE, self.connections.broker)
        self._wait(lambda: not self.index.status()["pending"] and not queue.get_job_ids(), "the queue to be empty")

    def state(self) -> dict[str, Any]:
        return {
            "ended": int(self._worker.poll() is not None),
            "executions": int(self._canary.exists()),
            "resident_bytes_before": self._resident,
            "peak_growth_bytes": peak_bytes(self._worker.pid) - self._resident,
            "log_bytes": self._log.stat().st_size,
        }

    def _wait(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if self._worker.poll() is not None or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"waited in vain for {what}; the worker's log ends with {log}")
            time.sleep(0.02)


def _items(target: _Target, items: int, rng: np.random.Generator) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    good = 1
    raw = 0
    for start in range(0, items // 2, BATCH):
        some: list[Raw] = []
        for number in range(start, min(start + BATCH, items // 2)):
            what, item = bad_item(rng, number)
            kinds[what] += 1
            raw += 1
            some.append(item)
            if number % GOOD_EVERY == 0:
                some.append(good_item(rng, number))
                good += 1
        target.send(some)
    progress(f"{raw:,} bad items in batches")
    lines, read = [], 0
    for number in range(items // 2, items):
        what, item = bad_item(rng, number)
        kinds[what] += 1
        read += 1
        lines.append(as_line(item))
        if number % GOOD_EVERY == 0:
            lines.append(as_line(good_item(rng, number)))
            good += 1
    refused = _read(target, b"".join(lines))
    progress(f"{read:,} bad items in lines")
    target.settle()
    status = target.index.status()
    return {
        "kinds": dict(kinds),
        "in_batches": raw,
        "dead_letters": status["dead"],
        "in_lines": read,
        "refused": refused,
        "bad_stored": raw - status["dead"] + read - refused,
        "good_lost": good - status["items"],
        "left_pending": status["pending"],
        "violations": len(target.index.verify().violations),
    }


def _read(target: _Target, data: bytes) -> int:
    """Take in a file of lines, as `stream-hash ingest` does; how many were refused."""
    refused = 0
    for part in formats.read(io.BytesIO(data), format="jsonl"):
        if isinstance(part, formats.Rejected):
            refused += 1
        else:
            faults = target.producer.upsert_many(part.ids, part.vectors, part.labels, part.metadata, skip_invalid=True)
            refused += len(faults)
    target.producer.flush()
    return refused


def _jobs(target: _Target, jobs: int, rng: np.random.Generator) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    broker, queue = target.connections.broker, SafeQueue(HASH_QUEUE, target.connections.broker)
    before, good = target.index.status()["items"], 0
    for number, (what, fields) in zip(count(), islice(bad_jobs(rng), jobs)):
        kinds[what] += 1
        broker.hset(SafeJob.key_for(f"bad-{number}"), mapping=fields)
        broker.rpush(queue.key, f"bad-{number}")
        if number % BATCH == BATCH - 1 or number == jobs - 1:
            good += 1
            target.send([good_item(rng, 10**8 + number)])
            target.settle()
            progress(f"{number + 1:,} malformed jobs")
    aside = sum(1 for _ in broker.scan_iter("sh:malformed-job:bad-*", count=1_000))
    return {
        "sent": jobs,
        "kinds": len(kinds),
        "set_aside": aside,
        "not_set_aside": jobs - aside,
        "good_lost": good - (target.index.status()["items"] - before),
    }


def _files(files: int, rng: np.random.Generator) -> dict[str, Any]:
    from tests.formats import test_hostile_files as hostile

    cases = [(name, kind, make) for name, (kind, make) in (hostile.HOSTILE | hostile.REFUSING).items()]
    valid = sorted(hostile.VALID.items())
    for number in range(files):
        name, data = valid[number % len(valid)]
        changed = _changed(data, rng)
        cases.append((f"changed {name}", name.split()[0], lambda changed=changed: changed))  # type: ignore[misc]
    outcomes: Counter[str] = Counter()
    otherwise: list[str] = []
    beyond = 0
    tracemalloc.start()
    try:
        for name, kind, make in cases:
            data = make()
            try:
                good, refused, raised = hostile.outcome(data, kind)
                outcomes["refused as a whole" if raised else "some rows refused" if refused else "read"] += 1
                del good
            except AssertionError as error:
                beyond += 1
                otherwise.append(f"{name}: {error!s:.200}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is none of those that readers may raise
                otherwise.append(f"{name}: {type(error).__name__}: {error!s:.200}")
    finally:
        tracemalloc.stop()
    return {
        "read": len(cases),
        "outcomes": dict(outcomes),
        "stopped_otherwise": otherwise,
        "beyond_bound": beyond,
        "bound_bytes": hostile.MAX_ALLOCATED_BYTES,
    }


def _changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, or with some pieces that are others."""
    changed = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(len(changed)))
        piece = (b"\xff" * 4, bytes(4), b"\0\0\0\x80", rng.bytes(1), rng.bytes(8), b"")[rng.integers(6)]
        changed[at : at + int(rng.integers(9))] = piece
        if not changed:
            return b"\0"
    return bytes(changed)


def tables(result: dict[str, Any]) -> list[str]:
    items, jobs, worker, files = (result[name] for name in ("items", "jobs", "worker", "files"))
    rows = [
        ("bad items", "count"),
        ("in batches; of these dead letters", f"{items['in_batches']:,}; {items['dead_letters']:,}"),
        ("in lines of a file; of these refused", f"{items['in_lines']:,}; {items['refused']:,}"),
        ("bad items stored, good items lost (target: 0)", f"{items['bad_stored']:,}, {items['good_lost']:,}"),
        ("left pending, violations found by verify (target: 0)", f"{items['left_pending']:,}, {items['violations']:,}"),
    ]
    of_jobs = [
        ("malformed jobs", "count"),
        ("sent, in so many kinds", f"{jobs['sent']:,}, {jobs['kinds']:,}"),
        ("not set aside (target: 0)", f"{jobs['not_set_aside']:,}"),
        ("good batches behind them lost (target: 0)", f"{jobs['good_lost']:,}"),
        ("executions (target: 0)", f"{worker['executions']:,}"),
        ("ends of the worker process, with the items (target: 0)", f"{worker['ended']:,}"),
        (
            f"growth of its memory at the most, MB (target: below {GROWTH_BYTES / 1e6:.0f})",
            f"{worker['peak_growth_bytes'] / 1e6:,.1f}",
        ),
    ]
    of_files = [
        ("hostile files", "count"),
        ("read", f"{files['read']:,}"),
        *((name, f"{number:,}") for name, number in files["outcomes"].items()),
        ("stopped by another error (target: 0)", f"{len(files['stopped_otherwise']):,}"),
        (f"allocated more than {files['bound_bytes'] / 2**20:.0f} MiB (target: 0)", f"{files['beyond_bound']:,}"),
    ]
    return [table(rows), table(of_jobs), table(of_files)]
