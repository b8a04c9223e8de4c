"""Labels of items that are stored already: jsonl {"id": "a", "label": "cat"}, or csv with id and label.

1. jsonl: both keys are needed; a label of null takes the item's away. Other keys are not looked at.
2. csv: by a header with `id` and `label` (in any case; other columns are not looked at), or without one, two
   cells a line: the id, then the label. A label is a whole number where it is written as one (`3`, `3.0`,
   not `007`), else text, as in a csv of items; an empty one takes the item's away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from stream_hash.errors import FormatError, InvalidItemError, UsageError
from stream_hash.formats.delimited import cells_of
from stream_hash.formats.jsonl import parsed
from stream_hash.formats.lines import lines
from stream_hash.formats.opening import name_of, opened
from stream_hash.formats.records import Rejected, reason_of
from stream_hash.formats.seen import SeenIds
from stream_hash.formats.values import id_of, label_of, label_of_text
from stream_hash.settings import Label

FORMATS: Final = ("auto", "jsonl", "csv")

Pair: TypeAlias = "tuple[str, Label | None]"


def read_labels(source: Path | BinaryIO, *, format: str = "auto") -> Iterator[Pair | Rejected]:  # noqa: A002 - as in `read`
    """(id, label) of each line of a file or a binary stream; None takes a label away.

    format : one of FORMATS; `auto` goes by the first character, which in jsonl is a brace.

    Raises UsageError for an unknown format; while iterating, FormatError when the file cannot be read or has
    no lines.
    """
    if format not in FORMATS:
        raise UsageError(f"the format is {format!r}", why="labels come as jsonl or csv", remedy="name one of them")
    return _read(source, format)


def _read(source: Path | BinaryIO, chosen: str) -> Iterator[Pair | Rejected]:
    seen = SeenIds()
    with opened(source) as file:
        found = lines(file)
        first = next(found, None)
        if first is None:
            raise FormatError(f"{name_of(source)} is empty", why="it holds no label", remedy="check what writes it")
        parse: Callable[[bytes], Pair] = _from_json
        columns: dict[str, int] = {}
        if chosen == "csv" or (chosen == "auto" and isinstance(first[1], bytes) and not first[1].startswith(b"{")):
            columns = _columns(first[1])
            parse = _from_cells(columns or {"id": 0, "label": 1}, bool(columns))
        for where, line in found if columns else chain([first], found):
            pair = line if isinstance(line, Rejected) else _pair(where, line, parse)
            if isinstance(pair, tuple) and (reason := seen.repeated(pair[0], where)):
                pair = Rejected(where, reason)
            yield pair


def _pair(where: str, line: bytes, parse: Callable[[bytes], Pair]) -> Pair | Rejected:
    try:
        return parse(line)
    except InvalidItemError as error:
        return Rejected(where, reason_of(error))
    except RecursionError:
        return Rejected(where, "it is nested too deeply")


def _from_json(line: bytes) -> Pair:
    values = parsed(line)
    for key in ("id", "label"):
        if key not in values:
            raise InvalidItemError(f"it has no {key}")
    return id_of(values["id"]), label_of(values["label"])


def _columns(line: bytes | Rejected) -> dict[str, int]:
    """Where the header has `id` and `label`; nothing when the line is no header."""
    if isinstance(line, Rejected):
        return {}
    try:
        names = [cell.strip().casefold() for cell in cells_of(line)]
    except InvalidItemError:
        return {}
    return {name: names.index(name) for name in ("id", "label")} if {"id", "label"} <= set(names) else {}


def _from_cells(columns: dict[str, int], has_header: bool) -> Callable[[bytes], Pair]:
    def parse(line: bytes) -> Pair:
        cells = cells_of(line)
        if len(cells) <= max(columns.values()) or (not has_header and len(cells) != 2):
            raise InvalidItemError(f"it has {len(cells):,} cells", why="there must be an id and a label")
        return id_of(cells[columns["id"]]), label_of_text(cells[columns["label"]])

    return parse
