"""get, delete, label: single items, at once and not through the queue."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import click

from stream_hash import formats
from stream_hash.cli.options import json_option, opened, server_options
from stream_hash.cli.output import json_line, line, note, printable
from stream_hash.client import Index
from stream_hash.environment import Environment
from stream_hash.errors import FormatError, InvalidItemError, StreamHashError
from stream_hash.formats import Rejected
from stream_hash.formats.lines import decoded, lines
from stream_hash.formats.opening import name_of
from stream_hash.formats.values import label_of_text
from stream_hash.settings import Label, check_id

SHOWN: Final = 10
"""Ids and sentences that are printed in full; the others are counted."""


@click.command(short_help="Print items.")
@click.argument("name")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Items are always printed as JSON, one a line.")
@server_options
def get(environment: Environment, name: str, ids: tuple[str, ...], as_json: bool) -> None:  # noqa: ARG001 - see its help
    """Print items as JSON, one a line: id, label, metadata, sequence and vector.

    Exit code 1 when one of them is not there; the others are printed all the same.

    \b
    Example:
      stream-hash get photos cat.jpg dog.jpg
    """
    items = Index(name, opened(environment)).get(ids)
    for item in items:
        if item is not None:
            json_line(
                {
                    "id": item.id,
                    "label": item.label,
                    "metadata": item.metadata,
                    "sequence": item.sequence,
                    "vector": item.vector.tolist(),
                }
            )
    missing = [item_id for item_id, item in zip(ids, items, strict=True) if item is None]
    if missing:
        raise StreamHashError(
            f"index {name!r} has no item {_shown(missing)}",
            why="it was never stored, is still pending, or was deleted",
            remedy=f"stream-hash status {name}",
        )


@click.command(short_help="Delete items.")
@click.argument("name")
@click.argument("ids", metavar="ID...|-", nargs=-1, required=True)
@json_option
@server_options
def delete(environment: Environment, name: str, ids: tuple[str, ...], as_json: bool) -> None:
    """Delete items; with - the ids are read from stdin, one a line.

    An id that has no item is told on stderr, and no failure.

    \b
    Example:
      stream-hash delete photos cat.jpg dog.jpg
    """
    index = Index(name, opened(environment))
    wanted = list(dict.fromkeys(_ids_of_lines(sys.stdin.buffer) if ids == ("-",) else ids))
    missing = index.delete(wanted)
    if missing:
        note(f"{len(missing)} had no item: {_shown(missing)}")
    if as_json:
        json_line({"deleted": len(wanted) - len(missing), "missing": missing})
    else:
        line(f"deleted {len(wanted) - len(missing)}")


@click.command(short_help="Label items.")
@click.argument("name")
@click.argument("item_id", metavar="[ID]", required=False)
@click.argument("label_", metavar="[LABEL]", required=False)
@click.option("--file", "file", metavar="FILE|-", help='jsonl {"id", "label"}, or csv with the id and the label.')
@click.option("--format", "format_", type=click.Choice(["auto", "jsonl", "csv"]), default="auto", show_default=True)
@click.option("--text", is_flag=True, help="Keep LABEL text, even if it looks like a whole number.")
@json_option
@server_options
def label(
    environment: Environment,
    name: str,
    item_id: str | None,
    label_: str | None,
    file: str | None,
    format_: str,
    text: bool,
    as_json: bool,
) -> int:
    """Label an item, or many from a file.

    A LABEL written as a whole number is one, as in a csv (3 and 3.0, but not 007); an empty one takes the
    item's label away. Exit code 3 when an id has no item: its label is kept for an item still on its way.

    \b
    Example:
      stream-hash label photos cat.jpg cat
      stream-hash label photos --file labels.csv
    """
    if (item_id is None, label_ is None) != (file is not None, file is not None):
        raise click.UsageError("Give ID and LABEL, or --file FILE.")
    index = Index(name, opened(environment))
    rejected: list[str] = []
    if file is None:
        pairs: Iterable[tuple[str, Label | None]] = [(str(item_id), label_ if text else label_of_text(str(label_)))]
    else:
        pairs = _pairs(sys.stdin.buffer if file == "-" else Path(file), format_, rejected)
    wanted = list(pairs)
    missing = index.label([item_id for item_id, _ in wanted], [value for _, value in wanted])
    labelled = len(wanted) - len(missing)
    for sentence in rejected[:SHOWN]:
        note(f"rejected: {printable(sentence)}")
    if len(rejected) > SHOWN:
        note(f"and {len(rejected) - SHOWN} more, {len(rejected)} rejected in all")
    if missing:
        note(f"{len(missing)} had no item: {_shown(missing)}")
    if as_json:
        json_line({"labelled": labelled, "missing": missing, "rejected": len(rejected)})
    else:
        line(f"labelled {labelled}")
    if missing or (rejected and labelled):
        return 3
    return 1 if rejected else 0


def _pairs(source: Path | BinaryIO, format_: str, rejected: list[str]) -> Iterator[tuple[str, Label | None]]:
    for pair in formats.read_labels(source, format=format_):
        if isinstance(pair, Rejected):
            rejected.append(f"{name_of(source)}: {pair.where}: {pair.reason}")
        else:
            yield pair


def _ids_of_lines(file: BinaryIO) -> Iterator[str]:
    for where, found in lines(file):
        try:
            if isinstance(found, Rejected):
                raise InvalidItemError(found.reason)
            yield check_id(decoded(found))
        except InvalidItemError as error:
            raise FormatError(
                f"{where} of standard input is no id", why=f"{error}; {error.why}", remedy="give one id a line"
            ) from error


def _shown(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(map(repr, ids[:SHOWN])) + more
