"""The figures as tables: one row a setting, who was absent and why, and the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.figures import Row
from benchmarks.peers.targets import Target
from benchmarks.report import table

VERDICTS = {True: "met", False: "missed", None: "not measured"}


def settings_table(rows: Sequence[Row], processes: int) -> str:
    """Every setting of every peer, in the order in which they ran."""
    several = str(processes)
    heading = (
        "peer",
        "setting",
        "recall@10",
        "P@10",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "queries/s, 1 process",
        f"{several} processes",
        "ingest/s",
        "learning s",
        "bytes an item",
        "queries",
    )
    body = [
        (
            row.peer,
            row.name,
            f"{row.recall:.3f}",
            f"{row.precision:.3f}",
            f"{row.p50:.2f}",
            f"{row.p95:.2f}",
            f"{row.p99:.2f}",
            f"{row.rate:,.0f}",
            f"{row.rates[several]:,.0f}",
            "" if row.ingest is None else f"{row.ingest:,.0f}",
            f"{row.learning:.1f}" if row.learning else "",
            f"{row.index_bytes:,.0f}",
            f"{row.queries:,}",
        )
        for row in rows
    ]
    return table([heading, *body])


def peers_table(figures: dict[str, dict[str, Any]]) -> str:
    """Versions and what to know of each peer, or why it is absent or has failed."""
    rows = [("peer", "version", "to know")]
    for name, of_peer in figures.items():
        if "builds" in of_peer:
            versions = ", ".join(f"{distribution} {number}" for distribution, number in of_peer["versions"].items())
            rows.append((name, versions, of_peer["note"]))
        else:
            rows += [(name, kind, why) for kind, why in of_peer.items()]
    return table(rows)


def targets_table(targets: Sequence[Target]) -> str:
    """Value, aim and verdict of each."""
    rows = [("target", "measured", "aim", "", "at (recall@10)")]
    rows += [
        (
            target.what,
            "" if target.value is None else f"{target.value:.3g}",
            "" if target.aim is None else f"{'≥' if target.at_least else '≤'} {target.aim:g}",
            "" if target.aim is None else VERDICTS[target.met],
            target.at,
        )
        for target in targets
    ]
    return table(rows)
