"""The trainer's notice board: what it is doing, and what became of what it was asked for.

Rules
1. For people and for whoever waits, never for correctness: nothing is decided by what stands here, and what a trainer
   of a moment ago wrote may stand here a little longer (trainer_state.py has what counts).
2. All of it expires.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final

from redis.exceptions import OutOfMemoryError

from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.trainer_state import Held

PROGRESS_SECONDS: Final = 600
ANSWER_SECONDS: Final = 3_600


class TrainerBoard:
    """The notice board of one index. Each method is one round trip."""

    def __init__(self, client: Client, index: str) -> None:
        self._client = client
        self._keys = IndexKeys(index)

    def show(self, progress: Mapping[str, Any]) -> None:
        """Tell what is being done. progress : JSON values. A full server is not told: the work goes on without."""
        with contextlib.suppress(OutOfMemoryError):
            self._client.set(self._keys.progress, json.dumps(progress), ex=PROGRESS_SECONDS)

    def clear(self) -> None:
        """Nothing is being done."""
        self._client.delete(self._keys.progress)

    def progress(self) -> dict[str, Any] | None:
        """What was shown last."""
        return _object(self._client.get(self._keys.progress))

    def leader(self, now: int) -> Held | None:
        """Who is the trainer at `now` (Unix milliseconds)."""
        holder, until = self._client.hmget(self._keys.trainer, "holder", "until")
        if not holder or int(until or 0) <= now:
            return None
        return Held(holder.decode(), int(until))

    def answer(self, request: str, answer: Mapping[str, Any]) -> None:
        """Tell what became of a request. answer : JSON values.

        The first word stands: a trainer that was paused may come with its own after another has done it.
        """
        self._client.set(self._keys.answer(request), json.dumps(answer), ex=ANSWER_SECONDS, nx=True)

    def answer_to(self, request: str) -> dict[str, Any] | None:
        """What became of a request; None when nothing is known yet, or any more."""
        return _object(self._client.get(self._keys.answer(request)))


def _object(text: bytes | None) -> dict[str, Any] | None:
    found = json.loads(text) if text else None
    return found if isinstance(found, dict) else None
