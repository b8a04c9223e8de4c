"""Printing: data on stdout, notes and progress on stderr, colour and boxes only on a terminal."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

_NUMBER = re.compile(r"-?[\d.,]+( ?(ms|s|MB|%))?|-?")


def line(text: str) -> None:
    """A line of data."""
    click.echo(text)


def json_line(value: Any) -> None:
    """One JSON object, on one line, written at once."""
    click.echo(json.dumps(value, allow_nan=False))


def note(text: str) -> None:
    """A line for people, beside the data."""
    click.echo(text, err=True)


def printable(value: object, *, keep_lines: bool = False) -> str:
    """`value` as text in which stored data cannot steer a terminal: what is not printable is escaped."""
    return "".join(
        c if c.isprintable() or (keep_lines and c == "\n") else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(value)
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """A table: boxed on a terminal, else columns of plain text. Columns of numbers are set to the right."""
    texts = [[printable(cell) for cell in row] for row in rows]
    right = [bool(texts) and all(_NUMBER.fullmatch(row[at]) for row in texts) for at in range(len(columns))]
    if sys.stdout.isatty():
        _boxed(columns, texts, right, printable(title))
        return
    if title:
        line(printable(title))
    widths = [max(len(row[at]) for row in [list(columns), *texts]) for at in range(len(columns))]
    for row in [list(columns), *texts]:
        cells = zip(row, widths, right, strict=True)
        padded = [cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in cells]
        line("  ".join(padded).rstrip())


def pairs(values: Sequence[tuple[str, object]], *, title: str = "") -> None:
    """Names and values, a line each."""
    width = max(len(name) for name, _ in values)
    if title:
        line(printable(title))
    for name, value in values:
        line(f"{name.ljust(width)}  {printable(value)}".rstrip())


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """While the block runs, show on a terminal what is being done; call what is yielded to change it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(printable(text))) as status:
        yield lambda changed: status.update(Text(printable(changed)))


def _boxed(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    boxed = Table(title=Text(title) if title else None, title_justify="left")
    for name, to_right in zip(columns, right, strict=True):
        boxed.add_column(Text(name), justify="right" if to_right else "left")
    for row in rows:
        boxed.add_row(*(Text(cell) for cell in row))
    Console().print(boxed)
