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

from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE, broker_for, live_workers
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
    with _running(url, HASH_QUEUE, ["workers.hash_worker"], count):
        yield


@contextmanager
def running_trainer(url: str, *options: str) -> Iterator[None]:
    """A trainer process, ready to be asked; stopped in order at the end."""
    with _running(url, TRAIN_QUEUE, ["workers.trainer_worker", *options], 1):
        yield


@contextmanager
def _running(url: str, queue: str, command: list[str], count: int) -> Iterator[None]:
    environment = {**os.environ, "STREAM_HASH_URL": url}
    broker = broker_for(url)
    deadline = time.monotonic() + START_SECONDS
    with tempfile.TemporaryFile() as log:  # a pipe that nobody reads would stop them when it is full
        processes = [
            subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=subprocess.DEVNULL, stderr=log)
            for _ in range(count)
        ]
        try:
            while len(live_workers(broker, queue)) < count:
                if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} did not start: {log.read().decode(errors='replace')}")
                time.sleep(0.02)
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(timeout=START_SECONDS)
                finally:
                    process.kill()
            broker.close()


def in_own_process(function: Callable[..., Value], *arguments: Any) -> Value:
    """What `function` returns, run in a new process that has nothing of this one's memory or threads."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
