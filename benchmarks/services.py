"""The processes around a measurement: an embedded server, hash workers, and a process for each client."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from stream_hash.queue import HASH_QUEUE, broker_for, live_workers
from stream_hash.storage.server import EmbeddedServer

START_SECONDS = 30.0

Value = TypeVar("Value")


@contextmanager
def running_server() -> Iterator[str]:
    """A fresh embedded server, as the product starts it; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="sh-") as directory:
        server = EmbeddedServer(Path(directory) / "data")
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


@contextmanager
def running_workers(url: str, count: int) -> Iterator[None]:
    """`count` hash worker processes, all ready to take jobs; stopped in order at the end."""
    environment = {**os.environ, "STREAM_HASH_URL": url}
    command = [sys.executable, "-m", "workers.hash_worker"]
    workers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    broker = broker_for(url)
    deadline = time.monotonic() + START_SECONDS
    try:
        while len(live_workers(broker, HASH_QUEUE)) < count:
            for worker in workers:
                if worker.poll() is not None or time.monotonic() > deadline:
                    worker.kill()
                    raise RuntimeError(f"a hash worker did not start: {worker.communicate()[1]}")
            time.sleep(0.02)
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.communicate(timeout=START_SECONDS)
        broker.close()


def in_own_process(function: Callable[..., Value], *arguments: Any) -> Value:
    """What `function` returns, run in a new process that has nothing of this one's memory or threads."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
