"""Processes for tests: `python -m tests.workers.trainer_process OPTIONS`, a trainer whose lease is short."""

from __future__ import annotations

from stream_hash.service import lease
from workers import trainer_worker

LEASE_SECONDS = 3

if __name__ == "__main__":
    lease.LEASE_MILLISECONDS = 1_000 * LEASE_SECONDS
    lease.RENEW_SECONDS = 0.5
    trainer_worker.LOOK_SECONDS = 1
    trainer_worker.main()
