"""A deployment under random blows: real processes are killed or stopped at random moments, under load.

An embedded server; the product's supervisor over hash workers and trainers; producer processes; queries, and requests
for generations without an end, in this process. An operator starts the server, the supervisor and the producers again
when they are gone, as an init system does. Nobody else helps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from redis import exceptions

from stream_hash.errors import EmbeddedServerError, StreamHashError
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.trainer import unfinished
from stream_hash.storage.data_directory import DataDirectory
from stream_hash.storage.server import EmbeddedServer
from tests.faults.aftermath import violations
from tests.faults.chaos_beside import Pending, Requests
from tests.faults.chaos_producer import STOP, batch_of, journal_of
from tests.faults.killed_index import fill
from tests.faults.killed_process import INDEX
from tests.faults.killed_traffic import Queries, Record, Repeating
from tests.faults.patience import patiently, wait_for
from tests.faults.restarting import Operator

START_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 120.0
LONGEST_STOP_SECONDS: Final = 3.0

WEIGHTS: Final = {"hasher": 8, "trainer": 5, "producer": 4, "server": 2, "supervisor": 1}
"""How often each is struck, about."""


@dataclass
class Settled:
    """What the blows came to.

    kills : by victim; "building" counts those of a hasher or a trainer while a generation was built. stops : SIGSTOP,
    and SIGCONT a little later, by victim. slowest_seconds : from the acceptance of a batch until it was pending no
    longer. failed_queries : that failed while the server was up.
    """

    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    items: int = 0
    queries: int = 0
    generations: int = 0
    dead_letters: int = 0
    slowest_seconds: float = 0.0
    settling_seconds: float = 0.0
    failed_queries: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """All of it, in JSON's types."""
        return {**vars(self), "kills": dict(self.kills), "stops": dict(self.stops)}


