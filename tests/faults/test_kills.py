"""Real processes, killed with SIGKILL in the middle of their work.

What they held comes back when leases have run out, which are short here; those that are deployed are added up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import stream
from servers import wait_until

from stream_hash import Index
from stream_hash.errors import ServerUnreachableError
from stream_hash.queue import HASH_QUEUE, live_workers
from stream_hash.service import ingest, sweep
from stream_hash.service.connections import Connections
from stream_hash.settings import IndexSettings
from stream_hash.storage.server import EmbeddedServer
from workers.base import StreamWorker

ITEMS = 20_000
SEARCHABLE_WITHIN_SECONDS = 120.0

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


class Streaming:
    """A producer process, and the batches that it was told are accepted."""

    def __init__(self, url: str, first: int, last: int) -> None:
        self.accepted: list[int] = []
        command = [sys.executable, stream.__file__, url, "x", str(first), str(last)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.accepted.append(int(line))

    def has_accepted(self, first: int) -> bool:
        return bool(self.accepted) and self.accepted[-1] >= first

    def kill(self) -> None:
        self.process.kill()
        self.finish()

    def finish(self) -> int:
        code = self.process.wait(timeout=120)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def fleet(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Two hash workers under a supervisor."""
    command = [sys.executable, "-m", "tests.faults.chaos_fleet", "2", "0"]
    environment = ENVIRONMENT | {"STREAM_HASH_URL": url, "CHAOS_SHORT_LEASES": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def pids(connections: Connections) -> set[int]:
    return {worker.pid for worker in live_workers(connections.broker, HASH_QUEUE) if worker.pid}


@pytest.mark.timeout(420)
def test_what_was_accepted_survives_sigkill_of_a_worker_the_producer_and_the_server(server_directory: Path) -> None:
    server = EmbeddedServer(server_directory / "kills")
    server.start()
    try:
        connections = Connections.open(server.url)
        Index.create("x", IndexSettings(stream.DIMENSION), connections, sample=stream.vectors_of(0))
        with fleet(server.url):
            wait_until(lambda: len(pids(connections)) == 2, what="two workers", timeout_seconds=60)
            first = Streaming(server.url, 0, ITEMS)

            wait_until(lambda: first.has_accepted(4_000), what="4,000 items", timeout_seconds=60)
            os.kill(min(pids(connections)), signal.SIGKILL)

            wait_until(lambda: first.has_accepted(10_000), what="10,000 items", timeout_seconds=60)
            first.kill()
            second = Streaming(server.url, first.accepted[-1], ITEMS)

            wait_until(lambda: second.has_accepted(15_000), what="15,000 items", timeout_seconds=60)
            status = server.status()
            assert status is not None
            os.kill(status.pid, signal.SIGKILL)
            wait_until(lambda: server.status() is None, what="the server to be gone")
            server.start()
            assert second.finish() == 0

            index = Index("x", Connections.open(server.url))
            wait_until(
                lambda: pending(index) == 0,
                what="every accepted item to be applied",
                timeout_seconds=SEARCHABLE_WITHIN_SECONDS,
            )
            check(index, first.accepted + second.accepted)
    finally:
        server.stop()


def test_three_deaths_over_a_batch_take_less_than_two_minutes_as_deployed() -> None:
    """Each time its lease has to run out, and then somebody has to look. Promise 3 of docs/reliability.md."""
    deployed = StreamWorker.__init__.__kwdefaults__
    longest_lease = max(ingest.LEASE_MILLISECONDS / 1_000, sweep.LEASE_MILLISECONDS / 1_000, deployed["lease_seconds"])
    assert ingest.MAX_DELIVERIES * (longest_lease + deployed["maintenance_seconds"]) <= SEARCHABLE_WITHIN_SECONDS


def pending(index: Index) -> int:
    try:
        return int(index.status()["pending"])
    except ServerUnreachableError:
        return -1


def check(index: Index, accepted: list[int]) -> None:
    """Everything accepted is there, once, findable and intact."""
    status = index.status()
    assert (status["accepted"], status["applied"], status["dead"]) == (ITEMS, ITEMS, 0)
    assert status["items"] == ITEMS
    assert sorted(set(accepted)) == list(range(0, ITEMS, stream.BATCH_ITEMS))
    for start in accepted[:: max(1, len(accepted) // 20)]:
        stored = index.get(stream.ids_of(start))
        assert np.array([item.vector for item in stored if item]).tobytes() == stream.vectors_of(start).tobytes()
        (answer,) = index.query(stream.vectors_of(start)[0], k=1, radius=0)
        assert answer.results[0].id == f"item-{start}"
    assert index.verify().violations == []
