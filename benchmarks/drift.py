"""Drift: does the prequential series recover when classes arrive, or one changes its look; with retraining and without.

The figure is the service's own: precision@10 of each arriving labelled item as a query before it is stored. What a new
class can reach depends on how many of its items are stored, which are few at first under any model; so a series is
compared with the reference's (drift_runs.py), item by item, at that very moment. A series has *recovered* after n
labels of a class if the mean over the class's last WINDOW items is SHARE of the reference's mean over the same items,
and so is the mean over all that come after them, to the end of the phase. A single crossing by luck does not count.

Why these: figures of items vary by .25 to .3, so the means of two models over fewer items than WINDOW differ by
several hundredths by luck, which is as much as SHARE allows for a class that is found badly. What the measure asks for,
the twin says: learned from as many other labels as the reference, it is as good a model. On seeds 0 and 1, where WINDOW
and SHARE were settled before the reported seeds were run, the twin passed in all ten changes, the kept model in none.

"Without retraining" is the learned model of the first classes, kept. Some of its bits are not learned from classes
and divide the new ones as well as any; so it may keep up, and where it does the table says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import load_dataset
from benchmarks.drift_runs import KINDS, Series, run
from benchmarks.drift_stream import Drifting, Phase, drifting
from benchmarks.report import machine, progress, publish, table

WINDOW = 100
SHARE = 0.9
LIMIT = 300
LATE = slice(200, LIMIT)
"""Labels of a class over which means are shown."""

MEASURED = KINDS[:3]
"""What is compared with the reference."""


def recovered(found: NDArray[np.float64], reference: NDArray[np.float64]) -> int | None:
    """After how many items of the class the series had recovered; None if it never did. Both (n,), NaN left out."""
    both = ~(np.isnan(found) | np.isnan(reference))
    for count in range(WINDOW, len(found) + 1):
        before, after = np.zeros(len(found), dtype=np.bool_), np.zeros(len(found), dtype=np.bool_)
        before[count - WINDOW : count] = after[count:] = True
        if all(
            found[part & both].mean() >= SHARE * reference[part & both].mean()
            for part in (before, after)
            if (part & both).any()
        ):
            return count
    return None


def rows_of(seed: int, stream: Drifting, series: dict[str, Series]) -> list[dict[str, Any]]:
    """A row for each phase. late : (mean, standard error) of the items in LATE that all series have figures of."""
    rows = []
    for phase in stream.phases:
        figures = {kind: series[kind].figures[phase.rows[phase.own]] for kind in KINDS}
        until = {kind: recovered(figures[kind], figures["reference"]) for kind in MEASURED}
        known = ~np.isnan(np.stack([one[LATE] for one in figures.values()])).any(axis=0)
        late = {kind: one[LATE][known].tolist() for kind, one in figures.items()}
        rows.append({"seed": seed, "phase": phase.name, "recovered": until, "late": late})
    return rows


def mean_of(figures: Sequence[float]) -> str:
    """The mean and its standard error."""
    if len(figures) < 2:
        return "-"
    return f"{np.mean(figures):.3f} ± {np.std(figures, ddof=1) / len(figures) ** 0.5:.3f}"


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """When each series recovered, its means, and how many recovered in time."""
    until: list[tuple[str, ...]] = [("seed", "what comes", *MEASURED)]
    late: list[tuple[str, ...]] = [("seed", "what comes", *KINDS)]
    for row in rows:
        head = str(row["seed"]), row["phase"]
        until.append((*head, *(str(row["recovered"][kind] or "never") for kind in MEASURED)))
        late.append((*head, *(mean_of(row["late"][kind]) for kind in KINDS)))
    count = [sum((row["recovered"][kind] or LIMIT + 1) <= LIMIT for row in rows) for kind in MEASURED]
    until.append(("", f"within {LIMIT} labels, of {len(rows)}", *map(str, count)))
    late.append(("all", "", *(mean_of([one for row in rows for one in row["late"][kind]]) for kind in KINDS)))
    less = [mean_of([a - b for row in rows for a, b in zip(*_pair(row, kind), strict=True)]) for kind in MEASURED]
    late.append(("all", "less the reference's", *less, "-"))
    heads = "Labels until recovered:", f"precision@10 over labels {LATE.start} to {LATE.stop} of a class:"
    return f"{heads[0]}\n\n{table(until)}\n\n{heads[1]}\n\n{table(late)}"


def _pair(row: dict[str, Any], kind: str) -> tuple[list[float], list[float]]:
    return row["late"][kind], row["late"]["reference"]


def trail(phase: Phase, figures: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last WINDOW figures of the phase's own class, at each of them."""
    own = figures[phase.rows[phase.own]]
    parts = [own[max(0, at - WINDOW + 1) : at + 1] for at in range(len(own))]
    return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in parts])


def draw(path: Path, stream: Drifting, series: dict[str, Series]) -> None:
    """The series of one stream, phase by phase, into a PNG or SVG file."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(stream.phases), figsize=(3 * len(stream.phases), 3), sharey=True)
    for axis, phase in zip(np.atleast_1d(axes), stream.phases, strict=True):
        for kind, style in zip(KINDS, ("-", "--", "-.", ":"), strict=True):
            axis.plot(trail(phase, series[kind].figures), style, label=kind)
        own = phase.rows[phase.own]
        for row, _ in series["retrained"].switches[1:]:
            if own[0] <= row <= own[-1]:
                axis.axvline(int(np.searchsorted(own, row)), color="0.8", zorder=0)
        axis.set(title=phase.name, xlabel="labels of it")
    axes[0].set_ylabel(f"precision@10, mean of the last {WINDOW}")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path)


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--seed", "seeds", type=int, multiple=True, default=(11, 12, 13), show_default=True)
@click.option("--start", type=click.IntRange(min=20), default=500, show_default=True, help="Items of a first class.")
@click.option("--length", type=click.IntRange(min=20), default=450, show_default=True, help="Of a later one.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="PNG or SVG, of the first seed.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(
    data: Path | None, seeds: tuple[int, ...], start: int, length: int, plot: Path | None, json_file: Path | None
) -> None:
    """Classes arrive and one changes its look: the live series with retraining, without, and a reference."""
    content = load_dataset(data)
    rows: list[dict[str, Any]] = []
    training: list[dict[str, Any]] = []
    for at, seed in enumerate(seeds):
        stream = drifting(content.items, content.labels, start, length, np.random.default_rng(seed))
        series = {}
        for kind in KINDS:
            progress(f"seed {seed}: {kind}")
            series[kind] = run(kind, stream)
        rows += rows_of(seed, stream, series)
        training += [{"seed": seed} | asdict(one) for one in series["retrained"].training]
        if plot is not None and at == 0:
            draw(plot, stream, series)
    runs = [("seed", "runs", "live", "asked by new classes")]
    for seed in seeds:
        own = [one for one in training if one["seed"] == seed]
        asked = sum("barely knows" in one["asked"] for one in own)
        runs.append((str(seed), str(len(own)), str(sum(one["decision"] == "live" for one in own)), str(asked)))
    result = {"machine": machine(), "data": content.source, "start": start, "length": length}
    result |= {"phases": rows, "training": training}
    publish(result, (shown(rows), table(runs)), json_file)


if __name__ == "__main__":
    main()
