"""What may befall a server, one thing after the other, while its clients hold on: each is told what is wrong and what
mends it, nothing is written by halves, and all goes on when it has passed.
"""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import redis
from numpy.typing import NDArray
from servers import wait_until

from stream_hash import Index, Producer, clock, jobs
from stream_hash.errors import OutOfMemoryError, ServerRefusedError, ServerUnreachableError, StreamHashError
from stream_hash.queue import HASH_QUEUE
from stream_hash.service import asking
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from tests.faults.in_one_thread import apply_all
from tests.faults.lost_replies import differences, run, run_losing
from tests.faults.own_server import SLOWLY, OwnServer
from workers.base import StreamWorker

ITEMS = 40
DIMENSION = 16


def vectors_of(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).normal(size=(ITEMS, DIMENSION)).astype(np.float32)


def ids_of(number: int) -> list[str]:
    return [f"{number}-{n}" for n in range(ITEMS)]


class Deployment:
    """A producer, a searcher and a worker in this process, whose connections stay open all the time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections = Connections.open(url)
        settings = IndexSettings(DIMENSION, bits=6, partitions=2)
        self.index = Index.create("x", settings, self.connections, sample=vectors_of(0))
        self.producer = Producer("x", self.connections, when_full="raise")
        self.context = Context(self.connections)
        self.sent: list[int] = []

    def send(self, number: int) -> None:
        """A batch; as sent counts what was accepted."""
        self.producer.submit(Batch("upsert", ids_of(number), vectors_of(number), None, None), f"b{number}")
        self.sent.append(number)

    def ask(self, number: int) -> None:
        """Each batch's first item is found by its vector."""
        (answer,) = self.index.query(vectors_of(number)[0], k=1, radius=0)
        assert answer.results[0].id == ids_of(number)[0]

    def check(self) -> None:
        """All that was accepted is there, once and as it was sent."""
        apply_all(self.context, "x")
        status = self.index.status()
        assert (status["items"], status["dead"]) == (ITEMS * len(self.sent), 0)
        assert status["applied"] == status["accepted"]
        for number in self.sent:
            stored = self.index.get(ids_of(number))
            assert np.array([item.vector for item in stored if item]).tobytes() == vectors_of(number).tobytes()
        assert self.index.verify().violations == []


class Working:
    """A worker in a thread of its own. ended_by : what it could not go on for."""

    def __init__(self, url: str) -> None:
        context = Context(Connections.open(url))
        self._worker = StreamWorker(
            HASH_QUEUE,
            context.broker,
            functions=jobs.FUNCTIONS,
            context=context,
            on_maintenance=context.sweep,
            on_memory_out=lambda: jobs.apply_overdue(context),
            signals=False,
            lease_seconds=2,
        )
        self._thread = threading.Thread(target=self._work)
        self.ended_by: Exception | None = None

    def __enter__(self) -> Working:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    @property
    def lives(self) -> bool:
        return self._thread.is_alive()

    def _work(self) -> None:
        try:
            self._worker.work()
        except redis.RedisError as error:
            self.ended_by = error


@pytest.fixture
def server() -> Iterator[OwnServer]:
    with tempfile.TemporaryDirectory(prefix="sh-") as directory:
        own = OwnServer(Path(directory))
        own.start()
        try:
            yield own
        finally:
            own.end()


@pytest.fixture
def deployment(server: OwnServer) -> Deployment:
    """With two batches of items, all of them applied."""
    deployed = Deployment(server.url)
    deployed.send(1)
    deployed.send(2)
    deployed.check()
    return deployed


def all_are_told(deployment: Deployment, kind: type[StreamHashError], match: str, *, queries: bool) -> None:
    """Producers, re-indexers and, if `queries`, searchers are told the same, with a remedy."""
    calls: list[Callable[[], Any]] = [
        lambda: deployment.send(9),
        lambda: asking.roll_back(deployment.connections, "x", 1, timeout_seconds=5, on_doing=lambda _: None),
        lambda: deployment.index.label(ids_of(1)[:1], ["late"]),
    ]
    if queries:
        calls.append(lambda: deployment.ask(1))
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert match in f"{caught.value}: {caught.value.why}"
        assert caught.value.remedy


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_is_started_again_and_who_was_connected_goes_on(
    how: signal.Signals, server: OwnServer, deployment: Deployment
) -> None:
    with Working(server.url) as worker:
        server.end(how)
        with pytest.raises(ServerUnreachableError, match="went away"):
            deployment.send(3)
        server.start()
        deployment.ask(1)
        deployment.send(3)
        wait_until(lambda: not deployment.context.index("x").ledger.balance().pending, what="it to be applied")
        deployment.ask(3)
        assert worker.lives
    deployment.check()


def test_a_server_that_is_still_loading_is_waited_for(server: OwnServer, deployment: Deployment) -> None:
    server.fill_so_that_loading_takes_long()
    with Working(server.url) as worker:
        server.end()
        server.start(wait=False, **SLOWLY)
        all_are_told(deployment, ServerUnreachableError, "still loading", queries=True)
        with pytest.raises(ServerUnreachableError, match="still loading"):
            Index("x", server.url)
        assert server.client.info("persistence")["loading"], "it has loaded before it was asked"
        server.end()
        server.start()
        deployment.send(3)
        wait_until(lambda: not deployment.context.index("x").ledger.balance().pending, what="it to be applied")
        assert worker.lives
    deployment.check()


