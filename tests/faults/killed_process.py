"""Processes to be killed: `python -m tests.faults.killed_process ROLE`, with KILLS_FOLDER in the environment.

    fleet      the product's supervisor, over the three below
    hasher     the product's hash worker, its calls watched
    trainer    the product's trainer, its calls watched
    rollback GENERATION    `stream-hash rollback`, its calls watched

What a dead process held is anybody's when its lease has run out. A kill costs what the lease lasts; so that sixty do
not take an hour, it lasts a second or two here, unless KILLS_AS_DEPLOYED is set.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

from tests.faults.kill_points import POINTS
from tests.faults.killing import Watch
from workers.supervisor import Supervisor, leave_with_supervisor

INDEX: Final = "items"
HASHERS: Final = 2
LEASE_SECONDS: Final = 2


def shorten_leases() -> None:
    """Let what dead processes held come back soon, and have everybody look for it more often."""
    from stream_hash.service import ingest, lease, spread, sweep
    from workers import base, supervisor, trainer_worker

    lease.LEASE_MILLISECONDS = 1_000 * LEASE_SECONDS
    ingest.LEASE_MILLISECONDS = sweep.LEASE_MILLISECONDS = 1_000 * LEASE_SECONDS
    spread.STALL_SECONDS = 1.0
    trainer_worker.LOOK_SECONDS = 1
    # a worker beats six times a lease
    defaults = base.StreamWorker.__init__.__kwdefaults__
    defaults["lease_seconds"], defaults["maintenance_seconds"] = LEASE_SECONDS, 1
    supervisor.LONG_LIFE_SECONDS = 5.0


def fleet() -> int:
    """Hash workers and a trainer; whoever dies is replaced."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    command = [sys.executable, "-P", "-m", "tests.faults.killed_process"]
    return Supervisor([*command, "hasher"], HASHERS, beside=[[*command, "trainer"]], grace_seconds=10).run()


def main(role: str, *arguments: str) -> int:
    from stream_hash.service import lease

    lease.RENEW_SECONDS = 0.1  # a run of training here would be over before the first renewal
    if "KILLS_AS_DEPLOYED" not in os.environ:
        shorten_leases()
    if role == "fleet":
        return fleet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s", stream=sys.stderr)
    watch = Watch(Path(os.environ["KILLS_FOLDER"]), [point for point in POINTS if point.by == role])
    with watch.watching():
        if role == "rollback":
            from stream_hash.cli import main as command_line

            command_line(["rollback", INDEX, *arguments], standalone_mode=False)
            return 0
        from workers import hash_worker, trainer_worker

        leave_with_supervisor(grace_seconds=10)
        if role == "hasher":
            return hash_worker.run()
        # only what is asked for is trained
        return trainer_worker.run(interval_seconds=1e9, labels=10**9)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
