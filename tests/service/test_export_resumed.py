"""An export that goes on: cut anywhere, damaged, or with an index that has changed since; or is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import fakeredis
import pytest
from backup_support import (
    COUNT,
    SETTINGS,
    KilledError,
    contents,
    exported,
    filled,
    ids,
    imported,
    index_of,
    send,
    vectors,
)

from stream_hash.client import Index
from stream_hash.errors import FormatError, IndexMissingError
from stream_hash.formats.archive_parts import Header, ItemsPart
from stream_hash.formats.archive_reading import read_parts
from stream_hash.numerics.model import lsh_model
from stream_hash.service import export as export_module
from stream_hash.service.connections import Connections
from stream_hash.service.export import Exported, export_index, resume_export
from stream_hash.service.handle import IndexHandle
from stream_hash.service.items import delete_items
from stream_hash.service.reindex import reindex
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.trainer_state import Lead


@pytest.fixture(autouse=True)
def _blocks_of_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "ITEMS_A_BLOCK", 16)


def resumed(handle: IndexHandle, data: bytes) -> tuple[bytes, Exported]:
    file = io.BytesIO(data)
    done = resume_export(handle, file, "the part", writer="0.1")
    assert done.bytes == len(file.getvalue())
    return file.getvalue(), done


def ends_of_blocks(data: bytes) -> list[int]:
    """Where blocks of items end that an export can go on after."""
    kinds = (b"ITEM", b"DONE")
    starts = sorted(at for kind in kinds for at in range(len(data)) if data.startswith(kind, at))
    return starts[1:]


def stopped(handle: IndexHandle, blocks: int) -> bytes:
    """What an export leaves that is killed after some blocks of items."""
    left = blocks

    class Dying(io.BytesIO):
        def write(self, piece: Any) -> int:
            nonlocal left
            left -= bytes(piece[:4]) == b"ITEM"
            if left < 0:
                raise KilledError
            return super().write(piece)

    file = Dying()
    with pytest.raises(KilledError):
        export_index(handle, file, writer="0.1")
    return file.getvalue()


def test_cut_anywhere_it_comes_to_the_file_that_it_would_have_been(fake: Client) -> None:
    """To the byte, as nothing has changed: also cut within its last block, or complete and never renamed."""
    handle = filled(fake, count=60)
    whole = exported(handle)
    ends = ends_of_blocks(whole)
    assert len(ends) == 4
    for length in sorted({*range(ends[0], len(whole), 61), *ends, *(end - 1 for end in ends[1:]), len(whole)}):
        found, done = resumed(handle, whole[:length])
        assert found == whole, length
        before = [end for end in ends if end <= length][-1]
        rows = [part for part in read_parts(io.BytesIO(whole), "f") if isinstance(part, ItemsPart)]
        assert done.skipped == sum(len(part.ids) for part in rows[: ends.index(before) + 1])
        assert done.items == sum(len(part.ids) for part in rows)


def test_what_has_come_to_no_items_yet_is_begun_anew(fake: Client) -> None:
    handle = filled(fake, count=60)
    whole = exported(handle)
    for data in (b"", whole[:5], whole[: ends_of_blocks(whole)[0] - 1], b"of somebody else" * 9_000):
        found, done = resumed(handle, data)
        assert done.skipped == 0
        assert [type(part) for part in read_parts(io.BytesIO(found), "f")] == [
            type(part) for part in read_parts(io.BytesIO(whole), "f")
        ]


def test_it_goes_on_before_the_first_block_that_is_damaged(fake: Client) -> None:
    """As after a loss of power: bytes that never reached the disk are zeros, with good ones behind them."""
    handle = filled(fake, count=60)
    whole = exported(handle)
    ends = ends_of_blocks(whole)
    for before, after in pairwise(ends):
        holed = bytearray(whole)
        holed[(before + after) // 2] ^= 0xFF
        found, done = resumed(handle, bytes(holed))
        assert found == whole
        assert 0 < done.skipped < done.items
    assert resumed(handle, whole[: ends[0]] + bytes(2 * len(whole)))[0] == whole


def test_an_export_may_be_interrupted_and_gone_on_with_again_and_again(fake: Client) -> None:
    handle = filled(fake, count=60)
    whole = exported(handle)
    data = whole[: ends_of_blocks(whole)[0] + 10]
    for end in ends_of_blocks(whole)[1:]:
        data, _ = resumed(handle, data)
        data = data[: end + 10]
    assert resumed(handle, data)[0] == whole


def test_items_that_are_cut_into_several_blocks_are_gone_on_with_as_a_whole(
    fake: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen with long metadata fill two blocks: only the second one says that all are written."""
    Index.create("x", SETTINGS, Connections(fake, None))
    handle = IndexHandle(fake, "x")
    send(handle, Batch("upsert", ids(40), vectors(40), None, ['{"a":"' + "x" * 900 + '"}'] * 40))
    monkeypatch.setattr("stream_hash.formats.archive_parts.TEXT_BYTES", 20_000)
    whole = exported(handle)
    ends = ends_of_blocks(whole)
    told = [part.after for part in read_parts(io.BytesIO(whole), "f") if isinstance(part, ItemsPart)]
    assert told[0] is None
    assert len([after for after in told if after is None]) >= 2
    for end in ends[1:]:
        assert resumed(handle, whole[:end])[0] == whole


