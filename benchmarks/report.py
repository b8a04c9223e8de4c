"""How figures are given: a median with its spread, the machine they were measured on, a table and JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, the least and the greatest of them."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(float(np.median(values)), float(min(values)), float(max(values)))

    def shown(self, digits: int = 0) -> str:
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f} to {self.greatest:,.{digits}f})"


def machine(client: Any | None = None) -> dict[str, Any]:
    """What the figures depend on. client : of the server that was measured, if one was."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "redis_py": version("redis"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    if client is not None:
        info = client.info("server")
        engine = "valkey" if "valkey_version" in info else "redis"
        found["server"] = f"{engine} {info[f'{engine}_version']}"
    return found


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the first of them the heading, as a Markdown table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def publish(result: dict[str, Any], tables: Sequence[str], json_file: Path | None) -> None:
    """The tables to standard error, the result as one JSON object to `json_file` or standard output."""
    facts = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    for text in (facts, *tables):
        click.echo(text + "\n", err=True)
    if json_file is None:
        click.echo(json.dumps(result, indent=2))
    else:
        json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def progress(text: str) -> None:
    """Say on standard error what is being measured."""
    click.echo(f"… {text}", err=True)
    sys.stderr.flush()
