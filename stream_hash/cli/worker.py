"""worker, trainer: the processes that do the work, in the foreground."""

from __future__ import annotations

import click

from stream_hash.cli.options import log_options, server_options, throttle_option
from stream_hash.environment import Environment
from stream_hash.queue.arguments import LEARNERS
from stream_hash.service.connections import embedded_url
from stream_hash.storage.urls import refuse_password
from workers import hash_worker, trainer_worker
from workers.command import BROKER_URL_VARIABLE, URL_VARIABLE


@click.command(short_help="Run hash workers in the foreground.")
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Worker processes.")
@log_options
@server_options
def worker(environment: Environment, processes: int) -> int:
    """Run hash workers until SIGTERM or Ctrl-C; they finish the batch in hand and leave, with exit code 0.

    With more than one process a supervisor starts each again that ends. Give a URL with a password by
    STREAM_HASH_URL: everybody on the machine can read a command line, and one on it is refused.

    \b
    Example:
      STREAM_HASH_URL=redis://db:6379 stream-hash worker --processes 4
    """
    url = _url(environment)
    return hash_worker.run(url, environment.broker_url, processes=processes)


@click.command(short_help="Run a trainer in the foreground.")
@click.option(
    "--interval",
    type=click.FloatRange(min=1),
    default=trainer_worker.INTERVAL_SECONDS,
    show_default=True,
    help="Seconds after which an index with new labels is trained.",
)
@click.option(
    "--labels",
    type=click.IntRange(min=1),
    default=trainer_worker.LABELS,
    show_default=True,
    help="New labels after which it is trained sooner.",
)
@click.option(
    "--learner", type=click.Choice(LEARNERS), default="pa", show_default=True, help="How its bits are learned."
)
@throttle_option
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Trainer processes.")
@log_options
@server_options
def trainer(
    environment: Environment, interval: float, labels: int, learner: str, throttle: float, processes: int
) -> int:
    """Learn better hash functions from the labels that arrive, and re-index, until SIGTERM or Ctrl-C.

    Several trainers are harmless: one at a time works on an index, and another goes on where one was killed. The
    re-indexing itself is done by the hash workers. Give a URL with a password by STREAM_HASH_URL.

    \b
    Example:
      STREAM_HASH_URL=redis://db:6379 stream-hash trainer --interval 60
    """
    url = _url(environment)
    return trainer_worker.run(
        url,
        environment.broker_url,
        interval_seconds=interval,
        labels=labels,
        learner=learner,
        throttle=throttle,
        processes=processes,
    )


def _url(environment: Environment) -> str:
    """The server's URL, for a process that runs long. Raises UsageError when its password could be read."""
    if environment.url_source == "--url":
        refuse_password(environment.url, URL_VARIABLE)
    if environment.broker_url_source == "--broker-url":
        refuse_password(environment.broker_url, BROKER_URL_VARIABLE)
    return environment.url or embedded_url(environment)
