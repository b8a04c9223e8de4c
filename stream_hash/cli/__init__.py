"""The command line: parse, call the API, print.

Read options (what every command takes), output and failures (what every command does), then a module for
each group of commands: index, items, ingest, query, training, dead, doctor, server, worker, demo.

Rules
1. Data on stdout, everything else on stderr; with --json one object a line, errors still on stderr.
2. A command's module is imported when that command runs or its own help is asked: `stream-hash --help` needs
   nothing but Click.
3. Commands return their exit code: 0 ok, 1 failure, 2 usage, 3 some items rejected, 4 server unreachable,
   5 no such index, 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from keyword import iskeyword
from typing import Any, Final, NoReturn

import click

from stream_hash import __version__
from stream_hash.cli.failures import exit_code_of

COMMANDS: Final = {
    "create": ("index", "Create an index."),
    "ingest": ("ingest", "Stream items from files or stdin into an index."),
    "query": ("query", "Find the nearest items."),
    "get": ("items", "Print items."),
    "delete": ("items", "Delete items."),
    "label": ("items", "Label items."),
    "status": ("index", "Show the server, or one index."),
    "metrics": ("metrics", "Serve metrics for Prometheus."),
    "verify": ("index", "Check every invariant of an index."),
    "doctor": ("doctor", "Tell what is wrong, and what mends it."),
    "dead": ("dead", "List, show, retry or drop what no worker could store."),
    "drop": ("dead", "Delete an index, with all its items."),
    "export": ("backup", "Write an index to a file: a backup."),
    "import": ("backup", "Make an index of an exported file."),
    "tune": ("tune", "Measure searches, and choose the cheapest that is good enough."),
    "train": ("training", "Learn hash functions, from labels or without, and swap them in."),
    "generations": ("training", "List the generations, and what became of each training."),
    "rollback": ("training", "Go back to an earlier generation."),
    "reindex": ("training", "Go on with a re-index that was interrupted."),
    "evaluate": ("evaluate", "Compare ways of hashing on a labelled file."),
    "worker": ("worker", "Run hash workers in the foreground."),
    "trainer": ("worker", "Run a trainer in the foreground."),
    "up": ("server", "Start the embedded server, hash workers and a trainer."),
    "down": ("server", "Stop the embedded server and its workers."),
    "acl": ("acl", "Print accounts of least privilege for the server."),
    "demo": ("demo", "Show the whole service at work on real data."),
}
"""Each command's module and short help, in the order in which a newcomer meets them."""


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports one when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"stream_hash.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name + "_" * iskeyword(cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(  # type: ignore[override] # the first of its overloads never returns, and this one does not either
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        extra["standalone_mode"] = False
        sys.exit(exit_code_of(lambda: super(LazyGroup, self).main(args, prog_name, **extra)))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100})
@click.version_option(__version__, prog_name="stream-hash")
def main() -> None:
    """Streaming similarity search on Redis.

    The server is named by --url, STREAM_HASH_URL or REDIS_URL; without any of them it is the embedded one
    that `stream-hash up` starts.

    \b
    Example:
      stream-hash demo
    """
