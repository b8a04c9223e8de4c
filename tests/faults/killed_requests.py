"""What is under way when somebody is killed: a generation is asked for, in one of several ways.

training          of a trainer, by the queue
rollback          to the model before, which a trainer finds to be the target
by hand           the same, by `stream-hash rollback`, a process that re-indexes itself
another target    a rollback of a generation that is begun and not yet built
rewriting         a rollback, and the server is to rewrite its append-only file
a fallen server   a rollback, and the server is killed
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

from stream_hash.errors import StreamHashError
from stream_hash.service import asking, rollback
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.lease import leading
from stream_hash.service.trainer import unfinished
from stream_hash.storage.trainer_board import TrainerBoard
from stream_hash.storage.trainer_state import Held

PLAN: Final = {"force": True, "window": 400, "held_out": 200, "least": 50}


@dataclass(frozen=True)
class Asked:
    """What was asked for. request : of a trainer. process : that does it. before : the target before it."""

    request: str = ""
    process: subprocess.Popen[bytes] | None = None
    before: int | None = None


def ask(
    what: str, connections: Connections, index: str, *, variables: Mapping[str, str], log: IO[bytes] | None
) -> Asked:
    """Ask for a generation. May be repeated. variables, log : of a process that does it, if one is started."""
    handle = IndexHandle(connections.client, index)
    target = handle.trainer.target()
    digests = {record.generation: record.sha256 for record in handle.models.records()}
    other = max(generation for generation in digests if digests[generation] != digests[target or 1])
    if what == "training":
        return Asked(request=asking.request_training(connections, index, PLAN))
    if what == "by hand":
        command = [sys.executable, "-m", "tests.faults.killed_process", "rollback", str(other)]
        return Asked(
            process=subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=log), before=target
        )
    if what == "another target":
        _leave_half_begun(handle, other)
    else:
        asking.roll_back(connections, index, other, wait=False, timeout_seconds=60, on_doing=lambda _: None)
    return Asked(before=target)


def has_ended(asked: Asked, connections: Connections, index: str) -> bool:
    """Whether what was asked for is live everywhere, and nothing is left to be deleted."""
    handle = IndexHandle(connections.client, index)
    if asked.request:
        answer: dict[str, Any] | None = TrainerBoard(handle.client, index).answer_to(asked.request)
        if not answer:
            return False
        if answer["error"] or not answer["run"] or answer["run"]["generation"] is None:
            raise StreamHashError(f"the request came to {answer}")
    elif handle.trainer.target() == asked.before:
        return False
    return not unfinished(handle) and not any(state.building for state in handle.states)


def _leave_half_begun(handle: IndexHandle, other: int) -> None:
    """As a trainer leaves it that died after it had begun a generation, when somebody rolled it back since."""
    live = rollback.live_generation(handle)
    with leading(handle) as lease:
        assert not isinstance(lease, Held)
        unwanted = rollback.rollback(handle, lease.token, other)
        for partition in range(handle.settings.partitions):
            handle.generations.begin(partition, unwanted, lease.token)
        rollback.rollback(handle, lease.token, live)