def changed_since(handle: IndexHandle) -> None:
    """Items deleted, changed, stored anew under numbers that were given back, and another generation live."""
    gone = ids()[40:360:4]
    delete_items(handle, gone)
    send(handle, Batch("upsert", ids()[1:360:8], vectors(COUNT, seed=4)[1:360:8], None, None))
    send(handle, Batch("upsert", [f"new{row}" for row in range(50)], vectors(50, seed=5), None, None))
    send(handle, Batch("upsert", gone[::2], vectors(COUNT, seed=6)[: len(gone[::2])], None, None))
    lead = handle.trainer.lead("t", now=1, until=0)
    assert isinstance(lead, Lead)
    model = lsh_model(SETTINGS, vectors(COUNT, seed=7)).to_arrays()
    reindex(handle, lead.token, handle.trainer.publish(lead.token, model, kind="lsh", created=4.0, parent=2).generation)


@pytest.mark.parametrize("blocks", [2, 20])
def test_of_an_index_that_has_changed_each_item_is_as_it_was_at_some_moment_and_none_that_stayed_is_missing(
    fake: Client, blocks: int
) -> None:
    handle = filled(fake)
    first = contents(fake, "x")
    data = stopped(handle, blocks)
    in_part = {item for part in parts_until_cut(data) for item in part.ids}
    changed_since(handle)
    handle = IndexHandle(fake, "x")
    second = contents(fake, "x")
    data, done = resumed(handle, data)
    assert done.skipped == len(in_part) > 0
    imported(fake, data)
    found = contents(fake, "y")
    for item, value in found.items():
        assert value in (first.get(item), second.get(item)), item
    untouched = {item for item in first if first[item] == second.get(item)}
    assert 100 < len(untouched) < len(first)
    assert untouched <= found.keys()
    # what was written before is as it was then, unless it came again under another number: then the newer one counts
    twice = {item for item in in_part & found.keys() if found[item] == second.get(item)}
    assert in_part <= found.keys()
    assert all(found[item] == first[item] for item in in_part - twice)
    report = index_of(fake).verify()
    assert report.violations == []
    restored = IndexHandle(fake, "y")
    assert {state.live for state in restored.states} == {2}  # that which was live when it began
    assert {state.live for state in handle.states} == {3}
    assert restored.ledger.last_sequence() >= handle.ledger.last_sequence()


def parts_until_cut(data: bytes) -> Iterator[ItemsPart]:
    parts = read_parts(io.BytesIO(data), "f")
    while True:
        try:
            part = next(parts)
        except FormatError:
            return
        if isinstance(part, ItemsPart):
            yield part


def test_another_index_is_not_gone_on_with(fake: Client) -> None:
    handle = filled(fake)
    data = stopped(handle, 3)
    Index.create("other", SETTINGS, Connections(fake, None))
    with fakeredis.FakeRedis() as elsewhere:
        for another in (IndexHandle(fake, "other"), filled(elsewhere)):
            file = io.BytesIO(data)
            with pytest.raises(IndexMissingError, match="the part is of an index 'x' that is not") as caught:
                resume_export(another, file, "the part", writer="0.1")
            assert "without --resume" in caught.value.remedy
            assert file.getvalue() == data


def test_items_that_come_after_it_began_without_a_generation_are_left_out(
    fake: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their model is not in the file, so nobody could import it."""
    Index.create("x", SETTINGS, Connections(fake, None))
    handle = IndexHandle(fake, "x")
    writing = export_module.write_runs

    def meanwhile(*arguments: Any) -> None:
        writing(*arguments)
        send(IndexHandle(fake, "x"), Batch("upsert", ids(3), vectors(3), None, None))

    monkeypatch.setattr(export_module, "write_runs", meanwhile)
    data = exported(handle)
    header = next(read_parts(io.BytesIO(data), "f"))
    assert isinstance(header, Header)
    assert header.live == 0
    assert imported(fake, data).items == 0
