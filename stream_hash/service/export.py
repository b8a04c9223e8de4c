"""Export: an index as one file, read while it is used.

1. Settings, the saved plan, the models of all kept generations and the runs of training come first, as they are when
   the export begins. Then every partition is read by ascending item number, a bounded piece at a time.
2. Each item is written as it was at some moment of the export: a value and a record count only if they are of the same
   write; if not, they are read again, in one atomic call.
3. An item that is there all the time is in the file: its number stays. One that is stored, changed or deleted meanwhile
   may be in it as it was before or after; one that is deleted and stored again may be missing, or there twice, and
   then the newer one counts, by its sequence number.
4. Batches that are pending, dead letters, the learner's state and the figures of live quality are not in it.
5. One that was interrupted can go on: every block of items says before which item number of which partition all has
   been written, and numbers stay, whatever becomes of the items. So 1 to 3 hold of the whole time from the first
   beginning to the end, if that is a week: what was written before is not read again. Nobody goes on unasked for that.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import BinaryIO, Final

import numpy as np

from stream_hash.clock import now_seconds
from stream_hash.errors import IndexMissingError, ModelMissingError
from stream_hash.formats.archive import ArchiveWriter, Writable
from stream_hash.formats.archive_partial import Partial, partial_of
from stream_hash.formats.archive_parts import (
    ITEMS_A_BLOCK,
    VECTOR_BYTES,
    Header,
    ItemsPart,
    ModelPart,
    write_end,
    write_header,
    write_items,
    write_model,
    write_runs,
)
from stream_hash.service.handle import IndexHandle
from stream_hash.service.saved_plan import PlanKeeper
from stream_hash.storage.codec import Record, Values
from stream_hash.storage.inspect import Inspector

RETRIES: Final = 8
CHANGED_AT_ONCE: Final = 64
"""Items that were written while they were read, and are read again in one MULTI."""


@dataclass(frozen=True)
class Exported:
    """What was written. generations : models. sha256 : of all before the last block, which carries it. began : Unix
    seconds. skipped : items that an earlier attempt had written.
    """

    items: int
    generations: int
    bytes: int
    sha256: str
    began: float
    skipped: int = 0


def export_index(
    handle: IndexHandle, file: Writable, *, writer: str, show: Callable[[str], None] = lambda _: None
) -> Exported:
    """Write an index to a file, from front to back. writer : the version that does. show : told how far it has come.

    Raises IndexMissingError when it was wiped meanwhile.
    """
    archive = ArchiveWriter(file)
    header, models = _beginning(handle, writer)
    write_header(archive, header)
    for model in models:
        write_model(archive, model)
    write_runs(archive, handle.trainer.runs())
    return _rest(handle, archive, Partial(header, len(models), 0, (0, 0), archive.place()), show)


def resume_export(
    handle: IndexHandle, file: BinaryIO, name: str, *, writer: str, show: Callable[[str], None] = lambda _: None
) -> Exported:
    """Go on with what an export that was interrupted has left in a file; begin anew when that is nothing.

    file : read, cut and written. name : of the file, for messages. Raises IndexMissingError when another index was
    being exported, be it an earlier one of this name.
    """
    partial = partial_of(file, name)
    if partial is None:
        file.seek(0)
        file.truncate()
        return export_index(handle, file, writer=writer, show=show)
    if partial.header.nonce != handle.identity.nonce:
        raise IndexMissingError(
            f"{name} is of an index {partial.header.index!r} that is not {handle.name!r} as it stands",
            why="that one was dropped or wiped, or has another name",
            remedy="export without --resume",
        )
    file.seek(partial.place.size)
    file.truncate()
    return _rest(handle, ArchiveWriter(file, partial.place), partial, show)


def _rest(handle: IndexHandle, archive: ArchiveWriter, before: Partial, show: Callable[[str], None]) -> Exported:
    """Write the items that are not there yet, and the end."""
    written = before.items
    # items that came after it began without a generation could not be imported: their model is not in the file
    for items in _items(handle, before.after) if before.header.live else ():
        write_items(archive, items, handle.settings.dtype)
        written += len(items.ids)
        show(f"{written} of {before.header.items} items")
    _still_there(handle)
    end = write_end(archive, written, handle.ledger.last_sequence())
    return Exported(written, before.generations, archive.size, end.sha256, before.header.created, before.items)


def _beginning(handle: IndexHandle, writer: str) -> tuple[Header, list[ModelPart]]:
    """What comes before the items. A model that is forgotten while they are read is left out."""
    for _ in range(RETRIES):
        handle.reload_states()
        live, target = max(state.live for state in handle.states), handle.trainer.target()
        models = _models(handle)
        generations = {model.generation for model in models}
        if {live, target} - {0, None} <= generations:
            break
    else:
        handle.models.load(live)  # says what is missing
    plan = PlanKeeper(handle).current()
    header = Header(
        archive=secrets.token_hex(16),
        created=now_seconds(),
        writer=writer,
        index=handle.name,
        settings=handle.settings,
        live=live,
        target=target,
        items=sum(items for items, _ in handle.reader.sizes()),
        sequence=handle.ledger.last_sequence(),
        plan=None if plan is None else asdict(plan),
        nonce=handle.identity.nonce,
    )
    return header, models


def _models(handle: IndexHandle) -> list[ModelPart]:
    models = []
    for record in handle.models.records():
        try:
            arrays = handle.models.load(record.generation)
        except ModelMissingError:
            continue
        models.append(
            ModelPart(
                record.generation,
                record.kind,
                record.created,
                record.parent,
                record.origin,
                record.figures,
                arrays,
            )
        )
    return models


def _items(handle: IndexHandle, after: tuple[int, int]) -> Iterator[ItemsPart]:
    """The items of each partition. after : a partition, and the item number to begin with in it."""
    step = max(1, min(ITEMS_A_BLOCK, VECTOR_BYTES // (4 * handle.settings.dimension)))
    first, begin = after
    for partition in range(first, handle.settings.partitions):
        given = handle.reader.sizes()[partition][1]
        for start in range(begin if partition == first else 0, given, step):
            stop = min(start + step, given)
            values = handle.reader.values([(partition, np.arange(start, stop, dtype=np.int64))])[0]
            if values.ids:
                yield replace(_matched(handle, partition, values), after=(partition, stop))


def _matched(handle: IndexHandle, partition: int, values: Values) -> ItemsPart:
    """Values with their records, each pair of one write; what is deleted meanwhile is left out."""
    rows: list[int] = []
    records: list[Record] = []
    vectors, sequences = values.vectors, values.sequences
    found = handle.reader.records(values.ids)
    changed = [row for row, record in enumerate(found) if not _is_of(record, values, row)]
    if changed and not vectors.flags.writeable:
        vectors = vectors.copy()
    inspector = Inspector(handle.client, handle.name, handle.settings)
    for start in range(0, len(changed), CHANGED_AT_ONCE):
        some = changed[start : start + CHANGED_AT_ONCE]
        views = inspector.items(partition, [values.ids[row] for row in some])
        for row in some:
            view = views[values.ids[row]]
            found[row] = view.record if view.value is not None else None
            if view.value is not None:
                vectors[row], sequences[row] = view.value.vectors[0], view.value.sequences[0]
    for row, record in enumerate(found):
        if record is None:
            continue
        rows.append(row)
        records.append(record)
    return ItemsPart(
        0,
        [values.ids[row] for row in rows],
        sequences[rows],
        [record.label for record in records],
        np.array([record.label_sequence for record in records], dtype=np.int64),
        [record.metadata for record in records],
        vectors[rows],
    )


def _is_of(record: Record | None, values: Values, row: int) -> bool:
    """Whether a record and a value are of the same write."""
    given = (int(values.numbers[row]), int(values.sequences[row]))
    return record is not None and (record.number, record.sequence) == given


def _still_there(handle: IndexHandle) -> None:
    """Raises IndexMissingError when the index was wiped since it was opened."""
    if handle.store.settings() != handle.identity:
        raise IndexMissingError(
            f"index {handle.name!r} is not the one that was opened",
            why="it was wiped, and another was created under its name",
            remedy="export that one",
        )
