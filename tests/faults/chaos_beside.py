"""What goes on beside the blows: one generation is asked for after the other, and somebody looks at what is pending."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from redis import exceptions

from stream_hash.errors import FencedError, StreamHashError
from stream_hash.service.connections import Connections
from stream_hash.storage.keys import IndexKeys
from tests.faults.killed_requests import ask, has_ended
from tests.faults.killed_traffic import Repeating

REQUEST_SECONDS: Final = 60.0
WAYS: Final = ("rollback", "training")


class Requests(Repeating):
    """Asks for one generation after the other. live : how many came of it."""

    def __init__(self, connections: Connections, index: str) -> None:
        super().__init__()
        self._connections, self._index = connections, index
        self._asked = 0
        self.live = 0

    def step(self) -> None:
        self._asked += 1
        way = WAYS[self._asked % len(WAYS)]
        deadline = time.monotonic() + REQUEST_SECONDS
        try:
            asked = ask(way, self._connections, self._index, variables={}, log=None)
            while not has_ended(asked, self._connections, self._index):
                if self.ended.wait(0.1) or time.monotonic() >= deadline:
                    return
            self.live += 1
        except (StreamHashError, exceptions.RedisError, FencedError):
            self.ended.wait(0.2)  # the server is away, or another trainer's target is newer


class Pending(Repeating):
    """Looks every 0.2 s which batches are pending. seen : when each was last (Unix seconds)."""

    def __init__(self, connections: Connections, index: str) -> None:
        super().__init__()
        self._client, self._key = connections.client, IndexKeys(index).pending
        self.seen: dict[str, float] = {}

    def step(self) -> None:
        with contextlib.suppress(exceptions.RedisError):
            batches: list[bytes] = self._client.zrange(self._key, 0, -1)
            self.seen.update(dict.fromkeys((batch.decode() for batch in batches), time.time()))
        self.ended.wait(0.2)
