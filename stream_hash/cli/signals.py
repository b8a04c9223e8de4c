"""Leaving tidily: a command that has started processes of its own ends them however it is told to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final, NoReturn

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_that_end() -> Iterator[None]:
    """Let SIGTERM and a closed terminal clean up as Ctrl-C does, and none of them disturb the cleaning."""

    def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a signal handler's signature
        ignore_signals()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Let nothing interrupt what cleans up."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
