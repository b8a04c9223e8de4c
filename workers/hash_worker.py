"""The hash worker: `python -m workers.hash_worker`, one process or several.

A URL with a password comes from the environment (stream_hash/environment.py) and never from the command line,
since everybody on the machine can read a process's arguments. Child processes get their URLs that way too.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from stream_hash.errors import StreamHashError
from stream_hash.queue import HASH_QUEUE
from stream_hash.storage.urls import refuse_password
from workers.supervisor import Supervisor, leave_with_supervisor

URL_VARIABLE = "STREAM_HASH_URL"
BROKER_URL_VARIABLE = "STREAM_HASH_BROKER_URL"


def run(url: str | None = None, broker_url: str | None = None, *, processes: int = 1) -> int:
    """Hash batches until told to stop. Returns the exit code. Raises StreamHashError.

    url : of the index's server or cluster. broker_url : of the queue's, when that is another one.
    """
    if processes > 1:
        given = {URL_VARIABLE: url, BROKER_URL_VARIABLE: broker_url}
        environment = {name: value for name, value in given.items() if value}
        # The children run this code, not a package `workers` in the directory somebody happens to be in.
        ours = str(Path(__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-P", "-m", "workers.hash_worker"]
        return Supervisor(command, processes, environment=environment).run()

    # Not needed by a supervisor, and half a second of imports.
    from stream_hash.jobs import FUNCTIONS
    from stream_hash.service.context import open_context
    from workers.base import StreamWorker
    from workers.tuning import tune

    tune()
    leave_with_supervisor()
    context = open_context(url, broker_url)
    worker = StreamWorker(
        HASH_QUEUE, context.broker, functions=FUNCTIONS, context=context, on_maintenance=context.sweep
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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        for variable, value in ((URL_VARIABLE, url), (BROKER_URL_VARIABLE, broker_url)):
            refuse_password(value, variable)
        code = run(url, broker_url, processes=processes)
    except StreamHashError as error:
        click.echo(f"Error: {error}\n  why: {error.why}\n  fix: {error.remedy}", err=True)
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
