"""The command line: one command a kind of fault. Each ends with 1 when anything was not in order."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from benchmarks.report import machine as machine_facts
from benchmarks.report import publish

json_option = click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output."
)
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)


def _whole(name: str, default: int, text: str, least: int = 1) -> Any:
    return click.option(name, type=click.IntRange(min=least), default=default, show_default=True, help=text)


def _publish(module: ModuleType, result: dict[str, Any], json_file: Path | None) -> None:
    result = {"machine": machine_facts(), **result}
    publish(result, module.tables(result), json_file)
    sys.exit(not result["in_order"])


@click.group()
def main() -> None:
    """Faults at length.

    Example: python -m benchmarks.chaos kills --kills 1000 --json kills.json
    """
    # Ended by its default, this process would leave servers and workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for name in ("stream_hash", "workers"):  # that a server is away, or an item is bad, is no news here
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False


@main.command()
@_whole("--kills", 1_000, "Processes killed.")
@click.option("--pause", type=click.FloatRange(min=0.01), default=1.0, show_default=True, help="Seconds, in the mean.")
@click.option("--stops", type=click.FloatRange(0, 1), default=0.2, show_default=True, help="Share of SIGSTOP.")
@click.option("--short-leases", is_flag=True, help="Leases of two seconds in the place of the deployed ones.")
@seed_option
@json_option
def kills(kills: int, pause: float, stops: float, short_leases: bool, seed: int, json_file: Path | None) -> None:
    """Kill and stop the processes of a deployment at random moments, under load."""
    from benchmarks.chaos import kills as module

    result = module.measure(kills, pause_seconds=pause, stops=stops, short_leases=short_leases, seed=seed)
    _publish(module, result, json_file)


@main.command()
@_whole("--wanted", 50, "Lost replies of each kind of call.")
@seed_option
@json_option
def replies(wanted: int, seed: int, json_file: Path | None) -> None:
    """Lose the replies to calls that the server has done."""
    from benchmarks.chaos import replies as module

    _publish(module, module.measure(wanted, seed=seed), json_file)


@main.command()
@_whole("--items", 10_000, "Bad items.")
@_whole("--jobs", 1_000, "Malformed job hashes.")
@_whole("--files", 1_000, "Hostile files, beside those that have names.", 0)
@seed_option
@json_option
def fuzz(items: int, jobs: int, files: int, seed: int, json_file: Path | None) -> None:
    """Bad items, malformed jobs and hostile files."""
    from benchmarks.chaos import fuzz as module

    _publish(module, module.measure(items, jobs, files, seed=seed), json_file)


@main.command()
@click.option("--minutes", type=click.FloatRange(min=0.2), default=30.0, show_default=True)
@click.option("--between", type=click.FloatRange(min=1), default=30.0, show_default=True, help="Faults, seconds.")
@seed_option
@json_option
def soak(minutes: float, between: float, seed: int, json_file: Path | None) -> None:
    """Ingest, query and switch generations for long, over ids that come again and again."""
    from benchmarks.chaos import soak as module

    _publish(module, module.measure(minutes, between_seconds=between, seed=seed), json_file)


@main.command()
@_whole("--items", 20_000, "In the index before its memory is bounded.")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="Of ingest.")
@json_option
def memory(items: int, seconds: float, json_file: Path | None) -> None:
    """Bound the server's memory so that it is 80, 95 and 100 % full."""
    from benchmarks.chaos import memory as module

    _publish(module, module.measure(items, seconds=seconds), json_file)


@main.command()
@_whole("--examples", 2_000, "Of orders.")
@_whole("--steps", 50, "Of an example, at most.")
@seed_option
@json_option
def machine(examples: int, steps: int, seed: int, json_file: Path | None) -> None:
    """Tell an index and a dictionary the same, in random orders."""
    from benchmarks.chaos import state_machine as module

    _publish(module, module.measure(examples, steps, seed=seed), json_file)


if __name__ == "__main__":
    main()
