"""Trainer processes: they train by themselves, and whoever is killed is followed by another."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from stream_hash import Index, Producer
from stream_hash.errors import ServerUnreachableError
from stream_hash.priority import NICENESS
from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE, live_workers
from stream_hash.service.connections import Connections
from stream_hash.settings import IndexSettings
from tests.servers import wait_until
from workers import trainer_worker

ITEMS = 6_000
DIMENSION = 24
CLASSES = 6

pytestmark = pytest.mark.timeout(240)


class Processes:
    """Workers of a server, which end with the test."""

    def __init__(self, url: str) -> None:
        self.connections = Connections.open(url)
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "STREAM_HASH_URL": url}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, *options: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, *map(str, options)]
        self._started.append(subprocess.Popen(command, env=self._environment, start_new_session=True))
        return self._started[-1]

    def trainer(self, *options: object) -> subprocess.Popen[bytes]:
        return self.start("tests.workers.trainer_process", "--labels", 500, *options)

    def alive(self, queue: str, count: int) -> None:
        wait_until(lambda: len(live_workers(self.connections.broker, queue)) == count, what=f"{count} on {queue}")

    def end(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()
            process.wait()


@pytest.fixture
def processes(url: str) -> Iterator[Processes]:
    processes = Processes(url)
    try:
        yield processes
    finally:
        processes.end()


def stream(processes: Processes) -> Index:
    """An index, filled through the queue by two hash workers."""
    random = np.random.default_rng(0)
    y = np.arange(ITEMS) % CLASSES
    x = random.normal(size=(CLASSES, DIMENSION))[y] + 1.5 * random.normal(size=(ITEMS, DIMENSION))
    index = Index.create("items", IndexSettings(DIMENSION, bits=12), processes.connections, sample=x[:1_000])
    with Producer("items", processes.connections) as producer:
        producer.upsert_many([f"i{n}" for n in range(ITEMS)], x, labels=y.tolist())
        producer.wait(60)
    return index


def generation_of(index: Index) -> int:
    return int(index.status()["generation"])


def test_trainers_learn_by_themselves_and_leave_with_0(processes: Processes) -> None:
    hashing = processes.start("workers.hash_worker", "--processes", 2)
    training = processes.trainer("--processes", 2)  # the second is in the way of nothing
    processes.alive(HASH_QUEUE, 2)
    processes.alive(TRAIN_QUEUE, 2)
    trainers = live_workers(processes.connections.broker, TRAIN_QUEUE)
    lower = {os.getpriority(os.PRIO_PROCESS, trainer.pid) for trainer in trainers}
    assert lower == {min(19, os.nice(0) + NICENESS)}
    index = stream(processes)
    wait_until(lambda: generation_of(index) >= 2, what="a learned generation", timeout_seconds=90)
    status = index.status()
    assert (status["training"]["decision"], status["items"]) == ("live", ITEMS)
    assert "new labels" in status["training"]["asked"]
    wait_until(lambda: index.status()["trainer"] is None, what="the trainer to be done", timeout_seconds=60)
    assert index.verify().violations == []
    assert index.query(np.ones(DIMENSION), k=10)[0].generation == generation_of(index)
    processes.alive(TRAIN_QUEUE, 2)
    for process in (training, hashing):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert live_workers(processes.connections.broker, TRAIN_QUEUE) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_another_trainer_goes_on_where_one_was_ended(processes: Processes, number: signal.Signals) -> None:
    hashing = processes.start("workers.hash_worker")
    index = stream(processes)
    # Nobody is left to build chunks but the trainer, which takes a hundred times as long as it would.
    hashing.send_signal(signal.SIGTERM)
    assert hashing.wait(timeout=30) == 0
    first = processes.trainer("--throttle", 0.01)

    def under_way() -> Any:
        reindex = index.status()["reindex"]
        return reindex and 0 < reindex["done"] < ITEMS

    wait_until(under_way, what="a re-index to be under way", timeout_seconds=90)
    found = index.status()
    assert found["building"] == [2]
    assert found["trainer"]["doing"] == "re-indexing"
    assert str(first.pid) in found["trainer"]["holder"]
    first.send_signal(number)
    assert first.wait(timeout=30) == (0 if number == signal.SIGTERM else -number)
    assert index.verify().violations == []
    done = index.status()["reindex"]["done"]
    assert done < ITEMS

    processes.trainer()
    wait_until(lambda: generation_of(index) == 2, what="the next trainer to finish it", timeout_seconds=90)
    wait_until(lambda: index.status()["retiring"] == [], what="the first to be deleted")
    assert index.verify().violations == []
    assert len(index.generations()) == 2  # and it was not trained twice


def test_a_password_on_the_command_line_is_refused() -> None:
    for option in ("--url", "--broker-url"):
        outcome = CliRunner().invoke(trainer_worker.main, [option, "redis://me:secret@host:6379"])
        assert outcome.exit_code == 2
        assert "secret" not in outcome.output
        assert "fix: set STREAM_HASH_" in outcome.output


def test_an_error_is_told_with_its_cause_and_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise ServerUnreachableError("no server answers", why="it is away", remedy="start it")

    monkeypatch.setattr(trainer_worker, "run", fail)
    outcome = CliRunner().invoke(trainer_worker.main, ["--url", "redis://host"])
    assert outcome.exit_code == 4
    assert outcome.output == "Error: no server answers\n  why: it is away\n  fix: start it\n"


def test_what_the_supervised_ones_are_told_is_what_they_understand(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(trainer_worker, "supervise", lambda *arguments: given.append(arguments) or 0)
    trainer_worker.run("redis://host", interval_seconds=7.5, labels=3, learner="svm", throttle=0.25, processes=2)
    ((module, *options), count, url, broker_url), *_ = given
    assert (module, count, url, broker_url) == ("workers.trainer_worker", 2, "redis://host", None)
    taken: dict[str, Any] = {}
    monkeypatch.setattr(trainer_worker, "run", lambda *_, **named: taken.update(named) or 0)
    assert CliRunner().invoke(trainer_worker.main, options).exit_code == 0
    wanted = {"interval_seconds": 7.5, "labels": 3, "learner": "svm", "throttle": 0.25, "processes": 1}
    assert taken == wanted


def test_help_says_how_to_give_a_password() -> None:
    outcome = CliRunner().invoke(trainer_worker.main, ["--help"])
    assert outcome.exit_code == 0
    assert "STREAM_HASH_URL=" in outcome.output
