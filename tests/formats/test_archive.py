"""The file of an exported index: what was written comes back, and whatever else is told for what it is."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream_hash.errors import FormatError
from stream_hash.formats import archive, archive_reading
from stream_hash.formats.archive import ArchiveReader, ArchiveWriter, Block
from stream_hash.formats.archive_parts import (
    BOUNDS,
    End,
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
from stream_hash.settings import IndexSettings

MAX_ALLOCATED_BYTES = 32 * 2**20
HEADER = Header("0" * 32, 1.5, "0.1", "photos", IndexSettings(3, bits=4), 2, 2, 4, 9, {"budget": 5}, "ab" * 8)
ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "kind": np.array("cosine"), "scale": np.array(1.5)}
MODELS = [
    ModelPart(1, "lsh", 1.0, None, None, {}, ARRAYS),
    ModelPart(2, "grh-pa", 2.0, 1, None, {"seen": 4, "difference": None}, ARRAYS),
]
RUNS: list[dict[str, Any]] = [{"id": "b"}, {"id": "a"}]


def items(count: int = 4, dimension: int = 3, metadata: str = '{"ö":"\\n"}') -> ItemsPart:
    vectors = np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)
    ids = [f"i{row}" for row in range(count)]
    sequences = np.arange(1, count + 1)
    return ItemsPart(0, ids, sequences, ['"cat"'] * count, sequences + 3, [metadata] * count, vectors)


def written(write: Callable[[ArchiveWriter], object]) -> bytes:
    file = io.BytesIO()
    write(ArchiveWriter(file))
    return file.getvalue()


def whole(writer: ArchiveWriter) -> None:
    write_header(writer, HEADER)
    for model in MODELS:
        write_model(writer, model)
    write_runs(writer, RUNS)
    write_items(writer, items(), "float32")
    write_end(writer, 4, 12)


GOOD = written(whole)


def blocks_of(data: bytes) -> list[Block]:
    return list(ArchiveReader(io.BytesIO(data), "f", BOUNDS).blocks())


def refusal(data: bytes, reading: Callable[..., Iterator[object]] = read_parts) -> FormatError:
    """The error that reading ends with; nothing else may be raised, and little allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            for _ in reading(io.BytesIO(data), "f"):
                pass
        assert tracemalloc.get_traced_memory()[1] < MAX_ALLOCATED_BYTES
    finally:
        tracemalloc.stop()
    assert caught.value.why
    assert caught.value.remedy
    assert len(str(caught.value)) + len(caught.value.why) < 600
    return caught.value


def test_what_was_written_comes_back() -> None:
    header, one, two, runs, rows, end = read_parts(io.BytesIO(GOOD), "f")
    assert isinstance(header, Header)
    assert header.digest
    assert {**vars(header), "digest": ""} == vars(HEADER)
    for found, model in zip((one, two), MODELS, strict=True):
        assert isinstance(found, ModelPart)
        assert {**vars(found), "arrays": 0} == {**vars(model), "arrays": 0}
        assert found.arrays.keys() == ARRAYS.keys()
        for name, array in found.arrays.items():
            assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
            assert np.array_equal(array, ARRAYS[name])
    assert runs == RunsPart(RUNS)
    assert isinstance(rows, ItemsPart)
    assert (rows.number, rows.ids, rows.labels, rows.metadata) == (4, items().ids, items().labels, items().metadata)
    assert np.array_equal(rows.vectors, items().vectors)
    assert rows.label_sequences.tolist() == [4, 5, 6, 7]
    assert isinstance(end, End)
    assert (end.items, end.sequence) == (4, 12)


