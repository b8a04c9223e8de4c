"""The command line of the comparison."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.dataset import Dataset, load_dataset
from benchmarks.peers.catalogue import CATALOGUE, NEARPY, OURS
from benchmarks.peers.figures import Row, rows_of
from benchmarks.peers.running import run
from benchmarks.peers.tables import peers_table, settings_table, targets_table
from benchmarks.peers.targets import targets
from benchmarks.peers.task import Limits, prepared
from benchmarks.report import publish


def measure(
    data: Dataset, queries: int, names: tuple[str, ...], interpreters: dict[str, str], limits: Limits
) -> tuple[dict[str, Any], list[Row], list[str]]:
    """All figures, the rows that can be drawn, and the tables."""
    task = prepared(data.items, data.training, data.queries[:queries], limits)
    facts, figures = run(task, names, interpreters)
    rows = [
        row
        for name in names
        for row in rows_of(name, figures[name], task.truth, data.labels, data.query_labels[:queries])
    ]
    aims = targets(rows, figures.get(OURS, {}))
    result = {
        "machine": facts,
        "data": data.source,
        "items": len(task.items),
        "dimension": task.items.shape[1],
        "queries": len(task.queries),
        "limits": asdict(limits),
        "peers": {name: _described(of_peer) for name, of_peer in figures.items()},
        "rows": [asdict(row) for row in rows],
        "targets": [asdict(target) | {"met": target.met} for target in aims],
    }
    tables = [
        f"{data.source}: {len(task.items):,} × {task.items.shape[1]}, {len(task.queries):,} queries; "
        f"servers filled by {limits.processes} processes",
        peers_table(figures),
        settings_table(rows, limits.processes),
        targets_table(aims),
    ]
    return result, rows, tables


def _described(figures: dict[str, Any]) -> dict[str, Any]:
    """A peer's figures without its queries one by one."""
    if "builds" not in figures:
        return figures
    return {
        "versions": figures["versions"],
        "note": figures["note"],
        "facts": {build["name"]: build["facts"] for build in figures["builds"] if build["facts"]},
    }


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--items", type=click.IntRange(min=1), help="Only the first of the database.")
@click.option("--queries", type=click.IntRange(min=1), default=1_000, show_default=True)
@click.option("--peer", "names", type=click.Choice(list(CATALOGUE)), multiple=True, help="Only these.")
@click.option("--nearpy-python", help="The interpreter of an environment that has NearPy, numpy<2, scipy and redis.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="For a setting; slow ones answer fewer.")
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="That fill, and ask.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="PNG or SVG, by its name.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(
    data: Path | None,
    items: int | None,
    queries: int,
    names: tuple[str, ...],
    nearpy_python: str | None,
    seconds: float,
    processes: int,
    plot: Path | None,
    json_file: Path | None,
) -> None:
    """Measure ours beside other indexes.

    Example: python -m benchmarks.peers --data Gist512CIFAR10.mat --nearpy-python nearpy/bin/python --plot peers.svg
    """
    if plot is not None:
        from benchmarks.peers.pictures import draw  # fails now without matplotlib, not after an hour
    interpreters = {NEARPY: nearpy_python} if nearpy_python else {}
    chosen = tuple(name for name in CATALOGUE if not names or name in names)
    limits = Limits(seconds=seconds, processes=processes)
    result, rows, tables = measure(load_dataset(data, items), queries, chosen, interpreters, limits)
    publish(result, tables, json_file)
    if plot is not None:
        draw(rows, plot)
    failed = [name for name, of_peer in result["peers"].items() if "failed" in of_peer]
    if failed:
        raise click.ClickException(f"not measured, though installed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
