"""The clock that leases go by: the server's own. So no lease is kept too long, or taken away, for a host's wrong clock.

Rules
1. It is asked of the server on which an index's leases stand, once a minute. In between it is counted on by a clock of
   this machine that nobody sets.
2. An answer may be old when it comes, and is never of the future. So a lease may end a little sooner, and none is held
   to have run out that has not.
"""

from __future__ import annotations

import time
from typing import Final
from weakref import WeakKeyDictionary

from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts

ASK_AGAIN_SECONDS: Final = 60.0

_answers: WeakKeyDictionary[Client, dict[str, tuple[float, int]]] = WeakKeyDictionary()
"""Client → index → the moment of an answer (monotonic seconds), and the answer (Unix milliseconds)."""


def server_milliseconds(client: Client, index: str) -> int:
    """Milliseconds since the Unix epoch, by the clock of the server that holds the index's leases."""
    answers = _answers.setdefault(client, {})
    if index not in answers or time.monotonic() - answers[index][0] >= ASK_AGAIN_SECONDS:
        seconds, microseconds = Scripts(client)("clock", [IndexKeys(index).pending], [])
        answers[index] = time.monotonic(), int(seconds) * 1_000 + int(microseconds) // 1_000
    moment, milliseconds = answers[index]
    return milliseconds + int((time.monotonic() - moment) * 1_000)
