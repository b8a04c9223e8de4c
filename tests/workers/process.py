"""Processes for tests: `python -m tests.workers.process URL GATES [CHILDREN]`.

A worker whose jobs note in Redis that they have begun, wait for a file named after their batch in the
directory GATES, and note that they are done; or a supervisor of such workers. The set `pending` stands in
for the ledger: whatever is in it and does not wait is enqueued again in each maintenance interval.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import redis

from stream_hash.queue import HASH_QUEUE, SafeQueue, broker_for, enqueue_batch, job_id_of, waiting_ids
from stream_hash.queue.arguments import APPLY_BATCH
from workers.base import StreamWorker
from workers.supervisor import Supervisor, leave_with_supervisor

SWEEP_AFTER_SECONDS = 2.5


class Context:
    def __init__(self, url: str, gates: Path) -> None:
        self.client: Any = redis.Redis.from_url(url)
        self.broker = broker_for(url)
        self.gates = gates

    def apply(self, index: str, batch: str) -> None:
        assert index == "items"
        self.client.rpush("begun", batch)
        while not (self.gates / batch).exists():
            time.sleep(0.01)
        self.client.rpush("done", batch)
        self.client.zrem("pending", batch)

    def sweep(self) -> None:
        queue = SafeQueue(HASH_QUEUE, self.broker)
        waiting = waiting_ids(self.broker, queue)
        for batch in self.client.zrangebyscore("pending", 0, time.time() - SWEEP_AFTER_SECONDS):
            if job_id_of("items", batch.decode()) not in waiting:
                self.client.zadd("pending", {batch: time.time()})
                enqueue_batch(queue, "items", batch.decode())


def main() -> None:
    url, gates, *children = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(process)d %(relativeCreated)d %(message)s")
    if children:
        command = [sys.executable, "-m", "tests.workers.process", url, gates]
        sys.exit(Supervisor(command, int(children[0]), grace_seconds=20).run())
    leave_with_supervisor()
    context = Context(url, Path(gates))
    StreamWorker(
        HASH_QUEUE,
        context.broker,
        functions={APPLY_BATCH: Context.apply},
        context=context,
        on_maintenance=context.sweep,
        lease_seconds=2,
        maintenance_seconds=1,
    ).work()


if __name__ == "__main__":
    main()
