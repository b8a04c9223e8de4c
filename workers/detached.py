"""The workers of a data directory, and its trainer: a supervisor of its own, that outlives whoever started it.

It holds, beside the embedded server's own files::

    workers.lock   locked by the supervisor as long as it lives; empty, never deleted
    worker.sock    where it says who it is, and is told to stop (as long a name as the server's socket has)
    workers.log    what it and its workers say; workers.log.previous is of the fleet before

Rules
1. *The lock is the fleet* (stream_hash/storage/lock.py): of many starters that race one starts a fleet, and the
   others see it answer. Workers do not inherit it: it is free as soon as the supervisor is gone, and what it
   left behind ends by itself (supervisor.py, rule 4).
2. Nobody sends a signal to a number read from a file, which may be another process by now, or one of another
   container. A supervisor is asked through its socket, and signals itself.
3. It outlives its starter (stream_hash/storage/daemon.py). URLs reach it and its workers by the environment:
   others can read a command line.
4. Each is started with -P: a folder called `workers` where the user happens to stand is not ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from stream_hash import logs
from stream_hash.environment import handed_over, read_logging
from stream_hash.errors import StreamHashError
from stream_hash.storage.daemon import launch
from stream_hash.storage.lock import is_free, try_lock
from workers.supervisor import GRACE_SECONDS, PIPE_VARIABLE, Supervisor

POLL_SECONDS: Final = 0.02
ANSWER_SECONDS: Final = 5.0
LOG_LINES: Final = 5

_PYTHON: Final = (sys.executable, "-P", "-m")


@dataclass(frozen=True)
class FleetStatus:
    """A running fleet. pid : of its supervisor. processes, trainers : how many of these it keeps alive."""

    pid: int
    processes: int
    trainers: int = 0


class Fleet:
    """The workers of one data directory, which exists; any number of these objects may share it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._lock = self._directory / "workers.lock"
        self._socket = self._directory / "worker.sock"
        self.log = self._directory / "workers.log"

    def start(
        self,
        processes: int,
        url: str,
        broker_url: str | None = None,
        *,
        trainers: int = 0,
        timeout_seconds: float = 15.0,
    ) -> FleetStatus:
        """Have the fleet running; one that runs already is left as it is, whatever its size.

        Raises StreamHashError when its supervisor does not start or does not answer in time.
        """
        deadline = time.monotonic() + timeout_seconds
        launched = False
        while True:
            status = self.status()
            if status is not None:
                return status
            with try_lock(self._lock) as lock:
                if lock is not None:
                    if launched:
                        raise self._failure("the supervisor of the workers ended as soon as it was started")
                    self._launch(lock, [processes, trainers], url, broker_url or url)
                    launched = True
            if time.monotonic() >= deadline:
                raise self._failure(f"the supervisor of the workers does not answer after {timeout_seconds:g} s")
            time.sleep(POLL_SECONDS)

    def stop(self, *, timeout_seconds: float = GRACE_SECONDS + 15.0) -> bool:
        """Have the workers finish their jobs and end; whether there were any.

        Raises StreamHashError when the supervisor is still there after `timeout_seconds`.
        """
        deadline = time.monotonic() + timeout_seconds
        stopping: int | None = None
        while not is_free(self._lock):
            status = self._ask(b"status" if stopping else b"stop")
            if stopping and status and status.pid != stopping:
                return True  # it ended, and somebody has started the next one since
            if status:
                stopping = status.pid
            if time.monotonic() >= deadline:
                raise self._failure(f"the workers have not ended after {timeout_seconds:g} s")
            time.sleep(POLL_SECONDS)
        return stopping is not None

    def status(self) -> FleetStatus | None:
        """The running fleet; None when there is none, or it is only just starting or ending."""
        return self._ask(b"status")

    def wait_until_working(
        self,
        broker: Any,
        processes: int,
        *,
        trainers: int = 0,
        besides: Collection[str] = (),
        timeout_seconds: float = 30.0,
    ) -> None:
        """Return when as many hash workers as `processes`, and `trainers`, give signs of life on `broker`.

        besides : names of workers that do not count. Raises StreamHashError after `timeout_seconds`.
        """
        from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE, live_workers  # costs a supervisor a tenth of a second
        from stream_hash.storage.connection import redis_errors

        def working(queue: str) -> int:
            with redis_errors():
                return sum(worker.name not in besides for worker in live_workers(broker, queue))

        deadline = time.monotonic() + timeout_seconds
        while working(HASH_QUEUE) < processes or working(TRAIN_QUEUE) < trainers:
            if is_free(self._lock):
                raise self._failure("the workers have given up")
            if time.monotonic() >= deadline:
                raise self._failure(f"the workers are not at work after {timeout_seconds:g} s")
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        """The last lines of the log."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        return ""

    def _ask(self, word: bytes) -> FleetStatus | None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(ANSWER_SECONDS)
            try:
                asking.connect(str(self._socket))
                asking.sendall(word)
                answer = asking.makefile().read()
            except OSError:
                return None
        with contextlib.suppress(ValueError):
            return FleetStatus(**json.loads(answer))
        return None

    def _launch(self, lock: int, sizes: list[int], url: str, broker_url: str) -> None:
        environment = {**os.environ, **handed_over(url, broker_url)}
        # What this process imports from, wherever the child works; without it, -P would hide a source tree.
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        environment.pop(PIPE_VARIABLE, None)
        command = [*_PYTHON, "workers.detached", str(self._socket), *map(str, sizes)]
        if not launch(command, lock=lock, log=self.log, environment=environment):
            raise self._failure("the supervisor of the workers cannot be started")

    def _failure(self, what: str) -> StreamHashError:
        last = self.last_words()
        return StreamHashError(
            f"{what} in {self._directory}",
            why=f"its log ends with:\n{last}" if last else "it left no log",
            remedy=f"mend what {self.log} says; what holds the lock is shown by: lsof {shlex.quote(str(self._lock))}",
        )


def main(socket_path: str, processes: int, trainers: int) -> int:
    """The supervisor itself. Its starter's lock is open already, and stays so until this process ends."""
    if os.fork():
        os._exit(0)  # the starter waits for this one, and nobody for the other
    chosen = read_logging()
    logs.configure(chosen.format or "text", chosen.level)  # the file is for people
    Path(socket_path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(socket_path)
        listener.listen()
        beside = [[*_PYTHON, "workers.trainer_worker"]] * trainers
        supervisor = Supervisor(
            [*_PYTHON, "workers.hash_worker"], processes, beside=beside, environment=logs.variables()
        )
        status = FleetStatus(os.getpid(), processes, trainers)
        threading.Thread(target=_answer, args=(listener, asdict(status)), name="answers", daemon=True).start()
        code = supervisor.run()
        Path(socket_path).unlink(missing_ok=True)
    return code


def _answer(listener: socket.socket, status: dict[str, Any]) -> None:
    """Tell everyone who asks what runs here; the first to say stop is obeyed."""
    stopping = False
    while True:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.settimeout(ANSWER_SECONDS)
            word = connection.recv(16)
            connection.sendall(json.dumps(status).encode())
            if word == b"stop" and not stopping:
                stopping = True  # a second signal would not let the workers finish their jobs
                os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:4])))