class ChaosWorld:
    """The deployment. folder : empty, and its path short: a socket is in it."""

    def __init__(
        self,
        folder: Path,
        *,
        hashers: int = 3,
        trainers: int = 2,
        producers: int = 2,
        short_leases: bool,
        seed: int = 0,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """variables : more of the environment of its processes (chaos_fleet.py)."""
        self._folder = folder
        self._fleet_command = [sys.executable, "-m", "tests.faults.chaos_fleet", str(hashers), str(trainers)]
        self._names = [f"p{number}" for number in range(producers)]
        self._more = {**(variables or {}), **({"CHAOS_SHORT_LEASES": "1"} if short_leases else {})}
        self._rng = np.random.default_rng([seed, 17])
        self._server = EmbeddedServer(folder / "data")
        self._record = Record()
        self._fleet: subprocess.Popen[bytes] | None = None
        self._producers: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped: set[int] = set()
        self._away: list[tuple[float, float]] = []
        self.settled = Settled()

    def __enter__(self) -> ChaosWorld:
        with contextlib.ExitStack() as stack:
            self._server.start()
            stack.callback(self._server.stop)
            self._connections = Connections.open(self._server.url)
            fill(self._connections, INDEX, self._record)
            self._log = stack.enter_context((self._folder / "fleet.log").open("ab"))
            stack.callback(self._end_processes)
            self._revive()
            self._operator = Operator(self._server)
            self._queries = Queries(INDEX, self._server.url, self._record)
            self._requests = Requests(self._connections, INDEX)
            self._pending = Pending(self._connections, INDEX)
            self._threads: list[Repeating] = [self._operator, self._queries, self._requests, self._pending]
            for thread in self._threads:
                thread.start()
                stack.callback(thread.ended.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def strike(
        self,
        kills: int,
        *,
        pause_seconds: float,
        stops: float = 0.2,
        weights: Mapping[str, int] = WEIGHTS,
        spare: bool = False,
    ) -> None:
        """Strike at random moments until so many processes were killed. stops : share of the blows that are SIGSTOP.

        spare : of each kind the oldest is never killed.
        """
        left, deadline = kills, time.monotonic() + START_SECONDS
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody was there to be killed for {START_SECONDS:g} s")
            self.wait(float(self._rng.exponential(pause_seconds)))
            victim = self._victim(weights)
            stop = self._rng.random() < stops
            pid = self._pid_of(victim)
            if pid is None or pid in self._stopped or (spare and not stop and pid in self._oldest()):
                continue
            if stop:
                self._stop(victim, pid)
                continue
            building = victim in ("hasher", "trainer") and self._is_building()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                left, deadline = left - 1, time.monotonic() + START_SECONDS
                self.settled.kills[victim] += 1
                self.settled.kills["building"] += building

    def stop_one(self, weights: Mapping[str, int] = WEIGHTS) -> None:
        """Stop a process now, if there is one to be stopped; it goes on a little later by itself."""
        victim = self._victim(weights)
        pid = self._pid_of(victim)
        if pid is not None and pid not in self._stopped:
            self._stop(victim, pid)

    def _victim(self, weights: Mapping[str, int]) -> str:
        shares = np.array(list(weights.values())) / sum(weights.values())
        return str(self._rng.choice(list(weights), p=shares))

    def _stop(self, victim: str, pid: int) -> None:
        seconds = float(self._rng.uniform(0, LONGEST_STOP_SECONDS))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.settled.stops[victim] += 1
            self._go_on_after(seconds, pid)
            if victim == "server":
                self._away.append((time.time(), time.time() + seconds))

    def settle(self) -> Settled:
        """Strike no more, wait until all is in order, and say what is not."""
        self.wait(LONGEST_STOP_SECONDS + 0.1)
        settled, wrong = self.settled, self.settled.violations
        (self._folder / STOP).touch()
        start = time.monotonic()
        try:
            self._wait_for(lambda: all(one.poll() is not None for one in self._producers.values()), "the producers")
            self._requests.end()
            handle = patiently(lambda: IndexHandle(self._connections.client, INDEX))
            self._wait_for(lambda: not handle.ledger.balance().pending, "what was accepted to be applied")
            self._wait_for(lambda: not unfinished(handle), "the last generation to be live everywhere")
            settled.settling_seconds = time.monotonic() - start
            for thread in self._threads:
                thread.end()
            self._account(handle)
        except (TimeoutError, StreamHashError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
        wrong += self._queries.wrong[:3]
        wrong += [f"a server did not die by SIGKILL: {log}" for log in self._operator.orderly]
        return settled

    def _account(self, handle: IndexHandle) -> None:
        settled = self.settled
        for name in self._names:
            for noted in journal_of(self._folder, name):
                batch = batch_of(name, noted.number)
                self._record.add(batch)
                settled.batches += 1
                settled.items += len(batch)
                seen = self._pending.seen.get(f"{name}-{noted.number}", noted.moment)
                settled.slowest_seconds = max(settled.slowest_seconds, seen - noted.moment)
        settled.queries = self._queries.answered
        settled.generations = self._requests.live
        settled.dead_letters = sum(letter.items for letter in handle.ledger.dead_letters(limit=10_000))
        settled.failed_queries = self._queries.failed_outside(self._operator.away + self._away)
        settled.violations += violations(self._connections, INDEX, self._record)

    def wait(self, seconds: float) -> None:
        """Sleep, and start what is gone."""
        until = time.monotonic() + seconds
        while True:
            self._revive()
            for thread in self._threads:
                if not thread.is_alive():
                    thread.end()  # raises what it died of
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.05, left))

    def _go_on_after(self, seconds: float, pid: int) -> None:
        def go_on() -> None:
            self._stopped.discard(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        self._stopped.add(pid)
        threading.Timer(seconds, go_on).start()

    def _revive(self) -> None:
        if self._fleet is None or self._fleet.poll() is not None:
            self._fleet = subprocess.Popen(self._fleet_command, env=self._variables(), stderr=self._log)
        for name in [] if (self._folder / STOP).exists() else self._names:
            if name not in self._producers or self._producers[name].poll() is not None:
                command = [sys.executable, "-m", "tests.faults.chaos_producer", INDEX, name, str(self._folder)]
                self._producers[name] = subprocess.Popen(command, env=self._variables(), stderr=self._log)

    def processes(self) -> dict[str, list[int]]:
        """The pids of all processes by what they are, the oldest first."""
        assert self._fleet is not None
        found: dict[str, list[int]] = {victim: [] for victim in WEIGHTS}
        found["supervisor"].append(self._fleet.pid)
        found["producer"] += [self._producers[name].pid for name in self._names]
        with contextlib.suppress(EmbeddedServerError):  # it was stopped
            listener = DataDirectory(self._server.directory).listener()
            found["server"] += [] if listener is None else [listener]
        for pid in _children(self._fleet.pid):
            if (what := "".join(_arguments(pid)[-1:])) in found:
                found[what].append(pid)
        return {what: sorted(pids, key=_begin) for what, pids in found.items()}

    def _oldest(self) -> set[int]:
        return {pids[0] for pids in self.processes().values() if pids}

    def _pid_of(self, victim: str) -> int | None:
        """Of one of them, if there is one."""
        pids = self.processes()[victim]
        return int(self._rng.choice(pids)) if pids else None

    def _is_building(self) -> bool:
        try:
            handle = IndexHandle(self._connections.client, INDEX)
            return any(state.building for state in handle.states)
        except (StreamHashError, exceptions.RedisError):
            return False

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        wait_for(lambda: patiently(condition), what, SETTLE_SECONDS)

    def _end_processes(self) -> None:
        (self._folder / STOP).touch()
        processes = [one for one in (self._fleet, *self._producers.values()) if one is not None]
        for pid in list(self._stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=30)
            finally:
                process.kill()
                process.wait()

    def _variables(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
        own = {"PYTHONPATH": path, "STREAM_HASH_URL": self._server.url, "OPENBLAS_NUM_THREADS": "1"}
        return {**os.environ, **own, **self._more}


def _children(pid: int) -> Sequence[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]


def _begin(pid: int) -> tuple[int, int]:
    """What later processes have more of: clock ticks from boot to a process's start, for numbers begin anew."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return sys.maxsize, pid  # it has just ended; without /proc numbers have to do
    return int(stat.rpartition(")")[2].split()[19]), pid


def _arguments(pid: int) -> list[str]:
    done = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.split()
