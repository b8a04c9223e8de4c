"""A worker among malformed jobs: any number of made-up hashes, one good job behind each block of them.

The test suite does the same with 600 (tests/workers/test_attacks.py). Nothing may run but the good jobs, everything
else must be set aside, and the worker must neither end nor grow.
"""

from __future__ import annotations

import logging
import resource
import tempfile
import time
from itertools import islice
from pathlib import Path

import click

from benchmarks.report import progress
from stream_hash.queue import HASH_QUEUE, SafeJob, SafeQueue, broker_for, enqueue_batch
from stream_hash.queue.arguments import APPLY_BATCH
from stream_hash.storage.server import EmbeddedServer
from tests.workers import sentinel
from tests.workers.hostile_jobs import hostile_jobs
from workers.base import StreamWorker

BLOCK = 1_000


@click.command()
@click.option("--jobs", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(jobs: int, seed: int) -> None:
    """Send malformed jobs to a worker."""
    logging.disable(logging.WARNING)
    made = hostile_jobs(seed)
    done: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder) / "data")
        broker = broker_for(server.start().url)
        queue = SafeQueue(HASH_QUEUE, broker)
        start, first_kilobytes = time.perf_counter(), 0
        try:
            for block in range(0, jobs, BLOCK):
                for number, fields in enumerate(islice(made, min(BLOCK, jobs - block)), block):
                    broker.hset(SafeJob.key_for(f"evil-{number}"), mapping=fields)
                    broker.rpush(queue.key, f"evil-{number}")
                enqueue_batch(queue, "items", f"good-{block}")
                functions = {APPLY_BATCH: lambda context, index, batch: done.append(batch)}  # noqa: ARG005 - a job's
                StreamWorker(HASH_QUEUE, broker, functions=functions, context=None, signals=False).work(burst=True)
                first_kilobytes = first_kilobytes or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                progress(f"{block + BLOCK} jobs")
            aside = sum(1 for _ in broker.scan_iter("sh:malformed-job:*", count=10_000))
        finally:
            server.stop()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first_kilobytes) / 1_024
    good = len(range(0, jobs, BLOCK))
    click.echo(
        f"{jobs} malformed jobs: {aside} set aside, {len(sentinel.RUNG)} run; {len(done)} of {good} good jobs done; "
        f"{time.perf_counter() - start:.0f} s, memory grew by {grown:.1f} MB after the first {BLOCK}"
    )
    if aside != jobs or sentinel.RUNG or len(done) != good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
