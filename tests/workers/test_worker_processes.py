"""Worker processes killed, stopped and left without a server: every batch is applied in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from stream_hash.queue import HASH_QUEUE, SafeQueue, broker_for, enqueue_batch, live_workers
from tests.servers import bundled_binary, wait_until


class Server:
    """A server that keeps its data, on a socket, and can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory / 'server.sock'}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "port": 0,
            "unixsocket": self.directory / "server.sock",
            "dir": self.directory,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "logfile": self.directory / "server.log",
        }
        words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
        self.process = subprocess.Popen([bundled_binary(), *words], start_new_session=True)
        with redis.Redis.from_url(self.url) as client:
            wait_until(lambda: answers(client), what="the server to answer")

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


def answers(client: Any) -> bool:
    with contextlib.suppress(redis.exceptions.ConnectionError):
        return bool(client.ping())
    return False


@dataclass
class Fleet:
    """Processes under test, the gates that hold their jobs, and what their jobs noted."""

    server: Server
    gates: Path
    processes: list[subprocess.Popen[bytes]]

    def start(self, *children: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.workers.process", self.server.url, str(self.gates), *children]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return self.processes[-1]

    @property
    def client(self) -> Any:
        return broker_for(self.server.url)

    def accept(self, *batches: str) -> None:
        """Enqueue batches and have them swept, as the producer and the ledger would."""
        with self.client as client:
            for batch in batches:
                client.zadd("pending", {batch: time.time()})
                enqueue_batch(SafeQueue(HASH_QUEUE, client), "items", batch)

    def open(self, *batches: str) -> None:
        for batch in batches:
            (self.gates / batch).touch()

    def noted(self, what: str) -> list[str]:
        with self.client as client:
            return [batch.decode() for batch in client.lrange(what, 0, -1)]

    def pids(self) -> list[int]:
        with self.client as client:
            return [worker.pid for worker in live_workers(client, HASH_QUEUE)]

    def busy(self) -> list[int]:
        with self.client as client:
            return [worker.pid for worker in live_workers(client, HASH_QUEUE) if worker.state == "busy"]

    def wait_for_workers(self, count: int) -> list[int]:
        wait_until(lambda: len(self.pids()) == count, what=f"{count} workers")
        return self.pids()

    def wait_begun(self, *batches: str) -> None:
        wait_until(lambda: set(batches) <= set(self.noted("begun")), what=f"{batches} to begin")

    def wait_done(self, *batches: str) -> None:
        wait_until(lambda: set(batches) <= set(self.noted("done")), what=f"{batches} to be done")
        with self.client as client:
            wait_until(lambda: client.zcard("pending") == 0, what="nothing to be pending")

    def assert_queue_is_empty(self) -> None:
        with self.client as client:
            queue = SafeQueue(HASH_QUEUE, client)
            keys = [queue.key, queue.intermediate_queue_key, queue.started_job_registry.key]
            wait_until(lambda: client.exists(*keys) == 0, what="the queue's lists to be empty")


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "gates").mkdir()
        fleet = Fleet(Server(directory), directory / "gates", [])
        fleet.server.start()
        try:
            yield fleet
        finally:
            # Supervisors first, or they would replace the workers; a worker not yet registered leaves by itself.
            for process in fleet.processes:
                process.kill()
                process.wait()
            with contextlib.suppress(redis.exceptions.ConnectionError):
                for pid in fleet.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            fleet.server.kill()


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for counts as ended."""
    try:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"
        os.kill(pid, 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    return False


def exit_code(process: subprocess.Popen[bytes]) -> int:
    return process.wait(timeout=20)


def test_a_batch_whose_worker_is_killed_is_done_by_another_process(fleet: Fleet) -> None:
    fleet.start("1")
    (victim,) = fleet.wait_for_workers(1)
    fleet.accept("b1", "b2")
    fleet.wait_begun("b1")
    os.kill(victim, signal.SIGKILL)
    fleet.open("b1", "b2")
    fleet.wait_done("b1", "b2")
    assert fleet.noted("begun").count("b1") == 2
    assert gone(victim)
    fleet.assert_queue_is_empty()


def test_a_batch_that_rq_has_lost_is_found_by_the_sweep(fleet: Fleet) -> None:
    fleet.start("1")
    (victim,) = fleet.wait_for_workers(1)
    fleet.accept("b1")
    fleet.wait_begun("b1")
    os.kill(victim, signal.SIGKILL)
    with fleet.client as client:
        client.delete(*client.keys("rq:*"))
    fleet.open("b1")
    fleet.wait_done("b1")
    fleet.assert_queue_is_empty()


def test_workers_leave_when_their_supervisor_is_killed(fleet: Fleet) -> None:
    supervisor = fleet.start("2")
    pids = fleet.wait_for_workers(2)
    fleet.accept("b1")
    fleet.wait_begun("b1")
    (busy,) = fleet.busy()
    (idle,) = set(pids) - {busy}
    supervisor.kill()
    wait_until(lambda: gone(idle), what="the idle worker to leave", timeout_seconds=5)
    assert not gone(busy)
    fleet.open("b1")
    wait_until(lambda: gone(busy), what="the busy worker to leave", timeout_seconds=5)
    assert fleet.noted("done") == ["b1"]
    assert fleet.pids() == []
    fleet.assert_queue_is_empty()


def test_a_fleet_that_is_stopped_finishes_its_jobs_and_exits_with_0(fleet: Fleet) -> None:
    supervisor = fleet.start("2")
    fleet.wait_for_workers(2)
    fleet.accept("b1", "b2", "b3")
    fleet.wait_begun("b1", "b2")
    supervisor.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        supervisor.wait(timeout=0.5)
    fleet.open("b1", "b2", "b3")
    assert exit_code(supervisor) == 0
    assert sorted(fleet.noted("done")) == ["b1", "b2"]
    assert fleet.pids() == []
    fleet.start()
    fleet.wait_done("b3")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_stopped_finishes_its_job_and_exits_with_0(fleet: Fleet, number: signal.Signals) -> None:
    worker = fleet.start()
    fleet.accept("b1")
    fleet.wait_begun("b1")
    worker.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=0.3)
    fleet.open("b1")
    assert exit_code(worker) == 0
    assert fleet.noted("done") == ["b1"]
    fleet.assert_queue_is_empty()


def test_an_idle_worker_that_is_stopped_leaves_within_two_seconds(fleet: Fleet) -> None:
    worker = fleet.start()
    fleet.wait_for_workers(1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=2) == 0
    assert fleet.pids() == []


def test_a_worker_that_is_told_twice_ends_at_once_and_its_batch_is_done_later(fleet: Fleet) -> None:
    worker = fleet.start()
    fleet.accept("b1")
    fleet.wait_begun("b1")
    worker.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=1.2)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=2) == -signal.SIGTERM
    fleet.start()
    fleet.open("b1")
    fleet.wait_done("b1")


def test_a_stopped_worker_leaves_although_the_server_is_away(fleet: Fleet) -> None:
    worker = fleet.start()
    fleet.wait_for_workers(1)
    fleet.server.kill()
    worker.send_signal(signal.SIGTERM)
    assert exit_code(worker) == 0


def test_idle_workers_survive_a_restart_of_the_server(fleet: Fleet) -> None:
    worker = fleet.start()
    fleet.wait_for_workers(1)
    fleet.server.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=1.5)
    fleet.server.start()
    fleet.open("b1")
    fleet.accept("b1")
    fleet.wait_done("b1")
    assert worker.poll() is None


def test_busy_workers_survive_a_restart_of_the_server(fleet: Fleet) -> None:
    worker = fleet.start()
    fleet.accept("b1", "b2")
    fleet.wait_begun("b1")
    fleet.server.kill()
    fleet.open("b1", "b2")
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=1.5)
    fleet.server.start()
    fleet.wait_done("b1", "b2")
    fleet.assert_queue_is_empty()
    assert worker.poll() is None


def test_busy_workers_survive_a_server_that_lost_its_data(fleet: Fleet) -> None:
    worker = fleet.start()
    fleet.accept("b1")
    fleet.wait_begun("b1")
    with fleet.client as client:
        client.flushall()
    fleet.open("b1", "b2")
    fleet.accept("b2")
    fleet.wait_done("b1", "b2")
    fleet.assert_queue_is_empty()
    assert fleet.wait_for_workers(1) == [worker.pid]


def test_a_fleet_started_without_a_server_works_once_there_is_one(fleet: Fleet) -> None:
    fleet.server.kill()
    fleet.start("2")
    fleet.server.start()
    fleet.wait_for_workers(2)
    fleet.open("b1")
    fleet.accept("b1")
    fleet.wait_done("b1")


@pytest.mark.parametrize("seed", range(2))
def test_every_batch_is_done_whatever_is_killed_when(fleet: Fleet, seed: int) -> None:
    import random

    chance = random.Random(seed)
    batches = [f"b{number}" for number in range(30)]
    fleet.start("3")
    fleet.wait_for_workers(3)
    fleet.open(*batches)
    fleet.accept(*batches[:15])
    for _ in range(4):
        wait_until(fleet.pids, what="a worker to be alive")
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(fleet.pids()), signal.SIGKILL)
        time.sleep(chance.random() / 4)
    fleet.accept(*batches[15:])
    fleet.wait_done(*batches)
    fleet.assert_queue_is_empty()