def test_float16_takes_half_and_comes_back_as_it_was_stored() -> None:
    stored = items()
    stored = replace(stored, vectors=stored.vectors.astype(np.float16).astype(np.float32))
    half = replace(HEADER, settings=IndexSettings(3, bits=4, dtype="float16"))

    def write(writer: ArchiveWriter) -> None:
        write_header(writer, half)
        for model in MODELS:
            write_model(writer, model)
        write_runs(writer, [])
        write_items(writer, stored, "float16")
        write_end(writer, 4, 9)

    data = written(write)
    assert len(blocks_of(data)[4].data) == 4 * 3 * 2
    (rows,) = [part for part in read_parts(io.BytesIO(data), "f") if isinstance(part, ItemsPart)]
    assert np.array_equal(rows.vectors, stored.vectors)


@pytest.mark.parametrize(
    ("count", "dimension", "metadata", "prefix"),
    [(1_025, 2, "", "i"), (40, 16_384, "", "i"), (300, 2, '"' * 8_192, "i"), (2_000, 2, '"' * 300, "\x01" * 120)],
)
def test_blocks_stay_within_their_bounds_however_large_items_are(
    count: int, dimension: int, metadata: str, prefix: str
) -> None:
    ids = [f"{prefix}{row}" for row in range(count)]

    def write(writer: ArchiveWriter) -> None:
        write_items(writer, replace(items(count, dimension, metadata), ids=ids), "float32")
        writer.finish({})

    *found, _ = blocks_of(written(write))
    assert len(found) > 1
    assert [item_id for block in found for item_id in block.text["ids"]] == ids


def test_the_same_file_is_read_from_a_pipe_that_hands_out_little_at_a_time() -> None:
    class Pipe:
        def __init__(self) -> None:
            self._file = io.BytesIO(GOOD)

        def read(self, count: int, /) -> bytes:
            return self._file.read(min(count, 7))

    assert len(list(read_parts(Pipe(), "f"))) == 6


def test_a_file_cut_anywhere_is_recognised() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(FormatError, match=r"damaged|no export"):
            blocks_of(GOOD[:length])
    assert "ends within block 4" in str(refusal(GOOD[:-400]))


def test_a_byte_that_changed_anywhere_is_recognised_and_its_block_named() -> None:
    for at in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[at] ^= 1 << at % 8
        with pytest.raises(FormatError, match=r"block|no export|version"):
            blocks_of(bytes(changed))
    assert "block 4 has changed" in str(refusal(GOOD.replace(b'"cat', b'"dog')))


def test_a_block_that_was_replaced_by_a_sound_one_is_recognised_at_the_end() -> None:
    other = forged(b"RUNS", {"runs": [{"id": "z"}]}, number=3)
    assert "its blocks are not those that were written" in str(
        refusal(GOOD[: GOOD.index(b"RUNS")] + other + GOOD[GOOD.index(b"ITEM") :])
    )


def test_blocks_left_out_repeated_or_moved_are_recognised() -> None:
    starts = [GOOD.index(kind) for kind in (b"HEAD", b"MODL")]
    starts += [GOOD.index(b"MODL", starts[1] + 1)] + [GOOD.index(kind) for kind in (b"RUNS", b"ITEM", b"DONE")]
    signature, *pieces = (GOOD[a:b] for a, b in zip([0, *starts], [*starts, len(GOOD)], strict=True))
    head, one, two, runs, rows, end = pieces
    for order in (
        [head, two, runs, rows, end],
        [head, one, one, two, runs, rows, end],
        [head, two, one, runs, rows, end],
        [head, one, two, runs, end],
    ):
        assert "is missing" in str(refusal(signature + b"".join(order)))
    assert "more bytes follow" in str(refusal(GOOD + b"\0"))


def test_other_files_and_other_versions_are_told_apart() -> None:
    for data in (b"", b"PK\x03\x04 a zip", b"{}" * 20, b"\x28\xb5\x2f\xfd zstd"):
        assert "no export" in str(refusal(data)) or "ends within its signature" in str(refusal(data))
    later = refusal(GOOD[:7] + b"\x02" + GOOD[8:])
    assert "version 2" in str(later)
    assert "newer" in later.remedy


