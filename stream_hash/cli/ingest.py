"""ingest: from files or stdin through the queue into an index."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from stream_hash import formats
from stream_hash.cli.failures import report
from stream_hash.cli.options import format_option, json_option, opened, server_options
from stream_hash.cli.output import json_line, line, note, printable, progress
from stream_hash.environment import Environment
from stream_hash.errors import FormatError, StreamHashError, UsageError
from stream_hash.formats import Chunk, Rejected
from stream_hash.formats.opening import name_of
from stream_hash.producer import Producer, WhenFull
from stream_hash.service.status import hash_workers
from stream_hash.storage.ledger import DeadLetter

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
    are reported on stderr and left out; so is an id that stands twice in what one call reads. A file without
    ids takes its row numbers, so at most one of several files may have none.

    Exit code 3 when some rows were rejected, 1 when no item was accepted.

    \b
    Example:
      stream-hash ingest photos photos.npz --wait
      zcat items.jsonl.gz | stream-hash ingest photos - --json
    """
    connections = opened(environment)
    producer = Producer(name, connections, batch_items=batch_items, when_full=when_full, timeout_seconds=timeout)
    reading: dict[str, Any] = {"format": format_, "chunk_items": batch_items, "labels": labels}
    reading["dimension"] = producer.settings.dimension
    run = _Run(producer, dry_run, set() if len(files) > 1 else None)
    start = time.monotonic()
    try:
        with progress(f"ingesting into {name}") as show:
            for file in files:
                left = None if limit is None else limit - run.accepted - run.rejected
                if left != 0:
                    source = sys.stdin.buffer if file == "-" else Path(file)
                    run.take(name_of(source), formats.read(source, limit=left, **reading), show)
            producer.flush()
            if wait and not dry_run:
                if not hash_workers(connections):
                    note("no hash worker is running; start one: stream-hash worker")
                show(f"{run.accepted} items accepted, waiting until they are searchable")
                producer.wait(timeout)
                run.bury(producer.dead_letters())
    except BaseException:
        if producer.accepted:
            note(f"{producer.accepted} items had been accepted by then")
        raise
    if run.failure and not run.accepted and not run.rejected:
        return run.failure.exit_code
    seconds = time.monotonic() - start
    if run.rejected > SHOWN_REJECTIONS:
        note(f"and {run.rejected - SHOWN_REJECTIONS} more, {run.rejected} rejected in all")
    note(f"{run.accepted} items in {seconds:.2f} s, {run.accepted / max(seconds, 1e-9):.0f} items/s")
    if as_json:
        json_line({"accepted": run.accepted, "rejected": run.rejected, "seconds": round(seconds, 6)})
    else:
        line(f"{'would accept' if dry_run else 'accepted'} {run.accepted}, rejected {run.rejected}")
    return run.exit_code


@dataclass
class _Run:
    """One ingest: what was accepted (with `dry_run`, what would be), what rejected, and what failed first.

    seen : the ids of all files so far, or None for a single file, whose reader knows its own.
    """

    producer: Producer
    dry_run: bool
    seen: set[str] | None
    accepted: int = 0
    rejected: int = 0
    failure: StreamHashError | None = None

    @property
    def exit_code(self) -> int:
        if not self.rejected and self.failure is None:
            return 0
        if self.accepted:
            return 3
        return self.failure.exit_code if self.failure else 1

    def take(self, name: str, parts: Iterator[Chunk | Rejected], show: Callable[[str], None]) -> None:
        """Send what a file has. One that cannot be read to its end is reported, and the next has its turn."""
        try:
            for part in parts:
                if isinstance(part, Rejected):
                    self._reject(1, f"{name}: {part.where}: {part.reason}")
                else:
                    self._send(name, self._new(name, part))
                show(f"{name}: {self.accepted} items accepted, {self.rejected} rejected")
        except (FormatError, UsageError) as error:
            report(error)
            self.failure = self.failure or error

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Count items as rejected that were accepted at first."""
        for letter in letters:
            self.accepted -= letter.items
            self._reject(letter.items, f"{letter.items} of batch {letter.batch}: {letter.reason}")

    def _new(self, name: str, chunk: Chunk) -> Chunk:
        """The chunk without the ids of earlier files."""
        if self.seen is None:
            return chunk
        repeated = self.seen.intersection(chunk.ids)
        self.seen.update(chunk.ids)
        for item_id in sorted(repeated):
            self._reject(1, f"{name}: id {item_id!r} already stood in another of the files")
        kept = [at for at, item_id in enumerate(chunk.ids) if item_id not in repeated]
        return Chunk(
            [chunk.ids[at] for at in kept],
            chunk.vectors[kept],
            [chunk.labels[at] for at in kept],
            [chunk.metadata[at] for at in kept],
        )

    def _send(self, name: str, chunk: Chunk) -> None:
        items = (chunk.ids, chunk.vectors, chunk.labels, chunk.metadata)
        faults = self.producer.faults(*items) if self.dry_run else self.producer.upsert_many(*items, skip_invalid=True)
        self.accepted += len(chunk.ids) - len(faults)
        for position, fault in sorted(faults.items()):
            self._reject(1, f"{name}: item {chunk.ids[position]!r}: {fault}")

    def _reject(self, items: int, sentence: str) -> None:
        """Report the first ten, and count them all."""
        if self.rejected < SHOWN_REJECTIONS:
            note(f"rejected: {printable(sentence)}")
        self.rejected += items
