"""SIGKILL and SIGSTOP at random moments to every process of a deployment that takes a stream and answers queries.

tests/faults/chaos_world.py has the deployment, and says what has to be true when all is calm again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import progress, table
from tests.faults.chaos_world import WEIGHTS, ChaosWorld

SLOWEST_SECONDS = 120.0
"""A batch takes no longer than that to be applied or to become a dead letter, whoever is killed over it."""

LOG_LINES = 60


def measure(kills: int, *, pause_seconds: float, stops: float, short_leases: bool, seed: int) -> dict[str, Any]:
    """One deployment under so many kills. pause_seconds : between two blows, in the mean."""
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        with ChaosWorld(Path(folder), short_leases=short_leases, seed=seed) as world:
            failure = ""
            try:
                for start in range(0, kills, 50):
                    world.strike(min(50, kills - start), pause_seconds=pause_seconds, stops=stops)
                    progress(f"{min(start + 50, kills):,} of {kills:,} kills")
            except TimeoutError as error:
                failure = str(error)
            settled = world.settle().figures()
        if failure:
            settled["violations"].append(failure)
        log = (Path(folder) / "fleet.log").read_text(errors="replace").splitlines()[-LOG_LINES:]
    in_order = (
        not settled["violations"]
        and not settled["failed_queries"]
        and not settled["dead_letters"]
        and settled["slowest_seconds"] <= SLOWEST_SECONDS
        and min(settled["batches"], settled["queries"]) > 0  # where nothing is done nothing goes wrong
    )
    result = {"leases": "shortened" if short_leases else "as deployed", "in_order": in_order, **settled}
    return result if in_order else {**result, "log": log}


def tables(result: dict[str, Any]) -> list[str]:
    kills, stops = result["kills"], result["stops"]
    victims = [("killed or stopped", "SIGKILL", "SIGSTOP, SIGCONT")]
    victims += [(victim, f"{kills.get(victim, 0):,}", f"{stops.get(victim, 0):,}") for victim in WEIGHTS]
    victims.append(("in all", f"{sum(kills.get(v, 0) for v in WEIGHTS):,}", f"{sum(stops.values()):,}"))
    rows = [
        (f"under these, leases {result['leases']}", "in all"),
        ("kills of workers while a generation was built", f"{kills.get('building', 0):,}"),
        ("batches accepted", f"{result['batches']:,}"),
        ("items accepted", f"{result['items']:,}"),
        ("generations that went live", f"{result['generations']:,}"),
        ("queries answered, each rightly", f"{result['queries']:,}"),
        ("queries failed while the server was up (target: 0)", f"{len(result['failed_queries']):,}"),
        ("dead letters (target: 0)", f"{result['dead_letters']:,}"),
        (f"slowest batch, seconds (target: {SLOWEST_SECONDS:g})", f"{result['slowest_seconds']:.1f}"),
        ("lost, doubled, half done (target: 0)", f"{len(result['violations']):,}"),
    ]
    told = [("violation",), *((str(violation).replace("|", "/")[:200],) for violation in result["violations"][:20])]
    return [table(victims), table(rows), *([table(told)] if result["violations"] else [])]
