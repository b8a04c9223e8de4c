"""A small deployment, of real processes, in which one of them is killed at a point, and which is left to itself.

An embedded server on a directory of its own; the product's supervisor over two hash workers and a trainer; a producer
and queries in this process. Beside them one that every deployment has: an operator's supervisor, which starts the
server again when it is gone. Nobody else helps.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stream_hash import Index
from stream_hash.errors import StreamHashError
from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE, live_workers
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.storage.data_directory import DataDirectory
from stream_hash.storage.server import EmbeddedServer
from tests.faults.aftermath import violations
from tests.faults.kill_points import POINTS
from tests.faults.killed_index import fill
from tests.faults.killed_process import HASHERS, INDEX
from tests.faults.killed_requests import Asked, ask, has_ended
from tests.faults.killed_traffic import Queries, Record, Stream
from tests.faults.killing import Point, Watch, arm, disarm, kill_server, listener, reached
from tests.faults.patience import patiently, wait_for
from tests.faults.restarting import Operator

START_SECONDS: Final = 60.0
REACHED_SECONDS: Final = 60.0
END_SECONDS: Final = 150.0


@dataclass
class Outcome:
    """What a kill came to. seconds : from the kill until all that was under way had come to its end."""

    point: Point
    reached: bool = False
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


class World:
    """The deployment. folder : empty, and its path short: a socket is in it."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._server = EmbeddedServer(folder / "data")
        self._environment = environment or {}
        self._record = Record()
        self._stack = contextlib.ExitStack()
        self._suffered = 0

    def __enter__(self) -> World:
        with contextlib.ExitStack() as stack:
            self._server.start()
            stack.callback(self._server.stop)
            self._connections = Connections.open(self._server.url)
            fill(self._connections, INDEX, self._record)
            stack.enter_context(self._fleet())
            operator = Operator(self._server)
            operator.start()
            stack.callback(operator.end)
            self._operator = operator
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def suffer(self, point: Point) -> Outcome:
        """Have a process killed at a point, and wait until all is in order again. Whatever is not, is told."""
        outcome = Outcome(point)
        self._suffered += 1
        with Watch(self._folder, [one for one in POINTS if one.by == "client"]).watching():
            stream = Stream(INDEX, self._server.url, self._record, f"s{self._suffered}")
            queries = Queries(INDEX, self._server.url, self._record)
            self._operator.away.clear()
            self._operator.pause = point.away
            stream.start()
            queries.start()
            try:
                self._kill(point, outcome, stream)
            except (TimeoutError, StreamHashError) as error:
                outcome.violations.append(f"{type(error).__name__}: {error}")
            finally:
                disarm(self._folder)
                for thread in (stream, queries):
                    thread.end()
        outcome.violations += self._unanswered(queries, point)
        if self._operator.orderly:
            outcome.violations.append(f"a server did not die by SIGKILL: {self._operator.orderly}")
        return outcome

    def _kill(self, point: Point, outcome: Outcome, stream: Stream) -> None:
        arm(self._folder, point)
        asked = patiently(lambda: self._ask(point.asked))
        wait_for(lambda: reached(self._folder), f"the point {point.key!r} to be reached", REACHED_SECONDS)
        blow = reached(self._folder)
        assert blow is not None
        outcome.reached = blow.point == point.key
        self._wait_for_death(point, blow.pid, asked)
        handle = patiently(lambda: IndexHandle(self._connections.client, INDEX))
        sent = patiently(handle.ledger.last_sequence)
        outcome.violations += [f"after the kill: {wrong}" for wrong in patiently(self._verified)]
        self._wait_for(lambda: has_ended(asked, self._connections, INDEX), "what was asked for to come to its end")
        # What the dead process held is applied in the midst of what came later, not after it.
        self._wait_for(lambda: handle.ledger.horizon() > sent, "what was sent before the kill to be applied")
        stream.end()
        self._wait_for(lambda: not handle.ledger.balance().pending, "the stream to be applied")
        outcome.seconds = time.time() - blow.moment
        outcome.violations += patiently(lambda: violations(self._connections, INDEX, self._record))

    def _wait_for_death(self, point: Point, pid: int, asked: Asked) -> None:
        """The kernel, or its parent, says that a process died by signal 9."""
        if asked.process is not None:
            wait_for(lambda: asked.process.poll() == -9, "the command to die by SIGKILL", 10.0)  # type: ignore[union-attr]
        elif point.victim == "server":
            wait_for(lambda: self._operator.away, "the operator to start the server again", START_SECONDS)
            if listener(DataDirectory(self._server.directory)) == pid:
                raise TimeoutError(f"the server {pid} lives")
        else:
            line = f"worker process {pid} ended with -9"
            wait_for(lambda: line in self._log.read_text(), "the supervisor to see it die by SIGKILL", 10.0)

    def _ask(self, what: str) -> Asked:
        """Ask for a generation, and do to the server what goes with it."""
        asked = ask(what, self._connections, INDEX, variables=self._variables(), log=self._errors)
        if what == "rewriting":
            self._connections.client.bgrewriteaof()
        elif what == "a fallen server":
            data = DataDirectory(self._server.directory)
            kill_server(data, listener(data))
        return asked

    def _verified(self) -> list[str]:
        return Index(INDEX, self._connections).verify().violations

    def _unanswered(self, queries: Queries, point: Point) -> list[str]:
        wrong = queries.wrong[:3] if queries.answered else ["no query was answered"]
        wrong += [
            f"a query failed although the server was up: {why}" for why in queries.failed_outside(self._operator.away)
        ]
        if point.victim != "server" and self._operator.away:
            wrong.append("the server was away")
        return wrong

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        wait_for(lambda: patiently(condition), what, END_SECONDS)

    @contextlib.contextmanager
    def _fleet(self) -> Iterator[None]:
        self._log = self._folder / "fleet.log"
        with self._log.open("wb") as self._errors:
            command = [sys.executable, "-m", "tests.faults.killed_process", "fleet"]
            process = subprocess.Popen(command, env=self._variables(), stderr=self._errors)
            try:
                broker = self._connections.broker
                wait_for(lambda: len(live_workers(broker, HASH_QUEUE)) == HASHERS, "the hash workers", START_SECONDS)
                wait_for(lambda: live_workers(broker, TRAIN_QUEUE), "the trainer", START_SECONDS)
                yield
            finally:
                process.terminate()
                try:
                    process.wait(timeout=30)
                finally:
                    process.kill()
                    process.wait()

    def _variables(self) -> dict[str, str]:
        root = Path(__file__).parents[2]
        path = os.pathsep.join([str(root), *sys.path])
        own = {"PYTHONPATH": path, "STREAM_HASH_URL": self._server.url, "KILLS_FOLDER": str(self._folder)}
        return {**os.environ, **self._environment, **own, "OPENBLAS_NUM_THREADS": "1"}
