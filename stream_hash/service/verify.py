"""Verify: are the invariants of an index true, also while it is being written?

1. Each item is in exactly one bucket a table of each writable generation, under the hash of its vector; of the
   generation that is being built, only if its chunk is said to be there, or else not at all.
2. No bucket holds a member without an item, and no item number has a place without one.
3. The directory counts as many members as each bucket holds, and the partition as many as the directory.
4. A record, its value, its place in the list of labelled items and the partition's counts belong together; no
   item number is both free and in use.
5. Only generations that are writable or being retired have keys.
6. accepted = applied + pending + dead + dropped, the dead letters hold as many items as are counted as dead, and no
   stored sequence number is above the last one given out.

Everything is first read in bulk, which under writes sees some items half before and half after a write.
Whatever looks wrong is then looked at again, some at a time in one atomic read, and reported only if it is wrong there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import GenerationGoneError
from stream_hash.service.dead_letters import each_letter
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import NUMBER_BITS
from stream_hash.storage.codec import Values
from stream_hash.storage.generations import CHUNK, chunks_of
from stream_hash.storage.inspect import Inspector, ItemPlace, ItemView
from stream_hash.storage.places import decode_places, encode_places
from stream_hash.storage.reads import FETCH_VALUES

_Suspect = TypeVar("_Suspect", int, str, tuple[int, int], tuple[int, int, int])

_BUCKETS_AT_ONCE = 1_024
_SETTLED_AT_ONCE = 256
_ITEMS_AT_ONCE = 64
"""Suspects that one MULTI reads: a few milliseconds of server time."""
_LOOKS = 3


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
    """What a bulk read left in doubt: ids; (generation, table, code) of buckets; generation → (table, code, member);
    (generation, item number) of places; item numbers that are free.
    """

    ids: set[str] = field(default_factory=set)
    buckets: set[tuple[int, int, int]] = field(default_factory=set)
    members: dict[int, set[tuple[int, int, int]]] = field(default_factory=dict)
    places: set[tuple[int, int]] = field(default_factory=set)
    free: set[int] = field(default_factory=set)


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
            f"{balance.pending} pending, {balance.dead} dead and has dropped {balance.dropped}"
        )
    fault = letters_fault(handle)
    if fault:
        report.violations.append(fault)
    return report


def letters_fault(handle: IndexHandle) -> str | None:
    """What is wrong with the count of dead items, if anything is. Letters may come and go: it looks several times."""
    for _ in range(_LOOKS):
        counted = handle.ledger.balance().dead
        held = sum(letter.items for letter in each_letter(handle))
        if held == counted or handle.ledger.balance().dead != counted:
            return None
    return f"the dead letters hold {held} items, and {counted} are counted as dead"


class _Partition:
    """One partition being verified."""

    def __init__(self, handle: IndexHandle, partition: int, report: Report) -> None:
        self._handle = handle
        self._partition = partition
        self._report = report
        self._inspector = Inspector(handle.client, handle.name, handle.settings)
        self._suspects = _Suspects()
        self._tables = handle.settings.tables
        self._expected: dict[tuple[int, int], list[NDArray[np.uint64]]] = {}
        self._last_sequence = 0
        self._labelled: dict[int, int] = {}
        self._free: set[int] = set()
        self._built: dict[int, NDArray[np.bool_]] = {}

    def verify(self) -> None:
        seen: set[str] = set()
        self._last_sequence = self._handle.ledger.last_sequence()
        self._labelled = self._inspector.labelled(self._partition)
        self._free = set(self._inspector.free_numbers(self._partition))
        writable = self._handle.states[self._partition].writable
        chunks = chunks_of(self._handle.reader.sizes()[self._partition][1])
        for generation in writable:
            # read before the places: what is said to be built then has to be there
            self._built[generation] = self._handle.generations.built(self._partition, generation, chunks + 1)
        for piece, values in enumerate(self._handle.reader.scan_values(self._partition)):
            seen.update(values.ids)
            self._check_values(values)
            for generation in writable:
                self._check_places(generation, piece * FETCH_VALUES, values)
        for records in self._handle.reader.scan_records(self._partition):
            self._suspects.ids.update(i for i, r in records if r.number is not None and i not in seen)
        for generation in writable:
            for table in range(self._tables):
                self._check_table(generation, table)
        self._check_retired()
        self._settle()
        self._check_counts()
        self._report.items += len(seen)

    def _say(self, sentence: str) -> None:
        self._report.violations.append(f"partition {self._partition}: {sentence}")

    def _check_values(self, values: Values) -> None:
        """Compare values with their records."""
        for row, record in enumerate(self._handle.reader.records(values.ids)):
            number, sequence = int(values.numbers[row]), int(values.sequences[row])
            if number in self._free:
                self._suspects.free.add(number)
            listed = self._labelled.pop(number, None)
            if (
                record is None
                or (record.number, record.sequence) != (number, sequence)
                or sequence > self._last_sequence
                or listed != (record.label_sequence if record.label else None)
            ):
                self._suspects.ids.add(values.ids[row])

    def _check_places(self, generation: int, first: int, values: Values) -> None:
        """Compare the places of the item numbers from `first` on with the hashes of their items, and note in which
        bucket each item has to be.
        """
        settings = self._handle.settings
        try:
            model = self._handle.model(generation)
        except GenerationGoneError:
            return  # it went out of use since, and was forgotten
        stored = self._handle.reader.places(self._partition, generation, first, FETCH_VALUES)
        rows = values.numbers - first
        hashed = model.encode(values.vectors)
        differs = (stored[rows] != encode_places(hashed.codes, hashed.signatures, settings)).any(axis=1)
        placed = decode_places(stored[rows], settings)
        if generation != self._handle.states[self._partition].live:
            built = self._built[generation]  # the last stands for chunks that came later
            differs &= placed.occupied | built[np.minimum(values.numbers // CHUNK, len(built) - 1)]
        vain = decode_places(stored, settings).occupied
        vain[rows] = False
        if (differs.any() or vain.any()) and not self._is_written(generation):
            return
        self._suspects.ids.update(values.ids[row] for row in np.flatnonzero(differs).tolist())
        self._suspects.places.update((generation, first + int(number)) for number in np.flatnonzero(vain))
        members = (hashed.signatures << np.uint64(NUMBER_BITS)) | values.numbers.astype(np.uint64)
        for table in range(settings.tables):
            pairs = np.stack([hashed.codes[:, table], members], axis=1)[placed.occupied]
            self._expected.setdefault((generation, table), []).append(pairs)

    def _is_written(self, generation: int) -> bool:
        """Whether a generation that was written is so still: its keys may be going."""
        return generation in self._handle.store.states(self._partition + 1)[-1].writable

    def _check_table(self, generation: int, table: int) -> None:
        """Compare the members of all buckets of one table with where the items have to be."""
        found, miscounted = [], []
        listing = self._handle.buckets.directories([(self._partition, generation)])[0][table]
        codes, counts = listing.codes, listing.counts
        self._report.buckets += len(codes)
        for code, count, members in self._buckets(generation, table, codes, counts):
            if len(members) != count:
                miscounted.append(code)
            found.append(np.stack([np.full(len(members), code, np.uint64), members.astype(np.uint64)], axis=1))
        empty = [np.empty((0, 2), np.uint64)]
        actual = np.concatenate(found or empty)
        expected = np.concatenate(self._expected.get((generation, table)) or empty)
        if not self._is_written(generation):
            return
        self._suspects.buckets.update((generation, table, code) for code in miscounted)
        unexpected = {(table, code, member) for code, member in _difference(actual, expected)}
        self._suspects.members.setdefault(generation, set()).update(unexpected)
        missing = {member & ((1 << NUMBER_BITS) - 1) for _, member in _difference(expected, actual)}
        if missing:
            numbers = np.array(sorted(missing), dtype=np.int64)
            self._suspects.ids.update(self._handle.reader.values([(self._partition, numbers)])[0].ids)

    def _buckets(
        self, generation: int, table: int, codes: NDArray[np.uint64], counts: NDArray[np.int64]
    ) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        for start in range(0, len(codes), _BUCKETS_AT_ONCE):
            piece = slice(start, start + _BUCKETS_AT_ONCE)
            members = self._handle.buckets.members(self._partition, generation, table, codes[piece])
            yield from zip(codes[piece].tolist(), counts[piece].tolist(), members, strict=True)

    def _check_retired(self) -> None:
        """No generation that is neither written nor being retired has anything left."""
        for record in self._handle.models.records():
            left = self._inspector.leftovers(self._partition, record.generation)
            if left:
                self._say(f"generation {record.generation} is not in use and has {left} keys left")

    def _settle(self) -> None:
        """Look at the suspects again, atomically, and report those that are wrong."""
        for numbers in _pieces(self._suspects.free):
            for number in self._inspector.free_and_used(self._partition, numbers):
                self._say(f"item number {number} is free and in use")
        self._settle_items()
        for buckets in _pieces(self._suspects.buckets):
            for generation, table, code, size, counted in self._inspector.miscounted(self._partition, buckets):
                self._say(f"bucket {code} of table {table}, generation {generation} holds {size}, not {counted}")
        for generation, members in sorted(self._suspects.members.items()):
            self._settle_members(generation, members)
        for places in _pieces(self._suspects.places):
            for generation, number in self._inspector.occupied_in_vain(self._partition, places):
                self._say(f"item number {number} has a place in generation {generation} and belongs to no item")
        for numbers in _pieces(self._labelled):
            for number in self._inspector.listed_in_vain(self._partition, numbers):
                self._say(f"item number {number} is listed as labelled and belongs to no item")

    def _check_counts(self) -> None:
        """The partition's counts and what they count, each read at one moment."""
        for generation, table in product(self._handle.states[self._partition].writable, range(self._tables)):
            counted, held = self._inspector.members(self._partition, generation, table)
            if counted != held and self._is_written(generation):
                self._say(f"it counts {counted} members in table {table}, generation {generation}, which has {held}")
        counts = self._inspector.counts(self._partition)
        if counts.items != counts.records:
            self._say(f"it counts {counts.items} items and has records of {counts.records}")
        if counts.items + counts.free != counts.given:
            self._say(f"of {counts.given} item numbers {counts.items} are in use and {counts.free} free")

    def _settle_members(self, generation: int, members: Iterable[tuple[int, int, int]]) -> None:
        for some in _pieces(members):
            for table, code, member in self._inspector.unexplained(self._partition, generation, some):
                self._say(
                    f"bucket {code} of table {table}, generation {generation} holds member {member}, "
                    "which belongs to no item"
                )

    def _settle_items(self) -> None:
        for ids in _pieces(self._suspects.ids, _ITEMS_AT_ONCE):
            views = self._inspector.items(self._partition, ids)
            # read after them: what they carry was given out by then
            last_sequence = self._handle.ledger.last_sequence()
            for item_id, view in views.items():
                self._settle_item(item_id, view, last_sequence)

    def _settle_item(self, item_id: str, view: ItemView, last_sequence: int) -> None:
        if view.record is None or view.record.number is None:
            if view.value is not None:
                self._say(f"item {item_id!r} has a value and no record")
            return
        if view.value is None:
            self._say(f"item {item_id!r} has a record and no value")
            return
        if (view.value.ids[0], int(view.value.sequences[0])) != (item_id, view.record.sequence):
            self._say(f"the record and the value of item {item_id!r} are of different writes")
        if view.record.sequence > last_sequence:
            self._say(f"item {item_id!r} has a sequence number that was never given out")
        if view.listed != (view.record.label_sequence if view.record.label else None):
            self._say(f"item {item_id!r} is not listed as labelled under the sequence number of its label")
        self._handle.states[self._partition] = view.state
        for generation, place in view.places.items():
            if place is not None:
                self._settle_place(item_id, view.value, generation, place)
            elif generation == view.state.live or view.built:
                self._say(f"item {item_id!r} has no place in generation {generation}")

    def _settle_place(self, item_id: str, value: Values, generation: int, place: ItemPlace) -> None:
        try:
            hashed = self._handle.model(generation).encode(value.vectors)
        except GenerationGoneError:
            return  # it went out of use since, and was forgotten
        if (place.codes, place.signature) != (hashed.codes[0].tolist(), int(hashed.signatures[0])):
            self._say(
                f"item {item_id!r} is stored under codes that are not the hash of its vector, generation {generation}"
            )
        for table, held in enumerate(place.present):
            if held:
                self._suspects.buckets.add((generation, table, place.codes[table]))
            else:
                self._say(
                    f"item {item_id!r} is missing from its bucket {place.codes[table]} of table {table}, "
                    f"generation {generation}"
                )


def _pieces(suspects: Iterable[_Suspect], size: int = _SETTLED_AT_ONCE) -> Iterator[list[_Suspect]]:
    """The suspects in order, some at a time."""
    ordered = sorted(suspects)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _difference(these: NDArray[np.uint64], those: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """The (code, member) rows of `these` that are not among `those`."""
    pair = np.dtype([("code", np.uint64), ("member", np.uint64)])
    a = np.ascontiguousarray(these).view(pair).ravel()
    b = np.ascontiguousarray(those).view(pair).ravel()
    return [(int(code), int(member)) for code, member in np.setdiff1d(a, b)]
