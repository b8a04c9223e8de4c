"""Killing at a point: a call of the product is watched from outside, and at the right one a process is killed.

Rules
1. Nothing of the product knows of this. A process under test is started through a module of these tests
   (killed_process.py), which puts watched calls in place of the product's, each under its own name.
2. At most one process strikes at a time: whoever makes the file REACHED does, and the others go on as if nothing was.
   It is made before the blow, so it says who was struck, and when.
3. A call that is `during` is struck when its reply is there and nobody has read it: the server has done what was asked
   and whoever asked will never know. For a pipeline that is the reply to its first command.
4. SIGKILL is for a pid that the kernel names: this process's own, or the one that listens on the server's socket.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import redis.connection
from redis import exceptions

from stream_hash.storage.data_directory import DataDirectory

ARMED: Final = "armed"
REACHED: Final = "reached"
GONE_WITHIN_SECONDS: Final = 5.0

Victim = Literal["trainer", "hasher", "server"]
When = Literal["before", "during", "after"]


@dataclass(frozen=True)
class Point:
    """A moment at which a process is killed.

    call : `module:name` or `module:Class.method`; or a script's name, for a call of that script. by : whose call it is:
    a "trainer", a "hasher", a "rollback" on the command line, or a "client", which is the process of the test. nth :
    which of the calls that count, in one process. given : whether a call counts, by its arguments. answered : whether
    it does, by its reply. asked : what is under way (killed_world.py). away : seconds that a server is gone.
    """

    victim: Victim
    name: str
    by: str
    when: When
    call: str
    nth: int = 1
    given: Callable[..., bool] = lambda *_, **__: True
    answered: Callable[[Any], bool] = lambda _: True
    asked: str = "rollback"
    away: float = 0.0

    @property
    def key(self) -> str:
        """What it is known by."""
        return f"{self.victim}: {self.name}"

    @property
    def place(self) -> str:
        """The call to be replaced."""
        return self.call if ":" in self.call else "stream_hash.storage.scripts:Scripts.__call__"

    def counts(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
        """Whether a call is one of this kind."""
        if ":" not in self.call and arguments[1] != self.call:
            return False
        return self.given(*arguments, **named)


@dataclass(frozen=True)
class Reached:
    """Who was struck at a point, and when (Unix seconds)."""

    point: str
    pid: int
    moment: float


def arm(folder: Path, point: Point) -> None:
    """From now on the next process that comes to the point strikes."""
    (folder / REACHED).unlink(missing_ok=True)
    fresh = folder / f"{ARMED}.fresh"
    fresh.write_text(point.key)
    fresh.rename(folder / ARMED)


def disarm(folder: Path) -> None:
    """Nobody strikes any more."""
    (folder / ARMED).unlink(missing_ok=True)


def reached(folder: Path) -> Reached | None:
    """What happened since `arm`."""
    try:
        return Reached(**json.loads((folder / REACHED).read_text()))
    except (FileNotFoundError, ValueError):  # not there, or just being written
        return None


class Watch:
    """The watched calls of one process."""

    def __init__(self, folder: Path, points: list[Point]) -> None:
        """folder : of the world; the server's directory is `data` in it."""
        self._folder = folder
        self._points = {point.key: point for point in points}
        self._counted = ("", 0)
        self._lock = threading.Lock()
        self._inside = threading.local()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch, until the block ends."""
        kept: list[tuple[Any, str, Any]] = []
        try:
            places = {point.place for point in self._points.values()}
            for place in sorted(places):
                module, _, path = place.partition(":")
                *owners, name = path.split(".")
                owner = functools.reduce(getattr, owners, importlib.import_module(module))
                kept.append((owner, name, getattr(owner, name)))
                setattr(owner, name, self._watched(place, getattr(owner, name)))
            connection = redis.connection.AbstractConnection
            kept.append((connection, "read_response", connection.read_response))
            connection.read_response = self._interrupted(connection.read_response)  # type: ignore[method-assign]
            yield
        finally:
            for owner, name, own in reversed(kept):
                setattr(owner, name, own)

    def _watched(self, place: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            point = self._armed(place)
            if point is None or not point.counts(arguments, named):
                return function(*arguments, **named)
            if point.when == "after":
                reply = function(*arguments, **named)
                if point.answered(reply) and self._is_due(point):
                    self._strike(point)
                return reply
            if not self._is_due(point):
                return function(*arguments, **named)
            if point.when == "before":
                self._strike(point)
                return function(*arguments, **named)
            self._inside.point = point
            try:
                return function(*arguments, **named)
            finally:
                self._inside.point = None

        return call

    def _interrupted(self, read: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(read)
        def read_response(connection: Any, *arguments: Any, **named: Any) -> Any:
            point = getattr(self._inside, "point", None)
            if point is not None:
                self._inside.point = None
                connection.can_read(timeout=GONE_WITHIN_SECONDS)
                if self._strike(point):
                    connection.disconnect()
                    raise exceptions.ConnectionError("the server was killed before its reply was read")
            return read(connection, *arguments, **named)

        return read_response

    def _armed(self, place: str) -> Point | None:
        try:
            point = self._points.get((self._folder / ARMED).read_text())
        except FileNotFoundError:
            return None
        return point if point is not None and point.place == place else None

    def _is_due(self, point: Point) -> bool:
        with self._lock:
            name, count = self._counted
            self._counted = (point.key, count + 1 if name == point.key else 1)
            return self._counted[1] == point.nth

    def _strike(self, point: Point) -> bool:
        """Kill whom the point names; False when somebody else did."""
        server = DataDirectory(self._folder / "data")
        pid = listener(server) if point.victim == "server" else os.getpid()
        try:
            with (self._folder / REACHED).open("x") as file:
                file.write(json.dumps({"point": point.key, "pid": pid, "moment": time.time()}))
        except FileExistsError:
            return False
        if point.victim != "server":
            _end_this_process()
        kill_server(server, pid)
        return True


def listener(server: DataDirectory) -> int:
    """The pid of a directory's server, which may be just starting."""
    deadline = time.monotonic() + GONE_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if pid := server.listener():
            return pid
        time.sleep(0.001)
    raise TimeoutError(f"no server listens in {server.path}")


def kill_server(server: DataDirectory, pid: int) -> None:
    """SIGKILL to the server of a directory; returns when it does not listen any more."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + GONE_WITHIN_SECONDS
    while server.listener() == pid and time.monotonic() < deadline:
        time.sleep(0.001)


def _end_this_process() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # the kernel may take a moment
        time.sleep(1)
