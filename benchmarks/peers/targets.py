"""What was aimed at, against what was measured; where there is no aim, what else one may want to know.

LSHRS is taken at its best setting, the fastest that finds half of the ten nearest, and ours at the fastest that finds
no fewer than that. Without an aim follow LSHRS's settings that are the fastest to fill and the smallest: one might
choose it for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers.catalogue import HNSWLIB, LSHRS, OURS
from benchmarks.peers.figures import Row

HALF, MOST = 0.5, 0.9
LOOP_TARGETS = {2: 20.0, 8: 200.0}


@dataclass(frozen=True)
class Target:
    """value : None when it could not be measured; `at` then says why. aim : None when there is none.

    at_least : whether more is better.
    """

    what: str
    value: float | None
    aim: float | None
    at: str
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        if self.value is None or self.aim is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim


def targets(rows: Sequence[Row], figures: dict[str, Any]) -> list[Target]:
    """All of them. figures : of our own process, for what it measured against the loop."""
    return [*_against_lshrs(rows), *_against_loop(figures), _against_hnswlib(rows)]


def _against_lshrs(rows: Sequence[Row]) -> list[Target]:
    theirs = _of(rows, LSHRS, HALF)
    if not theirs:
        return [Target(f"queries/s, of {LSHRS}'s", None, 15.0, _lacking(rows, LSHRS, HALF))]
    fastest = max(theirs, key=lambda row: row.rate)
    mine = max(_of(rows, OURS, fastest.recall), key=lambda row: row.rate, default=None)
    if mine is None:
        return [Target(f"queries/s, of {LSHRS}'s", None, 15.0, _lacking(rows, OURS, fastest.recall))]
    filled = max(theirs, key=lambda row: row.ingest or 0.0)
    smallest = min(theirs, key=lambda row: row.index_bytes)

    def ratio(
        what: str, other: Row, of: Callable[[Row], float | None], aim: float | None = None, at_least: bool = True
    ) -> Target:
        own, their = of(mine), of(other)
        return Target(what, own / their if own and their else None, aim, _at(mine, other), at_least)

    return [
        ratio(f"queries/s, of {LSHRS}'s", fastest, lambda row: row.rate, 15.0),
        ratio(f"ingest, of {LSHRS}'s", fastest, lambda row: row.ingest, 5.0),
        ratio(f"bytes an item, of {LSHRS}'s", fastest, lambda row: row.index_bytes, 0.25, at_least=False),
        ratio(f"ingest with learning, of {LSHRS}'s", fastest, lambda row: row.whole_ingest),
        ratio(f"ingest, of {LSHRS}'s fastest to fill", filled, lambda row: row.ingest),
        ratio(f"bytes an item, of {LSHRS}'s smallest", smallest, lambda row: row.index_bytes, at_least=False),
    ]


def _against_loop(figures: dict[str, Any]) -> list[Target]:
    measured = {
        against["radius"]: against for build in figures.get("builds", ()) for against in build["facts"].get("loop", ())
    }
    found = []
    for radius, aim in LOOP_TARGETS.items():
        what = f"times faster than the tutorial's loop, radius {radius}"
        against = measured.get(radius)
        if against is None:
            found.append(Target(what, None, aim, "it was not measured"))
            continue
        own, as_printed, once = (np.array(against["seconds"][name]) for name in ("own", "as_printed", "ranked_once"))
        same = f"the same candidates in each of {against['queries_compared']} queries"
        found.append(Target(what, float(np.median(as_printed / own)), aim, same))
        found.append(Target(f"{what}, ranked once", float(np.median(once / own)), None, same))
    return found


def _against_hnswlib(rows: Sequence[Row]) -> Target:
    what, aim = f"p50, of {HNSWLIB}'s, at recall@10 ≥ {MOST}", 25.0
    mine, theirs = (min(_of(rows, peer, MOST), key=lambda row: row.p50, default=None) for peer in (OURS, HNSWLIB))
    if mine is None or theirs is None:
        return Target(what, None, aim, _lacking(rows, OURS if mine is None else HNSWLIB, MOST), at_least=False)
    return Target(what, mine.p50 / theirs.p50, aim, _at(mine, theirs), at_least=False)


def _at(mine: Row, theirs: Row) -> str:
    return f"{mine.name} ({mine.recall:.2f}) : {theirs.name} ({theirs.recall:.2f})"


def _lacking(rows: Sequence[Row], peer: str, recall: float) -> str:
    measured = any(row.peer == peer for row in rows)
    return f"no setting of {peer} has recall@10 ≥ {recall:.3g}" if measured else f"{peer} was not measured"


def _of(rows: Sequence[Row], peer: str, recall: float) -> list[Row]:
    return [row for row in rows if row.peer == peer and row.recall >= recall]
