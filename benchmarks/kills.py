"""Real kills: SIGKILL of a trainer, a hash worker and the server, each at its points, in a small deployment.

Each point has a deployment of its own (tests/faults/killed_world.py): a process is killed there, nothing helps but
what helps in production, and all has to come to its end: what was asked for is live, what streamed in is there, once
and findable, queries were answered all along, and `verify` finds nothing.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.report import machine, progress, publish, table
from tests.faults.kill_points import POINTS
from tests.faults.killed_world import World
from tests.faults.killing import Point

VICTIMS = ("trainer", "hasher", "server")


def measure(points: list[Point], *, as_deployed: bool = False) -> dict[str, Any]:
    """All figures of this benchmark."""
    rows = []
    for number, point in enumerate(points, 1):
        progress(f"{number} of {len(points)}: {point.key}")
        rows.append(_row(point, {"KILLS_AS_DEPLOYED": "1"} if as_deployed else {}))
        if not rows[-1]["in_order"]:
            progress(f"not in order: {rows[-1]}")
    return {"machine": machine(), "leases": "as deployed" if as_deployed else "shortened", "points": rows}


def _row(point: Point, environment: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"victim": point.victim, "point": point.name, "reached": False, "seconds": 0.0}
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        try:
            with World(Path(folder), environment) as world:
                outcome = world.suffer(point)
            row |= {"reached": outcome.reached, "seconds": outcome.seconds, "violations": outcome.violations}
        except Exception as error:  # noqa: BLE001 - whatever it is, the other points are still to be measured
            row["violations"] = [f"{type(error).__name__}: {error}"]
        log = Path(folder) / "fleet.log"
        if row["violations"] and log.exists():
            row["log"] = log.read_text(errors="replace").splitlines()[-40:]
    return row | {"in_order": row["reached"] and not row["violations"]}


def _tables(result: dict[str, Any]) -> list[str]:
    heading = ("killed", "point", "reached", "seconds until all is in order", "violations (target: 0)")
    rows = [
        (row["victim"], row["point"], "yes" if row["reached"] else "no", f"{row['seconds']:.1f}", _told(row))
        for row in result["points"]
    ]
    return [table([heading, *rows])]


def _told(row: dict[str, Any]) -> str:
    wrong = row["violations"]
    return f"{len(wrong)}: {wrong[0]}".replace("\n", " ").replace("|", "/")[:200] if wrong else "0"


@click.command()
@click.option("--victim", type=click.Choice(VICTIMS), help="Kill only this one.")
@click.option("--point", help="Only at points whose names have this in them.")
@click.option("--as-deployed", is_flag=True, help="Leases and intervals as they are deployed: a kill costs a minute.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(victim: str | None, point: str | None, as_deployed: bool, json_file: Path | None) -> None:
    """Kill real processes at sixty points, and see whether all comes to its end by itself.

    Example: python -m benchmarks.kills --victim trainer --point publish
    """
    chosen = [one for one in POINTS if victim in (None, one.victim) and (point or "") in one.name]
    if not chosen:
        raise click.UsageError(f"no point has {point!r} in its name")
    logging.getLogger("stream_hash").addHandler(logging.NullHandler())  # that the server is away is no news here
    result = measure(chosen, as_deployed=as_deployed)
    publish(result, _tables(result), json_file)
    sys.exit(not all(row["in_order"] for row in result["points"]))


if __name__ == "__main__":
    main()
