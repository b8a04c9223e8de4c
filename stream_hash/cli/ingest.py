"""ingest: from files or stdin through the queue into an index."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO, Final

import click

from stream_hash import formats
from stream_hash.cli.failures import report
from stream_hash.cli.options import format_option, json_option, opened, server_options
from stream_hash.cli.output import json_line, line, note, printable, progress
from stream_hash.environment import Environment
from stream_hash.errors import FormatError, StreamHashError, UsageError
from stream_hash.formats.opening import name_of
from stream_hash.producer import Producer, WhenFull
from stream_hash.service.status import hash_workers

SHOWN_REJECTIONS: Final = 10


@click.command(short_help="Stream items from files or stdin into an index.")
@click.argument("name")
@click.argument("files", metavar="FILE...|-", nargs=-1, required=True)
@format_option
@click.option("--wait", is_flag=True, help="Return when all of it is searchable.")
@click.option("--timeout", type=click.FloatRange(min=0), default=600.0, show_default=True, help="Seconds to wait.")
@click.option("--limit", type=click.IntRange(min=1), help="Rows to look at, over all files.")
@click.option("--dry-run", is_flag=True, help="Check every item against the index, and send none.")
@click.option("--labels/--no-labels", default=True, show_default=True, help="Whether to take labels from the files.")
@click.option("--batch-items", type=click.IntRange(min=1), default=256, show_default=True, help="Items a batch.")
@click.option(
    "--when-full",
    type=click.Choice(["block", "raise"]),
    default="block",
    show_default=True,
    help="What to do while too many batches are pending.",
)
@json_option
@server_options
def ingest(
    environment: Environment,
    name: str,
    files: tuple[str, ...],
    format_: str,
    wait: bool,
    timeout: float,
    limit: int | None,
    dry_run: bool,
    labels: bool,
    batch_items: int,
    when_full: WhenFull,
    as_json: bool,
) -> int:
    """Stream items from files, or from stdin (-), into an index.

    Items are accepted at once, and searchable when a hash worker has taken them up. Rows that are no items
    are reported on stderr and left out; so is an id that stands twice in what one call reads. Files without
    ids take their row numbers, so give files that have none to calls, or indexes, of their own.

    Exit code 3 when some rows were rejected, 1 when no item was accepted.

    \b
    Example:
      stream-hash ingest photos photos.npz --wait
      zcat items.jsonl.gz | stream-hash ingest photos - --json
    """
    connections = opened(environment)
    producer = Producer(
        name, connections, batch_items=batch_items, when_full=when_full, timeout_seconds=timeout
    )
    run = _Run(producer, dry_run=dry_run, once=len(files) > 1)
    start = time.monotonic()
    try:
        with progress(f"ingesting into {name}") as show:
            for file in files:
                source = click.get_binary_stream("stdin") if file == "-" else Path(file)
                left = None if limit is None else limit - run.rows
                if left != 0:
                    run.take(source, formats.read_options(format_, batch_items, left, labels), show)
            producer.flush()
            if wait and not dry_run:
                if not hash_workers(connections):
                    note("no hash worker is running; start one: stream-hash worker")
                show(f"{producer.accepted} items accepted, waiting until they are searchable")
                producer.wait(timeout)
                run.bury()
    except BaseException:
        note(f"{producer.accepted} items had been accepted")
        raise
    seconds = time.monotonic() - start
    run.summarise(seconds, as_json)
    return run.exit_code()
