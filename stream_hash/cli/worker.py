"""worker: hash workers in the foreground."""

from __future__ import annotations

import logging
import sys

import click

from stream_hash.cli.options import server_options
from stream_hash.environment import Environment
from stream_hash.service.connections import embedded_url
from stream_hash.storage.urls import refuse_password
from workers import hash_worker


@click.command(short_help="Run hash workers in the foreground.")
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Worker processes.")
@server_options
def worker(environment: Environment, processes: int) -> int:
    """Run hash workers until SIGTERM or Ctrl-C; they finish the batch in hand and leave, with exit code 0.

    With more than one process a supervisor starts each again that ends. Give a URL with a password by
    STREAM_HASH_URL: everybody on the machine can read a command line, and one on it is refused.

    \b
    Example:
      STREAM_HASH_URL=redis://db:6379 stream-hash worker --processes 4
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    if environment.url_source == "--url":
        refuse_password(environment.url, hash_worker.URL_VARIABLE)
    if environment.broker_url_source == "--broker-url":
        refuse_password(environment.broker_url, hash_worker.BROKER_URL_VARIABLE)
    url = environment.url or embedded_url(environment)
    return hash_worker.run(url, environment.broker_url, processes=processes)