def test_a_server_out_of_memory_refuses_what_is_new_and_nothing_is_half_written(
    server: OwnServer, deployment: Deployment
) -> None:
    room = server.client.info("memory")["used_memory"] + 300_000
    server.client.config_set("maxmemory", room)
    number = 2
    with pytest.raises(OutOfMemoryError) as caught:
        while True:
            number += 1
            deployment.send(number)
    assert caught.value.remedy == "raise maxmemory, or delete items"
    assert number > 4, "there was room for some"
    server.client.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        deployment.send(number)
    deployment.producer.submit(Batch("delete", ids_of(2)), "delete")
    deployment.sent.remove(2)
    ledger = deployment.context.index("x").ledger
    with (
        mock.patch.object(jobs, "server_milliseconds", return_value=1_000 * int(time.time() + 60)),
        Working(server.url) as worker,
    ):
        wait_until(lambda: not ledger.balance().pending, what="what was accepted to be applied all the same")
        assert worker.lives
    assert deployment.index.verify().violations == []
    deployment.ask(1)
    server.client.config_set("maxmemory", 0)
    deployment.send(number)
    asking.roll_back(deployment.connections, "x", 1, timeout_seconds=5, on_doing=lambda _: None)
    deployment.check()


def as_a_replica(server: OwnServer) -> None:
    server.client.replicaof("127.0.0.1", 1)


def as_a_primary(server: OwnServer) -> None:
    server.client.replicaof("NO", "ONE")


def without_replicas(server: OwnServer) -> None:
    server.client.config_set("min-replicas-to-write", 1)


def without_need_of_replicas(server: OwnServer) -> None:
    server.client.config_set("min-replicas-to-write", 0)


def with_a_full_disk(server: OwnServer) -> None:
    """The write that finds it full is kept in memory; it is those after it that are refused."""
    server.fill_disk()
    server.client.set("filler", "x" * 1_000)
    wait_until(lambda: server.client.info("persistence")["aof_last_write_status"] == "err", what="the error to be seen")


def with_room_on_its_disk(server: OwnServer) -> None:
    server.free_disk()
    wait_until(lambda: server.client.info("persistence")["aof_last_write_status"] == "ok", what="it to try again")


@pytest.mark.parametrize(
    ("befalls", "passes", "match"),
    [
        (as_a_replica, as_a_primary, "read-only replica"),
        (without_replicas, without_need_of_replicas, "NOREPLICAS"),
        (with_a_full_disk, with_room_on_its_disk, "MISCONF"),
    ],
)
def test_a_server_that_takes_no_writes_is_told_of_and_goes_on_afterwards(
    befalls: Callable[[OwnServer], None],
    passes: Callable[[OwnServer], None],
    match: str,
    server: OwnServer,
    deployment: Deployment,
) -> None:
    with Working(server.url) as worker:
        befalls(server)
        all_are_told(deployment, ServerRefusedError, match, queries=False)
        deployment.ask(1)  # what is there is found all the same
        wait_until(lambda: not worker.lives, what="the worker to end, for its supervisor to start it again")
    assert isinstance(worker.ended_by, redis.ResponseError)
    passes(server)
    deployment.send(3)
    deployment.send(9)
    deployment.check()
    server.end()
    server.start()
    deployment.check()


@pytest.mark.parametrize(
    ("refusal", "counts"),
    [
        ("MISCONF Errors writing to the AOF file: No space left on device script: 1", 0),
        ("NOREPLICAS Not enough good replicas to write.", 0),
        ("OOM command not allowed when used memory > 'maxmemory'.", 0),
        ("ERR wrong number of arguments", 1),
    ],
)
def test_an_attempt_in_which_the_server_takes_no_more_writes_does_not_count(
    refusal: str, counts: int, deployment: Deployment
) -> None:
    """It is over before the batch is given back."""
    deployment.send(3)

    def apply(handle: Any, batch: str, **_: object) -> None:
        handle.ledger.begin(batch, lease_until=0)
        raise redis.ResponseError(refusal) if counts or "OOM" not in refusal else redis.OutOfMemoryError(refusal)

    with mock.patch.object(jobs, "apply_to", apply), pytest.raises(redis.ResponseError):
        jobs.apply_batch(deployment.context, "x", "b3")
    delivery = deployment.context.index("x").ledger.begin("b3", lease_until=0)
    assert delivery is not None
    assert delivery.attempts == counts + 1
    deployment.check()


def test_scripts_flushed_before_every_call_change_nothing(
    real_client: redis.Redis, embedded_url: str, server_directory: Path
) -> None:
    flushed = []

    def flush(names: list[str]) -> bool:
        flushed.append(names)
        real_client.script_flush()
        return False

    expected = run(real_client, embedded_url)
    found = run_losing(real_client, Path(embedded_url.removeprefix("unix://")), server_directory, flush)
    assert differences(expected, found) == []
    assert ["write"] in flushed


def test_a_clock_that_jumps_by_an_hour_at_every_look_loses_and_doubles_nothing(
    real_client: redis.Redis, embedded_url: str
) -> None:
    """Leases go by the server's clock, and the order of writes by none."""
    rng = np.random.default_rng(0)
    looks = []

    def jumping() -> float:
        looks.append(3_600.0 * int(rng.integers(-1, 2)))
        return time.time() + looks[-1]

    expected = run(real_client, embedded_url)
    with mock.patch.object(clock, "time", SimpleNamespace(time=jumping)):
        found = run(real_client, embedded_url)
    assert differences(expected, found) == []
    assert len(set(looks)) == 3
