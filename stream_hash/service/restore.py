"""Import: an exported index as a new one, here or on another server, in as many partitions as wanted.

1. The file is not trusted. What it says of lengths, types and order is checked by its reader (formats/); here items
   keep the limits that producers keep, and models are models of this index. A file that can be read twice is read to
   its end before anything is written, so a bad one leaves nothing behind; what came of a bad pipe is deleted again.
2. Codes are not taken from a file. Each vector is hashed under the live model, as a re-index does, and written by the
   write script, in the order of the file: items get numbers in the order that they had. So with as many partitions
   every query is answered as before, ties included; with others, exact ones and those by radius.
3. Sequence numbers are kept, so what is repeated changes nothing: an import that was killed goes on after the last
   block that is done, and repeats the one after it. A trainer knows as before which labels it has seen.
4. Until the last step nobody can open the index (storage/imports.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Final, NoReturn

import numpy as np

from stream_hash.clock import now_seconds
from stream_hash.errors import FormatError, IndexExistsError, IntegrityError, PartitionFullError, StreamHashError
from stream_hash.formats.archive import damaged
from stream_hash.formats.archive_parts import End, Header, ItemsPart, ModelPart, Part, RunsPart
from stream_hash.formats.archive_reading import read_parts
from stream_hash.numerics.model import Model
from stream_hash.service.ingest import WRITE_BYTES, WRITE_PLACES, item_faults
from stream_hash.service.saved_plan import SavedPlan
from stream_hash.service.training_runs import checked_run
from stream_hash.settings import NUMBER_BITS, IndexSettings, check_name
from stream_hash.storage.codec import Batch, encode_values
from stream_hash.storage.connection import Client
from stream_hash.storage.imports import Begun, Imports, given_up
from stream_hash.storage.keys import partition_of
from stream_hash.storage.models import GenerationRecord, Models
from stream_hash.storage.places import encode_places
from stream_hash.storage.store import WRITE_ITEMS, Stale, State, Store

FULL: Final = 0.95
"""Of the item numbers of all partitions, the share that may be taken: ids do not spread evenly."""


@dataclass
class Imported:
    """items : rows of the file. generations : models. skipped : items that an earlier attempt had brought in.
    already : the index stood, complete, and nothing was done.
    """

    items: int = 0
    generations: int = 0
    skipped: int = 0
    live: int = 0
    partitions: int = 1
    already: bool = False


def import_index(
    client: Client,
    file: BinaryIO,
    name: str,
    index: str,
    *,
    partitions: int | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Make an index of an exported file. name : of the file, for messages. partitions : as many as it had, unless
    given. show : told how far it has come.

    Raises FormatError for a file that is damaged or lies, IndexExistsError when an index of that name stands, or is
    being imported from another file; StreamHashError when the import is given up meanwhile.
    """
    check_name(index)
    if file.seekable():
        start = file.tell()
        for part in _checked(file, name):
            if isinstance(part, Header):
                _check_room(part, partitions)
            elif isinstance(part, ItemsPart):
                show(f"checking {name}: block {part.number}")
        file.seek(start)
    return _Import(client, index, partitions, show).run(_checked(file, name))


def _checked(file: BinaryIO, name: str) -> Iterator[Part]:
    """The parts of a file, of which each item could be stored and each model used."""
    header: Header | None = None
    for number, part in enumerate(read_parts(file, name)):

        def wrong(why: str, number: int = number) -> NoReturn:
            raise damaged(name, f"block {number} is not as it should be", why)

        if isinstance(part, Header):
            header = part
            if part.plan is not None and SavedPlan.of(part.plan) is None:
                wrong("its saved plan is none that can be used")
        assert header is not None  # noqa: S101 - it is the first part
        if isinstance(part, ModelPart):
            try:
                _model_of(part, header.settings)
            except StreamHashError as error:
                wrong(f"generation {part.generation} has no model of this index: {error}")
        elif isinstance(part, RunsPart):
            for run in part.runs:
                try:
                    checked_run(run)
                except IntegrityError as error:
                    wrong(str(error))
        elif isinstance(part, ItemsPart):
            batch = Batch("upsert", part.ids, part.vectors, part.labels, part.metadata)
            for position, fault in sorted(item_faults(batch, header.settings).items()):
                wrong(f"item {position} of it, {part.ids[position]!r:.80}: {fault:.200}")
        yield part


def _model_of(part: ModelPart, settings: IndexSettings) -> Model:
    """Raises IntegrityError when the arrays are not those of a model of such an index."""
    try:
        model = Model.from_arrays(part.arrays)
    except (ValueError, TypeError, OverflowError) as error:
        raise IntegrityError("the arrays are not those of a model", why=f"{error!s:.200}") from error
    found = (model.metric, model.tables, model.bits, model.dimension)
    wanted = (settings.metric, settings.tables, settings.bits, settings.dimension)
    if found != wanted:
        raise IntegrityError(f"it hashes for metric, tables, bits and dimension {found}, not {wanted}")
    return model


def _settings(header: Header, partitions: int | None) -> IndexSettings:
    return header.settings if partitions is None else replace(header.settings, partitions=partitions)


def _check_room(header: Header, partitions: int | None) -> None:
    """Raises PartitionFullError when so many items will not fit: told before the first is written."""
    settings = _settings(header, partitions)
    if header.items > FULL * (settings.partitions << NUMBER_BITS):
        raise PartitionFullError(
            f"{header.items} items do not fit into {settings.partitions} partitions",
            why=f"a partition holds {1 << NUMBER_BITS}",
            remedy="import with more --partitions",
        )


