"""Work that makes way for others: the operating system's priorities, of a process or of one thread.

A throttle leaves time unused when nobody else wants it, and still holds a core for the whole of each piece of work; a
low priority does neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import get_native_id
from typing import Final, TypeVar

Value = TypeVar("Value")

NICENESS: Final = 10
"""Beside a busy process of ordinary priority on the same core, a tenth of the time."""


def lower_priority() -> None:
    """Of this process, and of what it starts from now on. There is no way back without a privilege."""
    os.nice(NICENESS)


def at_low_priority(function: Callable[[], Value]) -> Value:
    """What `function` returns or raises, run in a thread that makes way for others; the caller waits for it.

    On Linux a thread has a priority of its own (setpriority(2)), so the caller keeps its own. Elsewhere the function is
    simply called.
    """
    if sys.platform != "linux":
        return function()
    thread = ThreadPoolExecutor(1, thread_name_prefix="low priority", initializer=_lower_thread)
    try:
        return thread.submit(function).result()
    finally:
        thread.shutdown(wait=False)  # a caller whose time is up does not wait


def _lower_thread() -> None:
    own = get_native_id()
    os.setpriority(os.PRIO_PROCESS, own, max(NICENESS, os.getpriority(os.PRIO_PROCESS, own)))
