"""The one place where time is read, so that a test can stand in for it."""

from __future__ import annotations

import time


def now_seconds() -> float:
    """Seconds since the Unix epoch."""
    return time.time()


def now_milliseconds() -> int:
    """Milliseconds since the Unix epoch."""
    return int(time.time() * 1000)
