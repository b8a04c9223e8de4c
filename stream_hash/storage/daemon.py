"""Starting a process that outlives its starter and holds a lock (lock.py).

It has a session of its own (Ctrl-C reaches a terminal's whole process group), none of the starter's pipes, and
no environment but the one it is given. The command ends as soon as it has forked; its child is the daemon.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def launch(command: Sequence[str | Path], *, lock: int, log: Path, environment: Mapping[str, str]) -> bool:
    """Run `command` in the directory of `log` until it has forked; whether it did.

    lock : the open descriptor that the daemon inherits. log : what it says; the log before is kept as NAME.previous.
    """
    if log.exists():
        log.replace(log.with_name(f"{log.name}.previous"))
    with log.open("wb") as file:
        launcher = subprocess.run(  # noqa: S603 - no shell, and the programs are the engine's and our own
            command,
            check=False,
            cwd=log.parent,
            env=environment,
            pass_fds=[lock],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    return launcher.returncode == 0
