"""Matching: which of the items that a filtered search meets match its filter, and their vectors.

Rules
1. An item's id and record are read in one call (identify.lua), or by a scan; its value later. The value counts only if
   it has the id and the sequence number of the record: else the item was written in between, and both are read again.
   So label and metadata were those of the vector that was ranked, or, if only the label was set anew, that of a moment
   before.
2. A scan meets every record that is there all the time.
3. What is known of an item is kept for one attempt at a search, never longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.service.answer import ChangedError
from stream_hash.service.filters import Filter
from stream_hash.service.gathering import Candidates
from stream_hash.service.handle import IndexHandle
from stream_hash.storage.buckets import distinct
from stream_hash.storage.codec import Record, Values
from stream_hash.storage.reads import numbers_of

REPAIRS: Final = 8
"""How often items are read again that were written between record and value, before the search begins again."""

Wanted = Sequence[tuple[int, NDArray[np.int64]]]
"""(partition, item numbers)."""


class Matches:
    """What one attempt knows of the items of an index.

    records : by id, those of the values that were handed out. scanned : records that were met by scanning.
    """

    def __init__(self, handle: IndexHandle, wanted: Filter) -> None:
        self._handle, self._filter = handle, wanted
        self._items: list[dict[int, tuple[str, Record]]] = [{} for _ in range(handle.settings.partitions)]
        self._seen = [np.empty(0, dtype=np.int64)] * handle.settings.partitions
        self.records: dict[str, Record] = {}
        self.scanned = 0

    def among(self, partitions: Sequence[int], found: Sequence[Candidates]) -> list[Candidates]:
        """Those of each query's candidates that match; their records are read unless they were before."""
        new = []
        for at, partition in enumerate(partitions):
            met = distinct(numbers_of(np.concatenate([own.members[at] for own in found])))
            new.append((partition, met[~_contained(met, self._seen[partition])]))
            self._seen[partition] = np.sort(np.concatenate([self._seen[partition], new[-1][1]]))
        self._read(new)
        matching = [self._numbers(partition) for partition in partitions]
        return [
            Candidates([_among(*pair) for pair in zip(own.members, matching, strict=True)], own.items) for own in found
        ]

    def scan(self, most: int) -> Iterator[Wanted]:
        """All items of the index that match, in pieces of `most`, or as many more as one reply has records.

        Between two pieces `keep` is called. An item may be in two pieces, when the server makes room for more records
        meanwhile.
        """
        for partition in range(len(self._items)):
            for texts in self._handle.reader.scan_record_texts(partition):
                self.scanned += len(texts)
                self._take(partition, texts.items())
                if sum(map(len, self._items)) >= most:
                    yield self._all()
        yield self._all()

    def keep(self, ids: set[str]) -> None:
        """Forget what a scan has met, but the records of these."""
        for items in self._items:
            items.clear()
        self.records = {item_id: record for item_id, record in self.records.items() if item_id in ids}

    def _all(self) -> Wanted:
        return [(partition, self._numbers(partition)) for partition, items in enumerate(self._items) if items]

    def values(self, wanted: Wanted, repairs: int = REPAIRS) -> list[Values]:
        """The values of matching items, as Reader.values; items that do not match any more are left out.

        Raises ChangedError when they are written faster than they can be read.
        """
        pairs = zip(wanted, self._handle.reader.values(wanted), strict=True)
        found = [self._right(partition, values) for (partition, _), values in pairs]
        stale = [
            (partition, numbers[~_contained(numbers, np.sort(values.numbers))])
            for (partition, numbers), values in zip(wanted, found, strict=True)
        ]
        if not any(len(numbers) for _, numbers in stale):
            return found
        if not repairs:
            raise ChangedError
        for partition, numbers in stale:
            for number in numbers.tolist():
                self._items[partition].pop(number, None)
        self._read(stale)
        still = [(partition, _among(numbers, self._numbers(partition))) for partition, numbers in stale]
        return [_joined(*pair) for pair in zip(found, self.values(still, repairs - 1), strict=True)]

    def _right(self, partition: int, values: Values) -> Values:
        """Those values that are of the records that match (rule 1)."""
        rows = []
        read = zip(values.numbers.tolist(), values.ids, values.sequences.tolist(), strict=True)
        for row, (number, item_id, sequence) in enumerate(read):
            known = self._items[partition].get(number)
            if known is not None and known[0] == item_id and known[1].sequence == sequence:
                self.records[item_id] = known[1]
                rows.append(row)
        return values if len(rows) == len(values.ids) else _rows(values, rows)

    def _read(self, wanted: Wanted) -> None:
        for (partition, _), texts in zip(wanted, self._handle.reader.record_texts(wanted), strict=True):
            self._take(partition, texts)

    def _take(self, partition: int, texts: Iterable[tuple[bytes, bytes | None]]) -> None:
        for item_id, record in self._filter.matching(texts):
            if record.number is not None:
                self._items[partition][record.number] = item_id, record

    def _numbers(self, partition: int) -> NDArray[np.int64]:
        """Item numbers that match, ascending."""
        return np.array(sorted(self._items[partition]), dtype=np.int64)


def _among(members: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The members, or numbers, of those items. numbers : ascending."""
    return members[_contained(numbers_of(members), numbers)]


def _contained(numbers: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which are among others: np.isin, which may import numpy.ma, and cannot know that these are sorted."""
    if not len(ascending):
        return np.zeros(len(numbers), dtype=np.bool_)
    at = np.minimum(np.searchsorted(ascending, numbers), len(ascending) - 1)
    return np.asarray(ascending[at] == numbers)


def _rows(values: Values, rows: Sequence[int]) -> Values:
    at = np.array(rows, dtype=np.intp)
    return Values(values.numbers[at], values.sequences[at], values.vectors[at], [values.ids[row] for row in rows])


def _joined(one: Values, other: Values) -> Values:
    """Both, by ascending number."""
    both = Values(
        np.concatenate([one.numbers, other.numbers]),
        np.concatenate([one.sequences, other.sequences]),
        np.concatenate([one.vectors, other.vectors]),
        [*one.ids, *other.ids],
    )
    return _rows(both, np.argsort(both.numbers).tolist())
