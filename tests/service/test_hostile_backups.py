"""Archives that lie, under right checksums or wrong ones: a clear error, little memory, and nothing left behind."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from backup_support import imported, piped, snapshot

from stream_hash.errors import (
    FormatError,
    PartitionFullError,
)
from stream_hash.formats.archive import ArchiveWriter
from stream_hash.formats.archive_parts import (
    Header,
    ItemsPart,
    ModelPart,
    RunsPart,
    write_end,
    write_header,
    write_items,
    write_model,
    write_runs,
)
from stream_hash.formats.archive_reading import read_parts
from stream_hash.service.restore import Imported
from stream_hash.storage.connection import Client


def rewritten(
    data: bytes,
    *,
    header: Header | None = None,
    model: Callable[[ModelPart], ModelPart] = lambda part: part,
    runs: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda found: found,
    rows: Callable[[ItemsPart], ItemsPart] = lambda part: part,
    items: int | None = None,
) -> bytes:
    """The archive written anew, parts replaced: what its checksums say is right."""
    file = io.BytesIO()
    writer = ArchiveWriter(file)
    total = 0
    for part in read_parts(io.BytesIO(data), "f"):
        if isinstance(part, Header):
            write_header(writer, header or part)
        elif isinstance(part, ModelPart):
            write_model(writer, model(part))
        elif isinstance(part, RunsPart):
            write_runs(writer, runs(part.runs))
        elif isinstance(part, ItemsPart):
            changed = rows(part)
            total += len(changed.ids)
            write_items(writer, changed, "float32")
        else:
            write_end(writer, total if items is None else items, part.sequence)
    return file.getvalue()


def with_row(**changes: object) -> Callable[[ItemsPart], ItemsPart]:
    """The items, the third of them changed."""

    def change(part: ItemsPart) -> ItemsPart:
        copy = {name: value.copy() for name, value in vars(part).items() if name not in ("number", "after")}
        for name, value in changes.items():
            copy[name][2] = value
        return replace(part, **copy)

    return change


def with_array(name: str, value: Any) -> Callable[[ModelPart], ModelPart]:
    """The models, one of their arrays changed, or taken away."""

    def change(part: ModelPart) -> ModelPart:
        arrays = {key: array for key, array in part.arrays.items() if key != name}
        return replace(part, arrays=arrays if value is None else {**arrays, name: np.asarray(value)})

    return change


DUMPS = json.dumps
HALF = "half a character"
FORGED: list[dict[str, Any]] = [
    *(
        {"rows": with_row(**changes)}
        for changes in (
            {"ids": ""},
            {"ids": "x" * 129},
            {"ids": HALF},
            {"vectors": np.nan},
            {"vectors": np.inf},
            {"vectors": 0.0},
            {"vectors": 3e38},
            {"labels": "cat"},
            {"labels": "null"},
            {"labels": "1.5"},
            {"labels": "[]"},
            {"labels": '{"a":1}'},
            {"labels": '"' + "x" * 1_024 + '"'},
            {"labels": "[" * 1_000},
            {"metadata": "[]"},
            {"metadata": "7"},
            {"metadata": '{"a":NaN}'},
            {"metadata": '{"a":1e999}'},
            {"metadata": '{"a":"\\ud800"}'},
            {"metadata": '{"a":' * 17 + "1" + "}" * 17},
            {"metadata": '{"a":' * 1_500},
            {"metadata": '{"a":"' + "x" * 8_192 + '"}'},
            {"sequences": 0},
            {"sequences": 2**53},
            {"label_sequences": 0},
        )
    ),
    *(
        {"model": with_array(name, value)}
        for name, value in (
            ("hyperplanes", None),
            ("hyperplanes", np.zeros((51, 13), np.float32)),
            ("hyperplanes", np.zeros((51, 12), np.float64)),
            ("hyperplanes", np.full((51, 12), np.nan, np.float32)),
            ("hyperplanes", np.zeros(612, np.float32)),
            ("offsets", np.zeros(50, np.float32)),
            ("mean", np.zeros(13, np.float32)),
            ("metric", "l2"),
            ("metric", "hamming"),
            ("shape", np.array([1, 12])),
            ("shape", np.array([2**40, 6])),
            ("shape", np.array([-1, -6])),
            ("scale", np.array(-1.0)),
            ("scale", np.array(np.inf)),
            ("network.layers", np.array(["none"])),
            ("network.power", np.array(1.0)),
        )
    ),
    *(
        {"runs": lambda found, changes=changes: [{**found[0], **changes}]}
        for changes in (
            {"id": 7},
            {"started": "now"},
            {"started": -1},
            {"parent": 1.5},
            {"seen": 2**60},
            {"decision": "maybe"},
            {"figures": {"a": []}},
            {"generation": "2"},
        )
    ),
    {"runs": lambda _: [{"id": "r"}]},
    {"items": 5},
]


def hostile(data: bytes) -> Iterator[bytes]:
    """140 files and more: forged, cut, with a bit turned, a length enlarged, pieces moved or doubled."""
    for changes in FORGED:
        # half a character has no bytes of its own, and can be said in JSON all the same
        with mock.patch(
            "stream_hash.formats.archive.json.dumps", lambda text, **_: DUMPS(text).replace(HALF, r"\ud800")
        ):
            forged = rewritten(data, **changes)
        yield forged
    draws = random.Random(1)
    for _ in range(35):
        yield data[: draws.randrange(len(data))]
    for _ in range(35):
        changed = bytearray(data)
        changed[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        yield bytes(changed)
    for _ in range(20):
        start, length = draws.randrange(len(data)), draws.randrange(1, 400)
        yield data[:start] + data[start + length :]
        yield data[:start] + draws.randbytes(length) + data[start:]
    for number, kind in enumerate((b"HEAD", b"MODL", b"RUNS", b"ITEM", b"DONE")):
        for offset, size in ((8, 4), (12, 8)):
            changed = bytearray(data)
            at = data.index(kind) + offset
            changed[at : at + size] = (2 ** (8 * size - 1 - number) + 5).to_bytes(size, "little")
            yield bytes(changed)


def refused(reading: Callable[..., Imported], client: Client, data: bytes) -> None:
    """The file is refused in a clear sentence, and nothing of it is on the server."""
    with pytest.raises(FormatError) as caught:
        reading(client, data)
    assert caught.value.why
    assert len(str(caught.value)) + len(caught.value.why) < 1_000
    assert client.keys() == [b"other"]


def test_a_hostile_file_ends_in_a_clear_error_allocates_little_and_leaves_nothing(
    fake: Client, small_blocks: bytes
) -> None:
    files = [data for data in hostile(small_blocks) if data != small_blocks]
    assert len(files) > 140
    fake.set("other", "data")
    tracemalloc.start()
    try:
        for data in files:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            refused(imported, fake, data)
            assert tracemalloc.get_traced_memory()[1] - before < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_what_came_through_a_pipe_before_it_turned_out_hostile_is_deleted(fake: Client, small_blocks: bytes) -> None:
    fake.set("other", "data")
    for data in list(hostile(small_blocks))[::5]:
        if data != small_blocks:
            refused(piped, fake, data)


def test_a_file_that_is_damaged_at_its_end_writes_nothing_at_all(fake: Client, archive: bytes) -> None:
    """Not even for a moment: it is read to its end first."""
    fake.config_set = fake.eval = fake.evalsha = fake.sadd = None  # type: ignore[method-assign, assignment]
    with pytest.raises(FormatError, match=r"SHA-256|block"):
        imported(fake, archive[:-10] + b"0123456789")
    with pytest.raises(FormatError, match="ends within"):
        imported(fake, archive[:-1])


def test_items_that_do_not_fit_are_told_before_the_first_is_written(fake: Client, archive: bytes) -> None:
    header = next(read_parts(io.BytesIO(archive), "f"))
    assert isinstance(header, Header)
    with pytest.raises(PartitionFullError, match="do not fit into 2 partitions"):
        imported(fake, rewritten(archive, header=replace(header, items=2 * 2**24)))
    assert snapshot(fake) == {}
