"""The hash worker: `python -m workers.hash_worker`, one process or several."""

from __future__ import annotations

import click

from stream_hash.queue import HASH_QUEUE
from workers.command import leave_with, supervise
from workers.supervisor import leave_with_supervisor


def run(url: str | None = None, broker_url: str | None = None, *, processes: int = 1) -> int:
    """Hash batches until told to stop. Returns the exit code. Raises StreamHashError.

    url : of the index's server or cluster. broker_url : of the queue's, when that is another one.
    """
    if processes > 1:
        return supervise(["workers.hash_worker"], processes, url, broker_url)

    # Not needed by a supervisor, and half a second of imports.
    from stream_hash.jobs import FUNCTIONS, apply_overdue
    from stream_hash.service.context import open_context
    from workers.base import StreamWorker
    from workers.tuning import tune

    tune()
    leave_with_supervisor()
    context = open_context(url, broker_url)
    worker = StreamWorker(
        HASH_QUEUE,
        context.broker,
        functions=FUNCTIONS,
        context=context,
        on_maintenance=context.sweep,
        on_memory_out=lambda: apply_overdue(context),
    )
    worker.work()
    return 0


@click.command()
@click.option("--url", help="Server or cluster of the index, without a password.")
@click.option("--broker-url", help="Server of the queue, if it is another one.")
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True)
def main(url: str | None, broker_url: str | None, processes: int) -> None:
    """Hash the batches that producers accept, until SIGTERM.

    Example: STREAM_HASH_URL=redis://:secret@db:6379 python -m workers.hash_worker --processes 4
    """
    leave_with(lambda: run(url, broker_url, processes=processes), url, broker_url)


if __name__ == "__main__":
    main()