@pytest.mark.parametrize("kind", [*BOUNDS, b"BOMB"])
@pytest.mark.parametrize(("text", "data"), [(2**32 - 1, 0), (0, 2**64 - 1), (2**31, 2**40), (0, 2**29), (2**12, 2**20)])
def test_lengths_that_lie_under_a_right_checksum_allocate_nothing(kind: bytes, text: int, data: int) -> None:
    head = struct.pack("<4sIIQI", kind, 0, text, data, 0)
    error = refusal(GOOD[:8] + head + struct.pack("<I", zlib.crc32(head)) + b"{}" * 50)
    if kind in BOUNDS and (text > 2**23 or data > 2**30):
        assert "claims" in str(error)


def forged(kind: bytes, text: object, data: bytes = b"", number: int = 0) -> bytes:
    """A block with right checksums, whatever it says."""
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    head = struct.pack("<4sIIQI", kind, number, len(raw), len(data), zlib.crc32(data, zlib.crc32(raw)))
    return head + struct.pack("<I", zlib.crc32(head)) + raw + data


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b"nul",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 50_000 + b"}",
        b"[" * 65_000,
        b'{"a":' * 13_000,
        b'"' + b"x" * 60_000 + b'"',
    ],
    ids=lambda text: f"{text[:12]!r}",
)
def test_text_that_is_no_json_object_is_refused(text: bytes) -> None:
    assert "block 0" in str(refusal(GOOD[:8] + forged(b"HEAD", text)))


def header_with(**changes: object) -> dict[str, Any]:
    return {**blocks_of(GOOD)[0].text, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": None},
        {"settings": {"dimension": 3, "colour": 1}},
        {"settings": {"dimension": 0}},
        {"settings": {"dimension": 16_385}},
        {"settings": {"dimension": 3, "bits": 63}},
        {"settings": {"dimension": 3, "metric": "hamming"}},
        {"settings": {"dimension": 3, "dtype": "object"}},
        {"settings": {"dimension": 3, "partitions": 10**6}},
        {"settings": {"dimension": 3.5}},
        {"archive": "../../etc/passwd"},
        {"index": "a\nb"},
        {"writer": 7},
        {"live": -1},
        {"live": True},
        {"live": 2**53},
        {"target": "2"},
        {"items": None},
        {"sequence": 2**60},
        {"created": "now"},
        {"created": 1e300},
        {"plan": [1]},
        {"nonce": 7},
        {"nonce": "../x"},
    ],
    ids=str,
)
def test_a_header_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    assert "block 0 is not as it should be" in str(refusal(GOOD[:8] + forged(b"HEAD", header_with(**changes))))


