"""A timer that flushes what stands in a buffer for too long.

Rules
1. One thread, begun when it is first needed, which sleeps while nothing is buffered. It is a daemon: a process that
   ends does not wait for it.
2. It holds its owner weakly. An owner that is dropped takes the thread with it.
3. The owner's lock keeps the thread and the caller apart; the timer has a lock of its own for its own two fields, and
   never holds it while it calls the owner.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable


class FlushTimer:
    """Calls `flush` `seconds` after `arm`, unless it is disarmed before."""

    def __init__(self, seconds: float, flush: Callable[[], None]) -> None:
        """flush : a bound method, which raises nothing."""
        self._seconds = seconds
        self._state = _State()
        self._flush = weakref.WeakMethod(flush)
        weakref.finalize(flush.__self__, self._state.stop)  # type: ignore[attr-defined]  # a bound method has it
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """Something is buffered; what is armed already stays as it is."""
        if self._thread is None:
            arguments = (self._state, self._flush)
            self._thread = threading.Thread(target=_run, args=arguments, name="flush-timer", daemon=True)
            self._thread.start()
        self._state.arm(time.monotonic() + self._seconds)

    def disarm(self) -> None:
        """Nothing is buffered any more."""
        self._state.disarm()


class _State:
    """When the thread is to flush, shared with it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: float | None = None
        self._stopped = False

    def arm(self, due: float) -> None:
        with self._changed:
            if self._due is None:
                self._due = due
                self._changed.notify()

    def disarm(self) -> None:
        with self._changed:
            self._due = None

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def wait(self) -> bool:
        """Return when it is time to flush; False when never again."""
        with self._changed:
            while not self._stopped:
                moment = time.monotonic()
                if self._due is not None and self._due <= moment:
                    self._due = None
                    return True
                self._changed.wait(None if self._due is None else self._due - moment)
            return False


def _run(state: _State, flush: weakref.WeakMethod[Callable[[], None]]) -> None:
    while state.wait():
        call = flush()
        if call is None:
            return
        call()
        del call  # or the thread would keep its owner while it sleeps
