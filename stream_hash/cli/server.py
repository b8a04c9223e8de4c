"""up, down: the embedded server, its hash workers and its trainer."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from stream_hash.cli.options import data_dir_option, json_option, opened
from stream_hash.cli.output import json_line, line, note, progress
from stream_hash.environment import Environment, read_environment
from stream_hash.errors import UsageError
from stream_hash.service.connections import data_dir_words
from stream_hash.storage.connection import connect
from stream_hash.storage.server import EmbeddedServer, ServerStatus
from workers.detached import Fleet, FleetStatus


@click.command(short_help="Start the embedded server, hash workers and a trainer.")
@click.option("--workers", type=click.IntRange(0, 256), default=2, show_default=True, help="Worker processes.")
@click.option("--trainer/--no-trainer", default=True, show_default=True, help="Whether to learn from labels, too.")
@data_dir_option
@click.option("--broker-url", help="Server of the queue, if it is another one.")
@json_option
@click.pass_context
def up(
    ctx: click.Context, workers: int, trainer: bool, data_dir: Path | None, broker_url: str | None, as_json: bool
) -> None:
    """Start the embedded server, hash workers and a trainer, which then run until `stream-hash down`.

    They belong to the data directory: what runs there already is left as it is. With --workers 0 there is the
    server alone.

    \b
    Example:
      stream-hash up --workers 4
    """
    environment = embedded_environment(broker_url=broker_url, data_dir=data_dir)
    server, fleet = start(environment, workers, trainer=trainer)
    running, trainers = (fleet.processes, fleet.trainers) if fleet else (0, 0)
    if running != workers and ctx.get_parameter_source("workers") == ParameterSource.COMMANDLINE:
        where = data_dir_words(environment)
        again = f"stream-hash down{where} && stream-hash up{where} --workers {workers}"
        note(f"{running} workers run already; to have {workers}: {again}")
    if as_json:
        json_line(
            {
                "url": server.url,
                "pid": server.pid,
                "engine": server.engine,
                "version": server.version,
                "directory": str(server.directory),
                "workers": running,
                "trainers": trainers,
                "supervisor": fleet.pid if fleet else None,
            }
        )
        return
    line(f"server   {server.url} (pid {server.pid}, {server.engine} {server.version})")
    also = f" and a trainer (supervisor's pid {fleet.pid})" if trainers and fleet else ""
    line(f"workers  {running}" + (also or (f" (supervisor's pid {fleet.pid})" if fleet else "")))


def embedded_environment(*, data_dir: Path | None, broker_url: str | None = None) -> Environment:
    """The environment when it means the embedded server. Raises UsageError when it names another one."""
    environment = read_environment(broker_url=broker_url, data_dir=data_dir)
    if environment.url is not None:
        raise UsageError(
            f"a server is configured by {environment.url_source}",
            why="the embedded server would be started, and other commands would not use it",
            remedy=f"stream-hash worker, to work for that server; or leave out {environment.url_source}",
        )
    return environment


def start(environment: Environment, workers: int, *, trainer: bool) -> tuple[ServerStatus, FleetStatus | None]:
    """Have the server of a data directory and its workers running, and the workers at work."""
    with progress("starting the server") as show:
        if environment.broker_url:
            connect(environment.broker_url).close()  # or the workers would begin, and fail, and begin again
        server = EmbeddedServer(environment.data_dir).start()
        fleet = Fleet(environment.data_dir)
        status = fleet.status()
        if workers and status is None:
            show(f"starting {workers} workers")
            status = fleet.start(workers, server.url, environment.broker_url, trainers=int(trainer))
        if status:
            fleet.wait_until_working(opened(environment).broker, status.processes, trainers=status.trainers)
    return server, status


@click.command(short_help="Stop the embedded server and its workers.")
@data_dir_option
@json_option
def down(data_dir: Path | None, as_json: bool) -> None:
    """Stop the hash workers and the trainer, which finish what they are doing, and then the embedded server.

    What was accepted and not yet hashed is kept in the data directory.

    \b
    Example:
      stream-hash down
    """
    directory = read_environment(data_dir=data_dir).data_dir
    with progress("stopping the workers") as show:
        workers = Fleet(directory).stop()
        show("stopping the server")
        server = EmbeddedServer(directory).stop()
    if as_json:
        json_line({"server": server, "workers": workers})
    elif not server and not workers:
        line(f"nothing runs in {directory}")
    else:
        stopped = [what for what, was in (("workers", workers), ("server", server)) if was]
        line(f"stopped {' and '.join(stopped)}")
