"""What each peer's best settings are: recall@10 against p50, and against bytes an item. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.peers.catalogue import CATALOGUE, OURS
from benchmarks.peers.figures import Row

STYLE = {"svg.hashsalt": "stream-hash", "svg.fonttype": "none", "font.size": 10}
"""The same figures give the same file."""

LEAST_BYTES = 1.0
"""Where an index of no bytes is drawn: the axis is logarithmic."""


def pareto(rows: Sequence[Row], cost: Callable[[Row], float]) -> list[Row]:
    """The rows that no other beats in both recall and cost, cheapest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (cost(row), -row.recall)):
        if not front or row.recall > front[-1].recall:
            front.append(row)
    return front


def draw(rows: Sequence[Row], path: Path) -> None:
    """One file of two panels, PNG or SVG by its name: all settings as dots, the best of each peer joined."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 5), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, sharey=True)
        _panel(left, rows, lambda row: row.p50, "p50 of a query, ms; one process")
        _panel(right, rows, lambda row: max(row.index_bytes, LEAST_BYTES), "bytes an item, vectors apart")
        left.set_ylabel("recall@10")
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize="small")
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=metadata)


def _panel(axes: Any, rows: Sequence[Row], cost: Callable[[Row], float], name: str) -> None:
    for peer, group in groupby(rows, key=lambda row: row.peer):
        own = list(group)
        colour = f"C{list(CATALOGUE).index(peer)}"
        front = pareto(own, cost)
        weight = 2.5 if peer == OURS else 1.2
        axes.scatter([cost(row) for row in own], [row.recall for row in own], s=8, color=colour, alpha=0.4)
        axes.plot(
            [cost(row) for row in front],
            [row.recall for row in front],
            marker="o" if CATALOGUE[peer].on_server else "s",
            markersize=4,
            linewidth=weight,
            linestyle="-" if CATALOGUE[peer].on_server else ":",
            color=colour,
            label=f"{peer}{' (server)' if CATALOGUE[peer].on_server else ''}",
        )
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(name)
    axes.grid(alpha=0.3)