@dataclass
class _Import:
    """One attempt."""

    client: Client
    index: str
    wanted: int | None
    show: Callable[[str], None]
    done: Imported = field(default_factory=Imported)

    def __post_init__(self) -> None:
        self._imports = Imports(self.client, self.index)
        self._models = Models(self.client, self.index)
        self._store = Store(self.client, self.index)
        self._runs: list[dict[str, Any]] = []
        self._newest = 0
        self._model: Model | None = None

    def run(self, parts: Iterator[Part]) -> Imported:
        header = next(parts)
        assert isinstance(header, Header)  # noqa: S101 - read_parts sees to it
        settings = _settings(header, self.wanted)
        _check_room(header, self.wanted)
        begun = self._imports.begin(header.digest, settings, sequence=header.sequence, now=now_seconds())
        self.done.live, self.done.partitions = header.live, settings.partitions
        if begun is None:
            return self._stands(settings)
        try:
            for part in parts:
                self._take(part, header, settings, begun)
        except FormatError:
            # a pipe: what came before the damage is worth nothing, and nobody could go on with it
            self._imports.abandon()
            raise
        return self.done

    def _stands(self, settings: IndexSettings) -> Imported:
        """The index came of this very archive. Raises IndexExistsError when it has other partitions."""
        standing = self._store.settings().settings
        if standing != settings:
            raise IndexExistsError(
                f"index {self.index!r} was imported from this file with other settings",
                why=standing.differences(settings),
                remedy="choose another name",
            )
        self.done.already = True
        return self.done

    def _take(self, part: Part, header: Header, settings: IndexSettings, begun: Begun) -> None:
        if isinstance(part, ModelPart):
            self._publish(begun.nonce, part, header, settings)
        elif isinstance(part, RunsPart):
            self._runs = [checked_run(run).to_dict() for run in part.runs]
            if header.live:
                self._store.activate(settings, header.live, begun.nonce)
        elif isinstance(part, ItemsPart):
            self.done.items += len(part.ids)
            self._newest = max(self._newest, int(part.label_sequences.max()))
            if part.number >= begun.done:
                self._write(part, header.live, settings)
                self._imports.advance(begun.nonce, part.number + 1, self.done.items)
            else:
                self.done.skipped += len(part.ids)
            self.show(f"{self.done.items} of {header.items} items")
        elif isinstance(part, End):
            self._imports.finish(
                begun.nonce,
                header.digest,
                settings,
                sequence=max(header.sequence, part.sequence, self._newest),
                items=self.done.items,
                target=header.target,
                plan=header.plan,
                runs=self._runs,
            )

    def _publish(self, nonce: str, part: ModelPart, header: Header, settings: IndexSettings) -> None:
        if part.generation == header.live:
            self._model = _model_of(part, settings)
        self.done.generations += 1
        record = GenerationRecord(part.generation, "", part.kind, part.created, part.parent, part.origin, part.figures)
        if not self._models.restore(nonce, record, part.arrays):
            raise IntegrityError(
                f"another model stands as generation {part.generation} of index {self.index!r}",
                why="something of an earlier index is left under this name",
                remedy="import it under another name",
            )

    def _write(self, part: ItemsPart, live: int, settings: IndexSettings) -> None:
        """Write the items of a block, in calls of bounded server time."""
        assert self._model is not None  # noqa: S101 - read_parts: items have a live generation, and its model is there
        hashed = self._model.encode(part.vectors)
        places = encode_places(hashed.codes, hashed.signatures, settings)
        values = encode_values(part.sequences, part.vectors, part.ids, settings.dtype)
        by_partition: dict[int, list[int]] = {}
        for position, item_id in enumerate(part.ids):
            by_partition.setdefault(partition_of(item_id, settings.partitions), []).append(position)
        most = max(1, min(WRITE_ITEMS, WRITE_PLACES // settings.tables, WRITE_BYTES // (4 * settings.dimension)))
        for partition, positions in by_partition.items():
            for start in range(0, len(positions), most):
                rows = positions[start : start + most]
                self._call(partition, State(live), part, rows, values, places[rows])

    def _call(
        self,
        partition: int,
        state: State,
        part: ItemsPart,
        rows: list[int],
        values: list[bytes],
        places: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    ) -> None:
        """One call; and one more for labels that came after their items, or were taken away."""
        later = [row for row in rows if part.label_sequences[row] > part.sequences[row]]
        without = set(later)
        outcomes = self._store.upsert(
            partition,
            state,
            [part.ids[row] for row in rows],
            part.sequences[rows].tolist(),
            [values[row] for row in rows],
            ["" if row in without else part.labels[row] for row in rows],
            [part.metadata[row] for row in rows],
            [places],
        )
        if later and not isinstance(outcomes, Stale):
            outcomes = self._store.label(
                partition,
                state,
                [part.ids[row] for row in later],
                part.label_sequences[later].tolist(),
                [part.labels[row] for row in later],
            )
        if isinstance(outcomes, Stale):
            raise given_up(self.index)


def abandon_import(client: Client, index: str) -> bool:
    """Give up an import that was begun, and delete what it wrote; False when none is under way."""
    return Imports(client, check_name(index)).abandon()
