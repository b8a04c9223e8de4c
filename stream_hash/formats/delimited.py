"""csv: comma-separated cells, a vector a line.

1. A first line with a cell that is no number is the header. Its columns `id` and `label` (in any case)
   are what they say; every other column is a coordinate, in order, whatever its name.
2. A first line of numbers only is a vector: all columns are coordinates, the row numbers are the ids.
3. A first line that mixes names and numbers is a header only if it has `id` or `label`, as in
   `id,0,1,2`; otherwise it is refused, since it may as well be an item whose id would be lost. So is a
   column without a name, which would turn row numbers into a coordinate.

A cell of a coordinate that is no number refuses its line, so a column of other data refuses them all
rather than being dropped. A label is a whole number where it is written as one (`3`, `3.0`, not `007`),
else text; empty and `nan` are none. A quoted cell may hold commas, not line ends. An id that is missing
from the file is the number of the line among those that are not blank, from 0, the header not counted.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from stream_hash.errors import FormatError, InvalidItemError
from stream_hash.formats.gather import Row, gather
from stream_hash.formats.lines import decoded, lines
from stream_hash.formats.records import Chunk, Rejected, reason_of, shown
from stream_hash.formats.values import id_of, label_of_text


def read(
    file: BinaryIO, name: str, *, labels: bool, chunk_items: int, limit: int | None, dimension: int | None
) -> Iterator[Chunk | Rejected]:
    """The items of a csv file. Raises FormatError when no line has one, or the header is unusable."""
    found = lines(file)
    first = next(found, None)
    if first is None:
        raise FormatError(f"{name} is empty", why="it holds no vector", remedy="check what writes it")
    columns = _columns(first[1], name)
    rest = chain([first], found) if columns.names is None else found
    rows = islice(_rows(rest, columns, labels=labels), limit)
    return gather(rows, name, chunk_items=chunk_items, dimension=dimension)


@dataclass(frozen=True)
class _Columns:
    """Which column is what. names: as the header has them, None without a header."""

    names: list[str] | None
    id: int | None = None
    label: int | None = None

    def coordinates(self, cells: list[str]) -> list[str]:
        """What is left of `cells` without the id and the label."""
        left = cells.copy()
        for at in sorted((at for at in (self.id, self.label) if at is not None), reverse=True):
            del left[at]
        return left


def _columns(line: bytes | Rejected, name: str) -> _Columns:
    try:
        cells = [] if isinstance(line, Rejected) else cells_of(line)
    except InvalidItemError as error:
        raise _bad_header(name, reason_of(error)) from error
    if isinstance(line, Rejected):
        raise _bad_header(name, line.reason)
    numbers = [_is_number(cell) for cell in cells]
    if all(numbers):
        return _Columns(None)
    names = [cell.strip().casefold() for cell in cells]
    for special in ("id", "label"):
        if names.count(special) > 1:
            raise _bad_header(name, f"it has {names.count(special)} columns {special}")
    if "" in names:
        raise _bad_header(name, f"column {names.index('') + 1} has no name")
    if any(numbers) and not {"id", "label"} & set(names):
        raise _bad_header(name, f"it mixes names and numbers: {shown(cells)}")
    at = {special: names.index(special) if special in names else None for special in ("id", "label")}
    return _Columns(cells, at["id"], at["label"])


def _rows(
    found: Iterator[tuple[str, bytes | Rejected]], columns: _Columns, *, labels: bool
) -> Iterator[Row | Rejected]:
    for number, (where, line) in enumerate(found):
        if isinstance(line, Rejected):
            yield line
            continue
        try:
            yield _row(cells_of(line), columns, where, number, labels=labels)
        except InvalidItemError as error:
            yield Rejected(where, reason_of(error))


def _row(cells: list[str], columns: _Columns, where: str, number: int, *, labels: bool) -> Row:
    if columns.names is not None and len(cells) != len(columns.names):
        raise InvalidItemError(f"it has {len(cells):,} cells and the header {len(columns.names):,}")
    item_id = id_of(number if columns.id is None else cells[columns.id])
    label = label_of_text(cells[columns.label]) if labels and columns.label is not None else None
    coordinates = columns.coordinates(cells)
    vector = _numbers(coordinates)
    if vector is None:
        at = next(at for at, cell in enumerate(coordinates) if not _is_number(cell))
        column = f", column {shown(columns.coordinates(columns.names)[at])}," if columns.names else ""
        raise InvalidItemError(f"coordinate {at}{column} is {shown(coordinates[at])}, not a number")
    return Row(where, item_id, vector, label)


def cells_of(line: bytes) -> list[str]:
    """The cells of one line. Raises InvalidItemError when its quotes do not close or it is not UTF-8."""
    try:
        return next(csv.reader([decoded(line)], strict=True), [])
    except csv.Error as error:
        raise InvalidItemError(f"it is no csv: {error}") from error


def _numbers(cells: list[str]) -> npt.NDArray[np.float64] | None:
    if "_" in "".join(cells):  # a digit separator to Python, and never meant as one in a csv
        return None
    try:
        return np.array(list(map(float, cells)), np.float64)
    except ValueError:
        return None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _bad_header(name: str, why: str) -> FormatError:
    return FormatError(
        f"the first line of {name} is no header",
        why=why,
        remedy="begin the file with a header such as id,label,v0,v1,v2",
    )
