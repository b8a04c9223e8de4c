"""A hash worker for tests: `python -m tests.workers.poison URL [CHILDREN]`, or a supervisor of such workers.

It is the real one with short leases, and one batch kills it: a vector that begins with POISON ends the process by
SIGSEGV while it is hashed, as a fault in a library would; one that begins with GREEDY finds no memory.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from stream_hash import logs
from stream_hash.jobs import FUNCTIONS
from stream_hash.numerics.model import Model
from stream_hash.queue import HASH_QUEUE
from stream_hash.service import context as context_module
from stream_hash.service import ingest, sweep
from stream_hash.service.context import open_context
from workers.base import StreamWorker
from workers.supervisor import Supervisor, leave_with_supervisor

POISON, GREEDY = 31415926.0, 27182818.0
LEASE_MILLISECONDS = 1_000


def main() -> None:
    url, *children = sys.argv[1:]
    logs.configure("json", "debug")
    if children:
        command = [sys.executable, "-m", "tests.workers.poison", url]
        sys.exit(Supervisor(command, int(children[0]), grace_seconds=20).run())
    leave_with_supervisor()
    encode = Model.encode

    def crash(self: Model, vectors: Any) -> Any:
        if (vectors[:, 0] == POISON).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if (vectors[:, 0] == GREEDY).any():
            raise MemoryError
        return encode(self, vectors)

    Model.encode = crash  # type: ignore[method-assign]  # what a fault in a library would do
    for module in (ingest, sweep):
        module.LEASE_MILLISECONDS = LEASE_MILLISECONDS  # type: ignore[misc]  # half a minute is too long for a test
    context = open_context(url, None)
    assert context_module.sweep is sweep.sweep
    StreamWorker(
        HASH_QUEUE,
        context.broker,
        functions=FUNCTIONS,
        context=context,
        on_maintenance=context.sweep,
        lease_seconds=1,
        maintenance_seconds=1,
    ).work()


if __name__ == "__main__":
    main()
