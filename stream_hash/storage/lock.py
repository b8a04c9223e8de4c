"""A file that is locked for as long as a process lives: who holds the lock is that process.

Rules
1. The holder is handed the open descriptor by its starter and keeps it until it ends, however it ends. A free
   lock therefore means that it is gone, without asking any pid.
2. Nobody may ever call LOCK_UN: the lock is shared by all who have the descriptor, and they would lose it too.
   Closing a descriptor gives up that share only.
3. Starting takes an exclusive lock, looking a shared one: those who look never keep each other from seeing that
   nobody is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def try_lock(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[int | None]:
    """The descriptor of the lock at `path`, made if it is missing, or None when others keep us from having it.

    kind : LOCK_EX to start what holds it, LOCK_SH to look (rule 3).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        yield descriptor if held else None
    finally:
        os.close(descriptor)


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock. One that does not exist is free, and stays away."""
    if not path.exists():
        return True
    with try_lock(path, fcntl.LOCK_SH) as lock:
        return lock is not None
