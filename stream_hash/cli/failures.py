"""What goes wrong, in three lines on stderr: what failed, why, and the command or change that mends it."""

from __future__ import annotations

from collections.abc import Callable

import click

from stream_hash.cli.output import note, printable
from stream_hash.errors import StreamHashError

INTERRUPTED = 130


def exit_code_of(command: Callable[[], object]) -> int:
    """Run `command`, report what it raises on purpose, and return the exit code.

    Click itself ends quietly, with 1, when stdout is closed before all is written.
    """
    try:
        code = command()
    except StreamHashError as error:
        report(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def report(error: StreamHashError) -> None:
    """Print the three lines; the ones that an error has nothing for are left out."""
    note(f"Error: {printable(error, keep_lines=True)}")
    if error.why:
        note(f"  why: {printable(error.why, keep_lines=True)}")
    if error.remedy:
        note(f"  fix: {printable(error.remedy, keep_lines=True)}")
