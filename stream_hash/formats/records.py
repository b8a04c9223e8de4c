"""What reading a file gives: chunks of items, rows that were refused, and the bounds on memory.

The bounds hold for every format. A file may declare what it likes; what is held in memory at a time
is one chunk and one block or line of the file.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stream_hash.errors import InvalidItemError
from stream_hash.settings import Label

MAX_EXPANDED_BYTES: Final = 8 * 2**30
"""What a compressed file may expand to, and what a stream without an end may be spooled to."""

MAX_CHUNK_BYTES: Final = 8 * 2**20
"""float32 vectors of one chunk: 4,096 items of 512 coordinates."""

MAX_LINE_BYTES: Final = 2**20
"""One line of text with its end: 64 bytes for each of 16,384 coordinates. Not more, because a line of JSON takes up
to 24 times its length in memory once it is parsed."""

MAX_MEMORY_SPOOL_BYTES: Final = 8 * 2**20
"""A spooled stream longer than this lies in a temporary file."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive good items of one file; rows that were refused are left out.

    ids: n texts of 1 to 128 UTF-8 bytes, none of them twice in a file. vectors: (n, D) float32,
    C-contiguous, finite, native byte order; D is the same in all chunks of a file. labels, metadata:
    n entries, None where an item has none.
    """

    ids: list[str]
    vectors: npt.NDArray[np.float32]
    labels: list[Label | None]
    metadata: list[dict[str, Any] | None]


@dataclass(frozen=True)
class Rejected:
    """A row that is no item.

    where: `line 7`, counted from 1 as editors do, or `row 12`, counted from 0 as the ids that stand in
    for missing ones are. reason: one sentence with the value.
    """

    where: str
    reason: str


def shown(value: object) -> str:
    """`value` for a message: shortened, and never recursing deeper than six levels."""
    return reprlib.repr(value)


def reason_of(error: InvalidItemError) -> str:
    """The sentence that a `Rejected` carries for an item that breaks a limit of the settings."""
    return f"{error}: {error.why}" if error.why else str(error)
