"""The directories that a process keeps, so that a query need not read tens of thousands of codes.

Rules
1. A kept directory is of the generation that is live, or it is read anew.
2. Whoever probes by it reads, in the same atomic call, which buckets were opened since it was read
   (storage/buckets.py), and hands that to `learn`. What is new, and would have been probed, must be probed before
   there is an answer.
3. Buckets that were emptied may stay in it: a probe finds them empty. Counts may be off, and so may what a budget
   finds: the directory is read anew when it is MOST_SECONDS old, or its partition has a tenth more or fewer items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.clock import now_seconds
from stream_hash.numerics.cheapest import KeptDirectory
from stream_hash.settings import IndexSettings
from stream_hash.storage.buckets import BucketReader, Gathered, Position

MOST_SECONDS: Final = 60.0
MOST_DRIFT: Final = 0.1


@dataclass
class Kept:
    """The directories of one partition: of each table, and its position in the list of opened buckets.

    items : of the partition, and since : the time, when they were read.
    """

    generation: int
    tables: list[KeptDirectory]
    positions: list[Position]
    items: int
    since: float

    @property
    def buckets(self) -> int:
        return sum(map(len, self.tables))


class Directories:
    """Those of one index, by partition."""

    def __init__(self, reader: BucketReader, settings: IndexSettings) -> None:
        self._reader = reader
        self._bits = settings.bits
        self._kept: dict[int, Kept] = {}

    def kept(self, partition: int, generation: int) -> Kept | None:
        """What is kept of a partition, if it may still be used."""
        own = self._kept.get(partition)
        if own is None or own.generation != generation or not 0 <= now_seconds() - own.since < MOST_SECONDS:
            return None
        return own

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[Kept]:
        """For each (partition, generation) its directories, read from the server if they are not kept."""
        missing = [one for one in wanted if self.kept(*one) is None]
        if missing:
            now = now_seconds()
            for (partition, generation), listings in zip(missing, self._reader.directories(missing), strict=True):
                tables = [KeptDirectory(one.codes, one.counts, self._bits) for one in listings]
                positions = [one.position for one in listings]
                self._kept[partition] = Kept(generation, tables, positions, listings[0].items, now)
        return [self._kept[partition] for partition, _ in wanted]

    def forget(self, partition: int | None = None) -> None:
        """Read a partition's anew before they are used again; None for all of them."""
        for one in [partition] if partition is not None else list(self._kept):
            self._kept.pop(one, None)

    def learn(self, partition: int, found: Gathered) -> list[NDArray[np.uint64]] | None:
        """Take in what a gather tells of a partition; its probes came from what is kept.

        Returns, for each table, the codes that were not known; None when the directories have to be read anew.
        """
        own = self._kept[partition]
        opened = [codes for codes in found.opened if codes is not None]
        if len(opened) < len(found.opened) or abs(found.items - own.items) > MOST_DRIFT * own.items:
            self.forget(partition)
            return None
        own.positions = [
            Position(position.cleared, position.length + len(codes))
            for position, codes in zip(own.positions, opened, strict=True)
        ]
        return [table.add(codes) for table, codes in zip(own.tables, opened, strict=True)]
