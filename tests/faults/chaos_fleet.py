"""The product's supervisor over hash workers and trainers: `python -m tests.faults.chaos_fleet HASHERS TRAINERS`.

As deployed, but for two things: who is killed every few seconds is nevertheless started again at once; and with
CHAOS_SHORT_LEASES in the environment leases are short, so that a kill costs seconds and not half a minute. With
CHAOS_KEPT_SECONDS, what is kept for an hour otherwise is kept so long: receipts and answers.
"""

from __future__ import annotations

import logging
import os
import sys

from tests.faults.killed_process import shorten_leases
from workers import supervisor


def main(hashers: int, trainers: int) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    supervisor.LONG_LIFE_SECONDS = 0.5
    own = [sys.executable, "-P", "-m", "tests.faults.chaos_fleet"]
    beside = [[*own, "trainer"]] * trainers
    return supervisor.Supervisor([*own, "hasher"], hashers, beside=beside, grace_seconds=20).run()


def worker(role: str) -> int:
    from stream_hash.storage import ledger, trainer_board
    from workers import hash_worker, trainer_worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s", stream=sys.stderr)
    if "CHAOS_SHORT_LEASES" in os.environ:
        shorten_leases()
    if seconds := os.environ.get("CHAOS_KEPT_SECONDS"):
        ledger.RECEIPT_SECONDS = trainer_board.ANSWER_SECONDS = int(seconds)
    return hash_worker.run() if role == "hasher" else trainer_worker.run(interval_seconds=1e9, labels=10**9)


if __name__ == "__main__":
    sys.exit(worker(sys.argv[1]) if len(sys.argv) == 2 else main(int(sys.argv[1]), int(sys.argv[2])))
