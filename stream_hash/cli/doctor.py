"""doctor: what is wrong, and what mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

import click

from stream_hash.cli.options import json_option, opened, server_options
from stream_hash.cli.output import json_line, line, printable
from stream_hash.clock import now_milliseconds
from stream_hash.environment import Environment
from stream_hash.service.doctor import ERROR, OK, WARNING, Finding, Kind, examine, is_alive_here
from stream_hash.service.dropping import droppable
from stream_hash.storage.connection import redis_errors

LEVELS: Final = (ERROR, WARNING, OK)


@click.command(short_help="Tell what is wrong, and what mends it.")
@click.argument("names", metavar="[INDEX]...", nargs=-1)
@click.option("--verify", is_flag=True, help="Check every invariant of the indexes, not only their counts.")
@click.option("--quiet", is_flag=True, help="Print only what is wrong.")
@click.option(
    "--here",
    type=click.Choice(["worker", "trainer"]),
    help="Ask only whether such a process of this host is alive: a container's health check.",
)
@json_option
@server_options
def doctor(
    environment: Environment, names: tuple[str, ...], verify: bool, quiet: bool, here: Kind | None, as_json: bool
) -> int:
    """Tell what is wrong with the server, the workers and the indexes (all, or those named), and what mends it.

    Nothing is changed. Exit code 0 when there are no errors, warnings or not, 1 when there are, 4 when no server
    answers.

    \b
    Example:
      stream-hash doctor
      stream-hash doctor photos --verify
      stream-hash doctor --quiet --here worker
    """
    if here is not None and (names or verify):
        raise click.UsageError("--here goes without INDEX and --verify.")
    connections = opened(environment, checked=False)
    with redis_errors():
        found: Iterable[Finding]
        if here is not None:
            found = [is_alive_here(connections.broker, here, now_milliseconds())]
        else:
            for name in names:
                droppable(connections.client, name)  # whether there is one
            found = examine(
                connections,
                names=names or None,
                verify=verify,
                broker_apart=environment.broker_url is not None,
                now_milliseconds=now_milliseconds(),
            )
        counts: Counter[str] = Counter()
        for finding in found:
            counts[finding.level] += 1
            if finding.level != OK or not quiet:
                _print(finding, as_json)
    if not quiet and not as_json:
        line(", ".join(f"{counts[level]} {level}{'s' * (level != OK and counts[level] != 1)}" for level in LEVELS))
    return 1 if counts[ERROR] else 0


def _print(finding: Finding, as_json: bool) -> None:
    if as_json:
        json_line(asdict(finding))
        return
    line(f"{finding.level.ljust(7)}  {printable(finding.subject)}: {finding.check}: {printable(finding.finding)}")
    if finding.fix:
        line(f"         fix: {printable(finding.fix)}")
