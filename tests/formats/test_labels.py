"""Label files: what a line means, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest

from stream_hash.errors import FormatError, UsageError
from stream_hash.formats import Rejected, read_labels


def read(content: bytes, **options: Any) -> list[Any]:
    """(id, label), or (where, reason) of a refused line, as a list to tell them apart."""
    parts = read_labels(io.BytesIO(content), **options)
    return [[part.where, part.reason] if isinstance(part, Rejected) else part for part in parts]


def test_jsonl_takes_labels_as_they_are_and_null_takes_one_away() -> None:
    lines = b'{"id": "a", "label": "3"}\n\n{"id": 7, "label": 3}\n{"label": ["x", 1], "id": "b", "vector": []}\n'
    assert read(lines + b'{"id": "c", "label": null}') == [("a", "3"), ("7", 3), ("b", ["x", 1]), ("c", None)]


def test_csv_goes_by_its_header_or_takes_two_cells() -> None:
    assert read(b"x,LABEL,Id\n0,3,a\n0,007,b\n") == [("a", 3), ("b", "007")]
    assert read(b'a,"x, y"\nb,\n') == [("a", "x, y"), ("b", None)]


def test_the_format_can_be_named() -> None:
    assert read(b"{odd,3\n", format="csv") == [("{odd", 3)]
    assert read(b"a,3\n", format="jsonl") == [["line 1", "it is no JSON: Expecting value at character 0"]]
    with pytest.raises(UsageError, match="npy"):
        read_labels(io.BytesIO(b""), format="npy")


def test_a_refused_line_does_not_stop_the_next() -> None:
    lines = [
        b'{"id": "a", "label": NaN}',
        b'{"id": "a"}',
        b'{"id": "", "label": 1}',
        b'{"id": "a", "label": true}',
        b'{"id": "a", "label": ' + b"[" * 10_000,
        b'{"id": "a", "label": "' + b"x" * 2**20,
        b'{"id": "a", "label": "' + b"x" * 2_000 + b'"}',
        b"\xff",
        b'{"id": "a", "label": 1}',
        b'{"id": "a", "label": 2}',
    ]
    *refused, good, repeated = read(b"\n".join(lines))
    assert [where for where, _ in refused] == [f"line {number}" for number in range(1, 9)]
    assert good == ("a", 1)
    assert repeated == ["line 10", "id 'a' already stood at line 9"]


def test_a_line_of_csv_with_too_few_cells_is_refused() -> None:
    assert read(b"id,label\na\nb,c\n") == [["line 2", "it has 1 cells: there must be an id and a label"], ("b", "c")]
    assert read(b"a,b,c\n")[0][0] == "line 1"


def test_a_file_without_a_line_is_refused() -> None:
    with pytest.raises(FormatError, match="is empty"):
        read(b"\n \n")
