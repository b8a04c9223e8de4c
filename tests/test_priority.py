"""Work that makes way for others: what a thread and a process are worth to the operating system."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from stream_hash import priority
from stream_hash.priority import NICENESS, at_low_priority


def niceness() -> int:
    """Of this thread, on Linux."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own elsewhere")
@pytest.mark.parametrize("lowest", [0, 1])
def test_only_the_work_itself_makes_way(monkeypatch: pytest.MonkeyPatch, lowest: int) -> None:
    own = niceness()
    monkeypatch.setattr(priority, "NICENESS", own + 2 * lowest - 1)  # a step above its own, and a step below
    assert at_low_priority(niceness) == own + lowest
    assert niceness() == own


def test_what_the_work_raises_reaches_the_caller() -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        at_low_priority(fail)


def test_a_process_makes_way_with_all_it_starts() -> None:
    program = "import os, stream_hash.priority as p; print(os.nice(0)); p.lower_priority(); print(os.nice(0))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = (int(line) for line in done.stdout.split())
    assert after == min(19, before + NICENESS)
