"""A proxy before a server that loses replies: the server has done what was asked for, and whoever asked never knows.

Rules
1. Requests pass as they are. The replies to commands that a client sends together may be thrown away and the connection
   closed, after the server has done every one of them: it is asked to close the connection behind them, and has.
2. What is chosen is for `loses` to say, which is told the commands by their names, scripts by their own.
3. `delay_seconds` holds back replies that are not lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from stream_hash.storage.scripts import sources

PIECE: Final = 1 << 16
NAMES: Final = {hashlib.sha1(text.encode()).hexdigest(): name for name, text in sources().items()}  # noqa: S324 - Redis's
BY_TEXT: Final = {text: name for name, text in sources().items()}
REST: Final = 8
GREETINGS: Final = ("HELLO", "CLIENT")
"""What a new connection begins with. When such a reply is lost, it is the call after them that has to come through."""

CHANCE: Final = 0.7
CHANCE_AFTERWARDS: Final = 0.03
"""When there were as many as wanted: some calls are made only after another one lost its reply."""


class Losses:
    """Which replies are lost: of each kind of command `wanted`, at random; after one, none until the same comes again.

    So what is sent again comes through, and nobody is told of anything. (What never comes again is waited for during
    REST calls.) seen, lost : how many calls there were, and of how many the reply was lost, by kind; of commands sent
    together each kind counts.
    """

    def __init__(self, wanted: int, seed: int) -> None:
        self._wanted = wanted
        self._rng = np.random.default_rng([seed, 23])
        self._rest = 0
        self._awaited: list[str] = []
        self.lost: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()

    def __call__(self, names: list[str]) -> bool:
        """Whether the replies to commands that are sent together are lost."""
        kinds = set(names)
        self.seen.update(kinds)
        if self._rest:
            again = names == self._awaited and names[0] not in GREETINGS
            self._rest = 0 if again else self._rest - 1
            return False
        enough = all(self.lost[kind] >= self._wanted for kind in kinds)
        if self._rng.random() >= (CHANCE_AFTERWARDS if enough else CHANCE):
            return False
        self._rest, self._awaited = REST, names
        self.lost.update(kinds)
        return True

    @property
    def left(self) -> dict[str, int]:
        """How many replies are still to be lost, by kind, of those that were seen."""
        return {kind: self._wanted - self.lost[kind] for kind in sorted(self.seen) if self.lost[kind] < self._wanted}


class LossyProxy:
    """Listens at `url` until it is closed."""

    def __init__(
        self,
        server: Path,
        own: Path,
        loses: Callable[[list[str]], bool],
        *,
        delay_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """server, own : Unix sockets. loses : whether the replies to commands of these names are lost."""
        self._server, self._loses, self._delay = str(server), loses, delay_seconds
        self._lock = threading.Lock()
        self.url = f"unix://{own}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(own))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(self._server)
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        losing = threading.Event()
        replies = threading.Thread(target=self._reply, args=(client, server, losing), daemon=True)
        replies.start()
        pending, open_transaction = b"", False
        with contextlib.suppress(OSError):
            while piece := client.recv(PIECE):
                pending += piece
                commands, length = _commands(pending)
                names = [_name(command) for command in commands]
                for name in names:
                    open_transaction = name == "MULTI" or (open_transaction and name not in ("EXEC", "DISCARD"))
                with self._lock:
                    if names and self._loses(names):
                        losing.set()
                server.sendall(pending[:length])
                pending = pending[length:]
                if losing.is_set() and not open_transaction:
                    self._until_done(server, replies)
                    break
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _until_done(self, server: socket.socket, replies: threading.Thread) -> None:
        """Return when the server has answered all that was sent: it then closes, since it is asked to."""
        server.sendall(b"*1\r\n$4\r\nQUIT\r\n")
        replies.join()

    def _reply(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(PIECE):
                if not losing.is_set():
                    time.sleep(self._delay())
                    client.sendall(piece)


def _commands(data: bytes) -> tuple[list[list[bytes]], int]:
    """The complete commands at the beginning, and their length."""
    commands, position = [], 0
    while (found := _command(data, position)) is not None:
        command, position = found
        commands.append(command)
    return commands, position


def _command(data: bytes, position: int) -> tuple[list[bytes], int] | None:
    parts: list[bytes] = []
    count = _number(data, position)
    if count is None:
        return None
    left, position = count
    for _ in range(left):
        size = _number(data, position)
        if size is None or len(data) < size[1] + size[0] + 2:
            return None
        parts.append(data[size[1] : size[1] + size[0]])
        position = size[1] + size[0] + 2
    return parts, position


def _number(data: bytes, position: int) -> tuple[int, int] | None:
    """The number behind a mark of one byte, and where its line ends."""
    end = data.find(b"\r\n", position)
    return None if end < 0 else (int(data[position + 1 : end]), end + 2)


def _name(command: list[bytes]) -> str:
    name = command[0].decode().upper()
    if name == "EVALSHA":
        return NAMES.get(command[1].decode(), name)
    return BY_TEXT.get(command[1].decode(), name) if name == "EVAL" else name
