"""What the commands that start workers share: their URLs, their supervisor, and how they tell what went wrong.

A URL with a password comes from the environment (stream_hash/environment.py) and never from the command line,
since everybody on the machine can read a process's arguments. Child processes get their URLs that way too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

import click

from stream_hash import logs
from stream_hash.environment import handed_over, read_logging
from stream_hash.errors import StreamHashError
from stream_hash.storage.urls import refuse_password
from workers.supervisor import Supervisor

URL_VARIABLE: Final = "STREAM_HASH_URL"
BROKER_URL_VARIABLE: Final = "STREAM_HASH_BROKER_URL"


def supervise(command: Sequence[str], processes: int, url: str | None, broker_url: str | None) -> int:
    """Keep `processes` children alive that run `command`, a module and its arguments. Returns the exit code."""
    from stream_hash.service.connections import Connections

    # A server that cannot be used is told once, with exit code 4, and not by children that fail again and again.
    connections = Connections.open(url, broker_url)
    for client in (connections.client, connections.broker):
        client.close()
    environment = handed_over(url, broker_url) | logs.variables()
    # The children run this code, not a package `workers` in the directory somebody happens to be in.
    ours = str(Path(__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
    return Supervisor([sys.executable, "-P", "-m", *command], processes, environment=environment).run()


def leave_with(run: Callable[[], int], url: str | None, broker_url: str | None) -> NoReturn:
    """Run a worker given these arguments of the command line, and leave with its exit code."""
    try:
        chosen = read_logging()
        logs.configure(chosen.format, chosen.level)
        for variable, value in ((URL_VARIABLE, url), (BROKER_URL_VARIABLE, broker_url)):
            refuse_password(value, variable)
        code = run()
    except StreamHashError as error:
        click.echo(f"Error: {error}\n  why: {error.why}\n  fix: {error.remedy}", err=True)
        code = error.exit_code
    sys.exit(code)
