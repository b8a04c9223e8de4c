"""What an export that did not come to its end has left, and where it can go on.

1. A process that is killed leaves a file that is cut anywhere; a machine that loses its power one whose end may be
   anything. Checksums tell what was written: it is good up to the last block before the first that is not.
2. It can go on after a block that says where in the index it ends. What follows that block is written again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from stream_hash.errors import FormatError
from stream_hash.formats.archive import ArchiveReader, Place
from stream_hash.formats.archive_parts import BOUNDS, Header, ItemsPart, ModelPart
from stream_hash.formats.archive_reading import parts_of
from stream_hash.formats.opening import Readable


@dataclass(frozen=True)
class Partial:
    """generations : models. items : rows. after : the partition, and the item number before which all are there.
    place : where the next block is written.
    """

    header: Header
    generations: int
    items: int
    after: tuple[int, int]
    place: Place


def partial_of(file: Readable, name: str) -> Partial | None:
    """What is good of a file that is read from its front; None when it does not come as far as the first items."""
    reader = ArchiveReader(file, name, BOUNDS)
    header: Header | None = None
    generations, items, found = 0, 0, None
    with suppress(FormatError):  # rule 1: where it ends
        for part in parts_of(reader, name):
            if isinstance(part, Header):
                header = part
            elif isinstance(part, ModelPart):
                generations += 1
            elif isinstance(part, ItemsPart):
                items += len(part.ids)
                if header is not None and part.after is not None:
                    found = Partial(header, generations, items, part.after, reader.place())
    return found
