"""jsonl: a JSON object a line: {"id": "a", "vector": [0.5, 1], "label": "cat", "metadata": {"page": 3}}.

Only `vector` is needed. An id is text or a whole number; without one it is the number of the line among
those that are not blank, from 0. A line is refused, and the others live, when it is no such object:
also for an unknown key, since a mistyped one would otherwise lose data silently, and for a key given twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from stream_hash.errors import InvalidItemError
from stream_hash.formats.gather import Row, gather
from stream_hash.formats.lines import decoded, lines
from stream_hash.formats.records import Chunk, Rejected, reason_of, shown
from stream_hash.formats.values import id_of, label_of
from stream_hash.settings import MAX_METADATA_DEPTH, metadata_text

KEYS: Final = ("id", "vector", "label", "metadata")


def read(
    file: BinaryIO, name: str, *, labels: bool, chunk_items: int, limit: int | None, dimension: int | None
) -> Iterator[Chunk | Rejected]:
    """The items of a jsonl file. Raises FormatError when no line has one."""
    return gather(islice(_rows(file, labels=labels), limit), name, chunk_items=chunk_items, dimension=dimension)


def _rows(file: BinaryIO, *, labels: bool) -> Iterator[Row | Rejected]:
    for number, (where, line) in enumerate(lines(file)):
        if isinstance(line, Rejected):
            yield line
            continue
        try:
            yield _row(parsed(line), where, number, labels=labels)
        except InvalidItemError as error:
            yield Rejected(where, reason_of(error))
        except RecursionError:
            yield Rejected(where, f"it is nested too deeply: metadata may have {MAX_METADATA_DEPTH} levels")


def _row(values: dict[str, Any], where: str, number: int, *, labels: bool) -> Row:
    unknown = [key for key in values if key not in KEYS]
    if unknown:
        raise InvalidItemError(
            f"it has the unknown key {shown(unknown[0])}",
            why=f"the keys are {', '.join(KEYS)}, and other data goes into metadata",
        )
    metadata = values.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidItemError(f"metadata is {shown(metadata)}", why="metadata is a JSON object")
    metadata_text(metadata)
    return Row(
        where,
        id_of(values.get("id", number)),
        _vector(values.get("vector")),
        label_of(values.get("label")) if labels else None,
        metadata,
    )


def _vector(value: object) -> npt.NDArray[np.float64]:
    if not isinstance(value, list):
        raise InvalidItemError(f"vector is {shown(value)}", why="a vector is a list of numbers")
    if not set(map(type, value)) <= {int, float}:
        at, wrong = next(pair for pair in enumerate(value) if type(pair[1]) not in (int, float))
        raise InvalidItemError(f"coordinate {at} is {shown(wrong)}", why="a vector is a list of numbers")
    try:
        return np.array(value, np.float64)
    except OverflowError as error:
        raise InvalidItemError("a coordinate is a whole number beyond the range of float32") from error


def parsed(line: bytes) -> dict[str, Any]:
    """The JSON object that a line is. Raises InvalidItemError; RecursionError when it is nested too deeply."""
    text = decoded(line)
    try:
        values = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidItemError(f"it is no JSON: {error.msg} at character {error.pos}") from error
    except ValueError as error:
        raise InvalidItemError("it holds a whole number of more digits than are read") from error
    if not isinstance(values, dict):
        raise InvalidItemError(f"it is {shown(values)}", why="an item is a JSON object")
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise InvalidItemError(f"it has the key {shown(twice)} twice")
    return values


def _no_constant(text: str) -> None:
    raise InvalidItemError(f"it holds {text}", why="JSON has no such number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)
