"""Lines of bounded length, from a stream that may never end."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from stream_hash.errors import InvalidItemError
from stream_hash.formats.records import MAX_LINE_BYTES, Rejected


def lines(file: BinaryIO) -> Iterator[tuple[str, bytes | Rejected]]:
    """Each line that is not blank, without its end, and where it stands; a too long one is refused.

    A byte order mark before the first line is dropped.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        where = f"line {number}"
        if len(line) > MAX_LINE_BYTES:
            _skip_rest(file, line)
            yield where, Rejected(where, f"it is longer than {MAX_LINE_BYTES:,} bytes")
            continue
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if stripped := line.strip(b" \t\r\n"):
            yield where, stripped


def decoded(line: bytes) -> str:
    """`line` as text. Raises InvalidItemError when it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InvalidItemError(
            f"byte {error.start} is {line[error.start]:#04x}", why="the line is not UTF-8"
        ) from error


def _skip_rest(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE_BYTES)
