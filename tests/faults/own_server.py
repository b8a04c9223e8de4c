"""A server of a test's own, with an append-only file: it may be killed, be long in loading, and find its disk full."""

from __future__ import annotations

import resource
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import redis
from servers import bundled_binary, wait_until

SLOWLY: Final = {"key-load-delay": 20_000, "loading-process-events-interval-bytes": 1_024}
"""So that each key takes 20 ms to load, and clients are answered after each kilobyte."""

FILLING_KEYS: Final = 2_000


class OwnServer:
    """One server after the other, on the same data. directory : empty, and its path short."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "own.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"
        self.client: Any = redis.Redis(unix_socket_path=str(self._socket))

    def start(self, *, wait: bool = True, **more: object) -> None:
        """Start it on what the one before has left. wait : until it has loaded that."""
        options = {
            **{"dir": self._directory, "port": 0, "unixsocket": self._socket, "logfile": self._directory / "log"},
            **{"save": "", "appendonly": "yes", "appendfsync": "everysec", "rdbcompression": "no"},
            **more,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        # Python ignores the signal of a file that grows too large, and so does its child: it gets an error instead.
        self._process = subprocess.Popen(
            [bundled_binary(), *words], stdout=subprocess.DEVNULL, start_new_session=True, restore_signals=False
        )
        wait_until(self._answers, what="the server to answer")
        if wait:
            wait_until(lambda: not self.client.info("persistence")["loading"], what="the server to have loaded")

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def fill_so_that_loading_takes_long(self) -> None:
        """Half a minute, when it is done SLOWLY: the data are in the file that is loaded key by key."""
        self.client.mset({f"filling:{n}": b"%01024d" % n for n in range(FILLING_KEYS)})
        self.client.bgrewriteaof()
        wait_until(lambda: not self._rewriting(), what="the append-only file to be rewritten")

    def fill_disk(self) -> None:
        """No file of the server grows any more, beyond a few bytes."""
        largest = max(path.stat().st_size for path in self._directory.glob("appendonlydir/*"))
        self._limit_files(largest + 64)

    def free_disk(self) -> None:
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        assert self._process is not None
        _, most = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, most))

    def _rewriting(self) -> bool:
        info = self.client.info("persistence")
        return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])

    def _answers(self) -> bool:
        try:
            return bool(self.client.info("server"))
        except redis.ConnectionError:
            assert self._process is not None
            assert self._process.poll() is None, (self._directory / "log").read_text()
            return False
