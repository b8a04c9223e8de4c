"""`stream-hash --help` against importing scikit-learn: whole processes, alternating.

The command must not pay for what only training needs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.report import Spread, machine, publish, table


def measure(repetitions: int) -> dict[str, Any]:
    """All figures of this benchmark."""
    shown, imported, ratio = in_turn([*command(), "--help"], [sys.executable, "-c", "import sklearn"], repetitions)
    return {
        "machine": machine(),
        "repetitions": repetitions,
        "help_seconds": asdict(shown),
        "import_sklearn_seconds": asdict(imported),
        "ratio": asdict(ratio),
    }


def command() -> list[str]:
    """How `stream-hash` is started here."""
    installed = Path(sys.executable).with_name("stream-hash")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "stream_hash.cli"]


def in_turn(one: Sequence[str], other: Sequence[str], repetitions: int) -> tuple[Spread, Spread, Spread]:
    """Seconds of two commands that take turns, each a process of its own, and their ratio."""
    pairs = [(_seconds(one), _seconds(other)) for _ in range(repetitions + 1)][1:]  # the first reads from disk
    ones, others = zip(*pairs, strict=True)
    return Spread.of(ones), Spread.of(others), Spread.of([a / b for a, b in pairs])


def _seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _tables(result: dict[str, Any]) -> list[str]:
    rows = [
        ("measure", "median (least to greatest)"),
        ("stream-hash --help, s", Spread(**result["help_seconds"]).shown(3)),
        ("import sklearn, s", Spread(**result["import_sklearn_seconds"]).shown(3)),
        ("ratio (target: at most 0.35)", Spread(**result["ratio"]).shown(3)),
    ]
    return [table(rows)]


@click.command()
@click.option("--repetitions", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(repetitions: int, json_file: Path | None) -> None:
    """Measure how long the command takes to start.

    Example: python -m benchmarks.startup
    """
    result = measure(repetitions)
    publish(result, _tables(result), json_file)


if __name__ == "__main__":
    main()
