"""What the tests of the command line share beside their fixtures."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DIMENSION = 8


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object printed."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """The objects printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Outcome]


@dataclass(frozen=True)
class Process:
    """A process that has not ended."""

    pid: int
    parent: int
    command: str


def processes() -> list[Process]:
    """All processes; one that ended and was not waited for does not count."""
    ps = [shutil.which("ps") or "ps", "-ww", "-e", "-o", "pid=,ppid=,stat=,args="]
    listed = subprocess.run(ps, capture_output=True, text=True, check=True)
    split = (line.split(maxsplit=3) for line in listed.stdout.splitlines())
    return [Process(int(pid), int(parent), command) for pid, parent, state, command in split if state[0] != "Z"]


def children_of(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    return [process.pid for process in processes() if process.parent == pid]


def is_gone(pid: int) -> bool:
    """Whether the process has ended."""
    return pid not in {process.pid for process in processes()}
