"""An operator's supervisor of the server, as every deployment has one: it starts the server again when it is gone."""

from __future__ import annotations

import contextlib
import time

from stream_hash.errors import EmbeddedServerError
from stream_hash.storage.data_directory import DataDirectory
from stream_hash.storage.server import EmbeddedServer
from tests.faults.killed_traffic import Repeating


class Operator(Repeating):
    """Looks fifty times a second.

    pause : seconds until it does. away : from when to when it was away (Unix seconds). orderly : the logs of servers
    that did not die by SIGKILL.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__()
        self._server, self._data = server, DataDirectory(server.directory)
        self._seen = time.time()
        self.pause = 0.0
        self.away: list[tuple[float, float]] = []
        self.orderly: list[str] = []

    def step(self) -> None:
        moment = time.time()
        if self._is_there():
            self._seen = moment
            time.sleep(0.02)
            return
        log = self._data.log.read_text(errors="replace")
        if "bye bye" in log or "crashed by signal" in log:
            self.orderly.append(log[-500:])
        self.ended.wait(self.pause)
        while not self.ended.is_set():  # one that loads for longer than `start` waits is away until it has done
            with contextlib.suppress(EmbeddedServerError):
                self._server.start()
                break
        self.away.append((self._seen, time.time()))

    def _is_there(self) -> bool:
        try:
            return self._data.listener() is not None
        except EmbeddedServerError:
            return True  # it listens and takes nobody in: it was stopped, and goes on some time