def model_with(**changes: object) -> dict[str, Any]:
    return {**blocks_of(GOOD)[1].text, **changes}


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({"generation": 0}, b""),
        ({"kind": "x" * 65}, b""),
        ({"kind": None}, b""),
        ({"created": -1}, b""),
        ({"parent": 1.5}, b""),
        ({"figures": []}, b""),
        ({"figures": {"a": {"b": 1}}}, b""),
        ({"arrays": None}, b""),
        ({"arrays": [["w", "<f4"]]}, b"1234"),
        ({"arrays": [["w", "|O", [1]]]}, b"12345678"),
        ({"arrays": [["w", "<f4,<f4", [1]]]}, b"12345678"),
        ({"arrays": [["w", ">f4", [1]]]}, b"1234"),
        ({"arrays": [["w", "<U999999999", [1]]]}, b"1234"),
        ({"arrays": [["w", "<f4", [-1]]]}, b"1234"),
        ({"arrays": [["w", "<f4", [True]]]}, b"1234"),
        ({"arrays": [["w", "<f4", [2**31, 2**31]]]}, b"1234"),
        ({"arrays": [["w", "<f4", [1, 1, 1]]]}, b"1234"),
        ({"arrays": [["w", "<f4", [2]]]}, b"1234"),
        ({"arrays": [["w", "<f4", [1]]]}, b"12345678"),
        ({"arrays": [["w", "<f4", [1]], ["w", "<f4", [1]]]}, b"12345678"),
        ({"arrays": [["../w", "<f4", [1]]]}, b"1234"),
        ({"arrays": [[["w"], "<f4", [1]]]}, b"1234"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_is_refused(changes: dict[str, object], data: bytes) -> None:
    start = GOOD[:8] + forged(b"HEAD", header_with())
    error = refusal(start + forged(b"MODL", model_with(**changes), data, number=1))
    assert "block 1 is not as it should be" in str(error)


def rows_with(**changes: object) -> dict[str, Any]:
    return {**blocks_of(GOOD)[4].text, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": ["a"] * 3},
        {"ids": [1, 2, 3, 4]},
        {"ids": "abcd"},
        {"labels": [None] * 4},
        {"metadata": [{}] * 4},
        {"sequences": [1, 2, 3, 4.0]},
        {"sequences": [0, 1, 2, 3]},
        {"sequences": [1, 2, 3, 2**53]},
        {"sequences": [True] * 4},
        {"sequences": [9, 9, 9, 9]},
        {"label_sequences": [1, 2, 3]},
        {"after": 5},
        {"after": [0]},
        {"after": [0, True]},
        {"after": [0, "5"]},
        {"after": [1, 5]},
        {"after": [-1, 5]},
        {"after": [0, 0]},
        {"after": [0, 2**24 + 1]},
        {"ids": [], "labels": [], "metadata": [], "sequences": [], "label_sequences": []},
        {name: [*blocks_of(GOOD)[4].text[name], *blocks_of(GOOD)[4].text[name]] for name in rows_with()},
    ],
    ids=lambda changes: f"{str(changes)[:50]}",
)
def test_items_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    start = GOOD[: GOOD.index(b"ITEM")]
    data = bytes(blocks_of(GOOD)[4].data)
    error = refusal(start + forged(b"ITEM", rows_with(**changes), data, number=4))
    assert "block 4 is not as it should be" in str(error)


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ([b"RUNS"], "its header is the first"),
        ([b"HEAD", b"HEAD"], "its header is the first"),
        ([b"HEAD", b"ITEM"], "models come first"),
        ([b"HEAD", b"DONE"], "models come first"),
        ([b"HEAD", b"RUNS"], "generation 2 is live"),
        ([b"HEAD", b"MODL", b"MODL"], "generation 1 follows 1"),
        ([b"HEAD", b"MODL", b"RUNS"], "generation 2 is live"),  # and the model is that of 1
    ],
    ids=str,
)
def test_blocks_in_another_order_are_refused(order: list[bytes], why: str) -> None:
    texts: dict[bytes, Any] = {b"HEAD": header_with(), b"MODL": model_with(), b"RUNS": {"runs": []}}
    texts |= {b"ITEM": rows_with(), b"DONE": {"items": 0, "sequence": 0}}
    datas = {b"MODL": bytes(blocks_of(GOOD)[1].data), b"ITEM": bytes(blocks_of(GOOD)[4].data)}
    writing = io.BytesIO()
    writer = ArchiveWriter(writing)
    for kind in order:
        if kind == archive.DONE:
            writer.finish(texts[kind])
        else:
            writer.write(kind, texts[kind], [datas.get(kind, b"")])
    assert why in refusal(writing.getvalue()).why


def test_more_models_or_fewer_items_than_can_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(writer: ArchiveWriter) -> None:
        write_header(writer, HEADER)
        for model in MODELS:
            write_model(writer, model)
        write_runs(writer, RUNS)
        write_end(writer, 4, 12)

    assert "there are 0" in refusal(written(short)).why
    monkeypatch.setattr(archive_reading, "MAX_MODELS", 1)
    assert "more than 1 models" in refusal(GOOD).why


def test_a_model_whose_arrays_have_no_form_in_the_file_is_not_written() -> None:
    with pytest.raises(ValueError, match="'w' is"):
        written(lambda writer: write_model(writer, ModelPart(1, "x", 1.0, None, None, {}, {"w": np.array([1j])})))
