"""The curves of `evaluate --plot` and `demo --plot`, drawn with matplotlib: an extra, asked for before anything is
measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stream_hash.errors import StreamHashError, UsageError
from stream_hash.numerics.summary import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from stream_hash.cli.rising import Point

SUFFIXES: Final = (".png", ".svg")
METADATA: Final[dict[str, dict[str, Any]]] = {".svg": {"Date": None}, ".png": {"Software": None}}
"""The same figures give the same file."""


def check(path: Path) -> None:
    """Raises UsageError for a suffix that is not known, StreamHashError when matplotlib is not installed."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--plot {path}", why=f"the name must end in {' or '.join(SUFFIXES)}", remedy="choose another name"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise StreamHashError(
            "--plot needs matplotlib",
            why="it is an extra, and not installed",
            remedy="pip install 'stream-hash[plot]'",
        )


def draw(path: Path, rows: Sequence[Row], k: int) -> None:
    """Write the picture: precision against radius, candidates and time, and mAP against bits.

    Raises StreamHashError when the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "stream-hash", "svg.fonttype": "none"}):
        figure = Figure(figsize=(11, 8), layout="constrained")
        by_radius, by_candidates, by_time, by_bits = figure.subplots(2, 2).flat
        exact = next((row for row in rows if row.what.plan == "exact"), None)
        _lines(by_radius, rows, "radius", lambda row: float(row.what.at or 0), "precision_at_k")
        _lines(by_candidates, rows, "radius", lambda row: row.means["candidates"], "precision_at_k")
        _lines(by_candidates, rows, "budget", lambda row: row.means["candidates"], "precision_at_k", dashed=True)
        _lines(by_time, rows, "radius", lambda row: float(row.what.at or 0), "milliseconds")
        _ranking(by_bits, rows)
        if exact is not None:
            for axes in (by_radius, by_candidates):
                axes.axhline(exact.means["precision_at_k"], color="grey", linestyle=":", label="exact search")
            by_time.axhline(exact.means["milliseconds"], color="grey", linestyle=":", label="exact search")
        by_candidates.set_xscale("symlog", linthresh=1)  # a radius may find nothing
        by_candidates.set_xlim(left=0)
        by_time.set_yscale("log")
        for axes, x, y in (
            (by_radius, "Hamming radius", f"precision@{k}"),
            (by_candidates, "mean candidates (dashed: by budget)", f"precision@{k}"),
            (by_time, "Hamming radius", "mean query time, ms"),
            (by_bits, "bits", "mAP of the Hamming ranking"),
        ):
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.grid(alpha=0.3)
        by_radius.legend(fontsize="small")
        _save(figure, path)


def draw_rising(path: Path, points: Sequence[Point], title: str) -> None:
    """Write the picture: precision against items streamed in, a line down at each training whose model went live.

    Raises StreamHashError when the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "stream-hash", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        items = [point.items for point in points]
        axes.plot(items, [point.exact for point in points], color="grey", linestyle=":", label="exact search")
        axes.plot(items, [point.precision for point in points], color="C0", marker="o", label="the live index")
        axes.plot(items, [point.untrained for point in points], color="C1", linestyle="--", label="without learning")
        for point in points:
            if point.run and point.run["generation"]:
                axes.axvline(point.items, color="C2", alpha=0.5)
                axes.text(point.items, 0.02, f" generation {point.generation} ", color="C2", ha="right", fontsize=8)
        axes.set(xlabel="labelled items streamed in", ylabel="precision@10", ylim=(0, 1.02), title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="center left")
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, metadata=METADATA[path.suffix.lower()])
    except OSError as error:
        raise StreamHashError(f"{path} cannot be written", why=str(error), remedy="choose another --plot") from error


def _lines(
    axes: Axes, rows: Sequence[Row], plan: str, x_of: Callable[[Row], float], measure: str, *, dashed: bool = False
) -> None:
    """A line for each method and length of code; a colour for each of these, in all panels the same."""
    curves = list(dict.fromkeys((row.what.method, row.what.bits) for row in rows if row.what.bits is not None))
    for at, (method, bits) in enumerate(curves):
        own = [row for row in rows if (row.what.method, row.what.bits, row.what.plan) == (method, bits, plan)]
        axes.errorbar(
            [x_of(row) for row in own],
            [row.means[measure] for row in own],
            yerr=[row.errors[measure] for row in own] if measure == "precision_at_k" else None,
            color=f"C{at}",
            linestyle="--" if dashed else "-",
            marker="." if dashed else "o",
            markersize=4,
            capsize=2,
            label=f"{method}, {bits} bits",
        )


def _ranking(axes: Axes, rows: Sequence[Row]) -> None:
    """mAP against bits, a line a method. An index makes no Hamming ranking: the panel then says so."""
    ranked = [row for row in rows if row.what.plan == "ranking"]
    if not ranked:
        axes.text(0.5, 0.5, "not measured over an index", ha="center", transform=axes.transAxes)
    for method in dict.fromkeys(row.what.method for row in ranked):
        own = [row for row in ranked if row.what.method == method]
        axes.errorbar(
            [float(row.what.bits or 0) for row in own],
            [row.means["mean_average_precision"] for row in own],
            yerr=[row.errors["mean_average_precision"] for row in own],
            marker="o",
            markersize=4,
            capsize=2,
            label=method,
        )
    if ranked:
        axes.set_xticks(sorted({row.what.bits or 0 for row in ranked}))
        axes.legend(fontsize="small")
