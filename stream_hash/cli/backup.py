"""export, import: an index as a file, and a file as an index."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from stream_hash import __version__
from stream_hash.cli.options import json_option, opened, server_options
from stream_hash.cli.output import json_line, line, note, progress
from stream_hash.environment import Environment
from stream_hash.errors import IndexMissingError
from stream_hash.formats.opening import name_of
from stream_hash.formats.opening import opened as opened_file
from stream_hash.formats.replacing import part_of, replaced
from stream_hash.service.export import Exported, export_index, resume_export
from stream_hash.service.handle import IndexHandle
from stream_hash.service.restore import Imported, abandon_import, import_index
from stream_hash.settings import MAX_PARTITIONS
from stream_hash.storage.connection import redis_errors


@click.command(short_help="Write an index to a file: a backup.")
@click.argument("name")
@click.argument("file", metavar="FILE|-")
@click.option("--resume", is_flag=True, help="Go on with an export to FILE that was interrupted, if there is one.")
@json_option
@server_options
def export(environment: Environment, name: str, file: str, resume: bool, as_json: bool) -> None:
    """Write an index to FILE, or to stdout (-): settings, items, the models of its generations, the saved plan.

    The index may be used meanwhile: each item is in the file as it was at some moment of the export. What is pending
    is not in it. FILE appears when it is complete, and takes the place of an older one; it is not compressed.

    An export that is interrupted leaves .FILE.part. With --resume it goes on there, and what was written before is as
    it was then; without, it begins anew.

    \b
    Example:
      stream-hash export photos photos.shx
      stream-hash export photos photos.shx --resume
      stream-hash export photos - | zstd > photos.shx.zst
    """
    if file == "-" and (as_json or sys.stdout.isatty()):
        raise click.UsageError("With - stdout gets the file: redirect it, and leave out --json.")
    if file == "-" and resume:
        raise click.UsageError("With - there is nothing that --resume could go on with: name a file.")
    connections = opened(environment)
    start = time.monotonic()
    with redis_errors():
        handle = IndexHandle(connections.client, name)
        with progress(f"exporting {name}") as show:
            done = _exported(handle, file, resume, lambda text: show(f"exporting {name}: {text}"))
    if as_json:
        seconds = round(time.monotonic() - start, 6)
        json_line({"index": name, **vars(done), "seconds": seconds})
        return
    models = f"{done.generations} generation{'s' * (done.generations != 1)}"
    began = datetime.fromtimestamp(done.began, UTC).strftime("%Y-%m-%d %H:%M UTC")
    before = f", {done.skipped} of them by an attempt that began {began}" if done.skipped else ""
    (note if file == "-" else line)(f"exported {done.items} items and {models}{before}: {_size(done.bytes)}")


def _exported(handle: IndexHandle, file: str, resume: bool, show: Callable[[str], None]) -> Exported:
    if file == "-":
        done = export_index(handle, sys.stdout.buffer, writer=__version__, show=show)
        sys.stdout.buffer.flush()
        return done
    path = Path(file)
    with replaced(path, resume=resume) as target:
        try:
            if resume:
                return resume_export(handle, target, str(part_of(path)), writer=__version__, show=show)
            return export_index(handle, target, writer=__version__, show=show)
        except BaseException as error:
            if not isinstance(error, IndexMissingError):  # with that nobody could go on
                note(f"Not complete: what is written stays in {part_of(path)}, and export --resume goes on with it.")
            raise


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


@click.command("import", short_help="Make an index of an exported file.")
@click.argument("file", metavar="FILE|-", required=False)
@click.argument("name", required=False)
@click.option(
    "--partitions", type=click.IntRange(1, MAX_PARTITIONS), help="How many. [default: as many as were exported]"
)
@click.option("--abandon", metavar="NAME", help="Give up an import that was interrupted, and delete what it wrote.")
@json_option
@server_options
def import_(
    environment: Environment,
    file: str | None,
    name: str | None,
    partitions: int | None,
    abandon: str | None,
    as_json: bool,
) -> None:
    """Make an index of an exported FILE, or of stdin (-): on this server or another, in as many partitions or others.

    An index of that name must not exist. It can be queried and written when the import is finished, and not before.
    An import that was interrupted goes on where it stopped when the same command is given again.

    FILE is checked to its end before anything is written; what came of a damaged stream is deleted.

    \b
    Example:
      stream-hash import photos.shx photos-2 --partitions 8
      zstdcat photos.shx.zst | stream-hash import - photos --url redis://other:6379
    """
    if abandon is not None:
        if file is not None or partitions is not None:
            raise click.UsageError("--abandon goes alone.")
        _abandon(environment, abandon, as_json)
        return
    if file is None or name is None:
        raise click.UsageError("Give FILE and NAME.")
    connections = opened(environment)
    source = sys.stdin.buffer if file == "-" else Path(file)
    start = time.monotonic()
    with redis_errors(), opened_file(source) as readable, progress(f"importing {name}") as show:
        done = import_index(
            connections.client,
            readable,
            name_of(source),
            name,
            partitions=partitions,
            show=lambda text: show(f"importing {name}: {text}"),
        )
    if as_json:
        json_line({"index": name, **vars(done), "seconds": round(time.monotonic() - start, 6)})
    else:
        line(_told(name, done))


def _told(name: str, done: Imported) -> str:
    if done.already:
        return f"index {name!r} was imported from this file before; nothing is changed"
    parts = f"{done.partitions} partition{'s' * (done.partitions > 1)}"
    live = f"generation {done.live} is live" if done.live else "no generation yet"
    before = f", {done.skipped} of them by an earlier attempt" if done.skipped else ""
    return f"imported {done.items} items into {parts}{before}; {live}"


def _abandon(environment: Environment, name: str, as_json: bool) -> None:
    with redis_errors():
        if not abandon_import(opened(environment).client, name):
            raise IndexMissingError(
                f"no import of {name!r} is under way",
                why="it was finished, given up, or never begun",
                remedy="stream-hash status",
            )
    if as_json:
        json_line({"index": name, "abandoned": True})
    else:
        line(f"gave up the import of {name!r}, and deleted what it had written")
