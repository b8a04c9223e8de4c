"""Waiting in a deployment whose server may be away at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from redis import exceptions

from stream_hash.errors import ServerUnreachableError

BACK_SECONDS: Final = 60.0


def wait_for(condition: Callable[[], Any], what: str, timeout_seconds: float) -> None:
    """Return as soon as it is so. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout_seconds:g} s in vain for {what}")
        time.sleep(0.02)


def patiently(action: Callable[[], Any]) -> Any:
    """What it returns, as soon as the server is there to answer. Raises TimeoutError."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            return action()
        except (ServerUnreachableError, exceptions.ConnectionError) as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"the server does not come back: {error}") from error
            time.sleep(0.05)
