"""Verify: are the invariants of an index true, also while it is being written?

1. Each item is in exactly one bucket a table of each writable generation, under the hash of its vector.
2. No bucket holds a member without an item.
3. The directory counts as many members as each bucket holds.
4. A record, its value, its place in the list of labelled items and the partition's counts belong together; no
   item number is both free and in use.
5. Only writable generations have buckets.
6. accepted = applied + pending + dead, and no stored sequence number is above the last one given out.

Everything is first read in bulk, which under writes sees some items half before and half after a write.
Whatever looks wrong is then looked at again, each in one atomic read, and reported only if it is wrong there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.model import Encoded
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import NUMBER_BITS
from stream_hash.storage.codec import Record, Values
from stream_hash.storage.inspect import Inspector

_BUCKETS_AT_ONCE = 1_024


@dataclass
class Report:
    """What was looked at, and what is wrong, a sentence each."""

    items: int = 0
    buckets: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.violations


@dataclass
class _Suspects:
    """What a bulk read left in doubt: ids, (table, code) of buckets, (table, code, member) by generation."""

    ids: set[str] = field(default_factory=set)
    buckets: set[tuple[int, int, int]] = field(default_factory=set)
    members: set[tuple[int, int, int, int]] = field(default_factory=set)


def verify(handle: IndexHandle) -> Report:
    """Check every invariant of an index. It changes nothing and may run beside any traffic."""
    report = Report()
    handle.reload_states()
    for partition in range(handle.settings.partitions):
        _Partition(handle, partition, report).verify()
    balance = handle.ledger.balance()
    if not balance.holds:
        report.violations.append(
            f"the ledger has accepted {balance.accepted} items, but applied {balance.applied}, has "
            f"{balance.pending} pending and {balance.dead} dead"
        )
    return report


class _Partition:
    """One partition being verified."""

    def __init__(self, handle: IndexHandle, partition: int, report: Report) -> None:
        self._handle = handle
        self._partition = partition
        self._report = report
        self._inspector = Inspector(handle.client, handle.name, handle.settings)
        self._suspects = _Suspects()
        self._expected: dict[tuple[int, int], list[NDArray[np.uint64]]] = {}
        self._last_sequence = 0
        self._labelled: dict[int, int] = {}
        self._free: set[int] = set()

    def verify(self) -> None:
        seen: set[str] = set()
        self._last_sequence = self._handle.ledger.last_sequence()
        self._labelled = self._inspector.labelled(self._partition)
        self._free = set(self._inspector.free_numbers(self._partition))
        for values in self._handle.reader.scan_values(self._partition):
            seen.update(values.ids)
            self._check_values(values)
        for piece in self._handle.reader.scan_records(self._partition):
            self._suspects.ids.update(i for i, r in piece if r.number is not None and i not in seen)
        for generation in self._handle.states[self._partition].writable:
            for table in range(self._handle.settings.tables):
                self._check_table(generation, table)
        self._check_retired()
        self._settle()
        self._report.items += len(seen)

    def _say(self, sentence: str) -> None:
        self._report.violations.append(f"partition {self._partition}: {sentence}")

    def _check_values(self, values: Values) -> None:
        """Compare values with their records, and note where each item has to be."""
        records = self._handle.reader.records(values.ids)
        writable = self._handle.states[self._partition].writable
        encoded = {g: self._handle.model(g).encode(values.vectors) for g in writable}
        if not values.ids:
            return
        for row, record in enumerate(records):
            number, sequence = int(values.numbers[row]), int(values.sequences[row])
            if number in self._free and self._inspector.is_free_and_used(self._partition, number):
                self._say(f"item number {number} is free and in use")
            listed = self._labelled.pop(number, None)
            if (
                record is None
                or (record.number, record.sequence) != (number, sequence)
                or sequence > self._last_sequence
                or listed != (record.label_sequence if record.label else None)
                or self._wrong_codes(record, encoded, row)
            ):
                self._suspects.ids.add(values.ids[row])
        for generation, hashed in encoded.items():
            members = (hashed.signatures << np.uint64(NUMBER_BITS)) | values.numbers.astype(np.uint64)
            for table in range(self._handle.settings.tables):
                pairs = np.stack([hashed.codes[:, table], members], axis=1)
                self._expected.setdefault((generation, table), []).append(pairs)

    def _wrong_codes(self, record: Record, encoded: dict[int, Encoded], row: int) -> bool:
        """Whether a record's codes are not exactly the hashes of the item's vector."""
        stored = {m.generation: m for m in record.members if m.generation in encoded}
        return any(
            generation not in stored
            or stored[generation].codes != hashed.codes[row].tolist()
            or stored[generation].member >> NUMBER_BITS != int(hashed.signatures[row])
            for generation, hashed in encoded.items()
        )

    def _check_table(self, generation: int, table: int) -> None:
        """Compare the members of all buckets of one table with where the items have to be."""
        found = []
        codes, counts = self._handle.reader.directories([(self._partition, generation)])[0][table]
        self._report.buckets += len(codes)
        for code, count, members in self._buckets(generation, table, codes, counts):
            if len(members) != count:
                self._suspects.buckets.add((generation, table, code))
            found.append(np.stack([np.full(len(members), code, np.uint64), members.astype(np.uint64)], axis=1))
        empty = [np.empty((0, 2), np.uint64)]
        actual = np.concatenate(found or empty)
        expected = np.concatenate(self._expected.get((generation, table)) or empty)
        for code, member in _difference(actual, expected):
            self._suspects.members.add((generation, table, code, member))
        missing = {member & ((1 << NUMBER_BITS) - 1) for _, member in _difference(expected, actual)}
        if missing:
            numbers = np.array(sorted(missing), dtype=np.int64)
            self._suspects.ids.update(self._handle.reader.values([(self._partition, numbers)])[0].ids)

    def _buckets(
        self, generation: int, table: int, codes: NDArray[np.uint64], counts: NDArray[np.int64]
    ) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        for start in range(0, len(codes), _BUCKETS_AT_ONCE):
            piece = slice(start, start + _BUCKETS_AT_ONCE)
            members = self._handle.reader.bucket_members(self._partition, generation, table, codes[piece])
            yield from zip(codes[piece].tolist(), counts[piece].tolist(), members, strict=True)

    def _check_retired(self) -> None:
        """No generation that cannot be written has buckets left."""
        writable = set(self._handle.states[self._partition].writable)
        retired = [r.generation for r in self._handle.models.records() if r.generation not in writable]
        directories = self._handle.reader.directories([(self._partition, g) for g in retired])
        for generation, tables in zip(retired, directories, strict=True):
            left = sum(len(codes) for codes, _ in tables)
            if left and generation not in self._handle.store.states(self._partition + 1)[-1].writable:
                self._say(f"generation {generation} is not in use and has {left} buckets left")

    def _settle(self) -> None:
        """Look at each suspect again, atomically, and report those that are wrong."""
        for item_id in sorted(self._suspects.ids):
            self._settle_item(item_id)
        for generation, table, code in sorted(self._suspects.buckets):
            size, counted = self._inspector.bucket(self._partition, generation, table, code)
            if size != counted:
                self._say(f"bucket {code} of table {table}, generation {generation} holds {size}, not {counted}")
        for generation, table, code, member in sorted(self._suspects.members):
            if not self._inspector.member_is_explained(self._partition, generation, table, code, member):
                self._say(
                    f"bucket {code} of table {table}, generation {generation} holds member {member}, "
                    "which belongs to no item"
                )
        for number in sorted(self._labelled):
            if self._inspector.is_listed_in_vain(self._partition, number):
                self._say(f"item number {number} is listed as labelled and belongs to no item")
        counts = self._inspector.counts(self._partition)
        if counts.items != counts.records:
            self._say(f"it counts {counts.items} items and has records of {counts.records}")
        if counts.items + counts.free != counts.given:
            self._say(f"of {counts.given} item numbers {counts.items} are in use and {counts.free} free")

    def _settle_item(self, item_id: str) -> None:
        view = self._inspector.item(self._partition, item_id)
        if view.record is None or view.record.number is None:
            if view.value is not None:
                self._say(f"item {item_id!r} has a value and no record")
            return
        if view.value is None:
            self._say(f"item {item_id!r} has a record and no value")
            return
        if (view.value.ids[0], int(view.value.sequences[0])) != (item_id, view.record.sequence):
            self._say(f"the record and the value of item {item_id!r} are of different writes")
        if view.record.sequence > self._handle.ledger.last_sequence():
            self._say(f"item {item_id!r} has a sequence number that was never given out")
        if view.listed != (view.record.label_sequence if view.record.label else None):
            self._say(f"item {item_id!r} is not listed as labelled under the sequence number of its label")
        self._handle.states[self._partition] = view.state
        encoded = {g: self._handle.model(g).encode(view.value.vectors) for g in view.state.writable}
        if self._wrong_codes(view.record, encoded, 0):
            self._say(f"item {item_id!r} is stored under codes that are not the hash of its vector")
        for stored, present in zip(view.record.members, view.present, strict=True):
            if stored.generation not in encoded:
                continue
            for table, held in enumerate(present):
                if not held:
                    self._say(
                        f"item {item_id!r} is missing from its bucket {stored.codes[table]} of table {table}, "
                        f"generation {stored.generation}"
                    )
                    continue
                size, counted = self._inspector.bucket(self._partition, stored.generation, table, stored.codes[table])
                if size != counted:
                    self._say(
                        f"bucket {stored.codes[table]} of table {table}, generation {stored.generation} "
                        f"holds {size}, not {counted}"
                    )


def _difference(these: NDArray[np.uint64], those: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """The (code, member) rows of `these` that are not among `those`."""
    pair = np.dtype([("code", np.uint64), ("member", np.uint64)])
    a = np.ascontiguousarray(these).view(pair).ravel()
    b = np.ascontiguousarray(those).view(pair).ravel()
    return [(int(code), int(member)) for code, member in np.setdiff1d(a, b)]
