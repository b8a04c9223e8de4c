"""What holds for every format alike: what comes out, in which pieces, from which sources."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stream_hash import formats
from stream_hash.errors import FormatError, UsageError
from stream_hash.formats import opening, records, tables

WITH_IDS = ("npz", "mat", "jsonl", "csv")
every_format = pytest.mark.parametrize("kind", formats.FORMATS)
every_format_with_ids = pytest.mark.parametrize("kind", WITH_IDS)


@pytest.fixture(name="X")
def matrix() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(53, 6)).astype(np.float32)


@every_format
def test_vectors_come_back_bit_for_bit(kind, X, write, whole):
    read = whole(write(kind, X))
    assert np.array_equal(read.vectors, X)
    assert not read.rejected


@every_format
def test_without_ids_the_row_numbers_are_the_ids(kind, X, write, whole):
    read = whole(write(kind, X), chunk_items=10)
    assert read.ids == [str(row) for row in range(53)]
    assert read.labels == [None] * 53
    assert read.metadata == [None] * 53


@every_format_with_ids
def test_ids_and_labels_come_back_as_they_were_written(kind, X, write, whole):
    ids = [f"item {row}" for row in range(53)]
    numbers = [row % 3 for row in range(53)]
    read = whole(write(kind, X, ids, numbers))
    assert read.ids == ids
    assert read.labels == numbers
    assert {type(label) for label in read.labels} == {int}
    words = ["cat" if row % 2 else "Katze ü" for row in range(53)]
    assert whole(write(kind, X, ids, words)).labels == words


@every_format_with_ids
def test_labels_can_be_left_out(kind, X, write, whole):
    path = write(kind, X, labels=list(range(53)))
    read = whole(path, labels=False)
    assert read.labels == [None] * 53
    assert np.array_equal(read.vectors, X)


@every_format_with_ids
def test_whole_numbers_as_ids_become_text(kind, X, write, whole):
    assert whole(write(kind, X, ids=list(range(100, 153)))).ids == [str(n) for n in range(100, 153)]


@every_format
@pytest.mark.parametrize("chunk_items", [1, 10, 52, 53, 54])
def test_chunks_hold_what_was_asked_for_and_the_last_the_rest(kind, chunk_items, X, write, whole):
    read = whole(write(kind, X), chunk_items=chunk_items)
    full, rest = divmod(53, chunk_items)
    assert read.sizes == [chunk_items] * full + [rest] * bool(rest)
    assert np.array_equal(read.vectors, X)


@every_format
def test_a_chunk_of_long_vectors_keeps_its_bytes_bounded(kind, X, write, whole, monkeypatch):
    for module in (tables, formats.gather):
        monkeypatch.setattr(module, "MAX_CHUNK_BYTES", 10 * 6 * 4)
    assert whole(write(kind, X)).sizes == [10, 10, 10, 10, 10, 3]


@every_format
@pytest.mark.parametrize("limit", [1, 10, 53, 1_000])
def test_a_limit_reads_the_first_rows(kind, limit, X, write, whole):
    read = whole(write(kind, X), limit=limit, chunk_items=7)
    assert np.array_equal(read.vectors, X[:limit])


@every_format
def test_a_limit_counts_refused_rows_too(kind, X, write, whole):
    X[1, 2] = np.inf
    read = whole(write(kind, X), limit=3)
    assert read.ids == ["0", "2"]
    assert len(read.rejected) == 1


@every_format
@pytest.mark.parametrize("at_most", [1, 7, 100_000])
def test_a_stream_that_cannot_seek_reads_like_the_file(kind, at_most, X, write, whole, pipe):
    stream = pipe(write(kind, X).read_bytes(), at_most)
    assert np.array_equal(whole(stream, format=kind).vectors, X)
    assert not stream.closed


@pytest.mark.parametrize("kind", ["npy", "npz", "mat", "jsonl"])
def test_a_stream_tells_its_format_by_its_first_bytes(kind, X, write, whole, pipe):
    data = write(kind, X).read_bytes()
    assert np.array_equal(whole(pipe(data, 1)).vectors, X)
    assert np.array_equal(whole(io.BytesIO(data)).vectors, X)


@every_format
def test_a_stream_is_read_from_where_it_stands(kind, X, write, whole):
    stream = io.BytesIO(b"before" + write(kind, X).read_bytes())
    stream.seek(6)
    assert np.array_equal(whole(stream, format=kind).vectors, X)


@pytest.mark.parametrize("kind", ["npz", "jsonl"])
def test_real_standard_input_is_read(kind, X, write):
    code = (
        "import sys; from stream_hash.formats import read_queries\n"
        "ids, X = read_queries(sys.stdin.buffer); print(len(ids), X.shape)"
    )
    sent = write(kind, X).read_bytes()
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
    assert done.stdout == b"53 (53, 6)\n"


def test_a_line_is_handed_on_before_the_stream_ends(whole):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as sender:
        sender.write(b'{"vector": [1, 2]}\n' * 3)
        parts = formats.read(stream, chunk_items=2)
        got: list[formats.Chunk | formats.Rejected] = []
        reader = threading.Thread(target=lambda: got.append(next(parts)), daemon=True)
        reader.start()
        reader.join(10)
        assert [part.ids for part in got] == [["0", "1"]]
        sender.close()
        assert next(parts).ids == ["2"]


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (kind, value, said)
        for kind in formats.FORMATS
        for value, said in ((np.nan, "is nan"), (np.inf, "is inf"), (-np.inf, "is -inf"), (1e300, "is 1e+300"))
        if not (kind == "fvecs" and value == 1e300)  # float32 has no such number
    ],
)
def test_a_row_that_is_not_finite_in_float32_is_refused_and_the_others_live(kind, value, said, X, write, whole):
    Y = X.astype(np.float64)
    Y[7, 4] = value
    read = whole(write(kind, Y), chunk_items=20)
    assert len(read.rejected) == 1
    ((where, reason),) = read.rejected.items()
    assert where == {"jsonl": "line 8", "csv": "line 9"}.get(kind, "row 7")
    if kind == "jsonl" and not abs(value) < np.inf:
        assert "JSON has no such number" in reason
    else:
        assert reason.startswith("coordinate 4 ")
        assert said in reason
    assert read.ids == [str(row) for row in range(53) if row != 7]
    assert np.array_equal(read.vectors, np.delete(X, 7, axis=0))


@every_format_with_ids
def test_a_repeated_id_is_refused_and_says_where_the_first_stands(kind, X, write, whole):
    ids = [f"item{row}" for row in range(53)]
    ids[40] = "item3"
    read = whole(write(kind, X, ids), chunk_items=10)
    first, second = {"jsonl": ("line 4", "line 41"), "csv": ("line 5", "line 42")}.get(kind, ("row 3", "row 40"))
    assert read.rejected == {second: f"id 'item3' already stood at {first}"}
    assert len(read.ids) == 52


@every_format_with_ids
def test_the_id_of_a_refused_row_is_free_again(kind, X, write, whole):
    Y = X.astype(np.float64)
    Y[3] = 1e300
    ids = [f"item{row}" for row in range(53)]
    ids[40] = "item3"
    read = whole(write(kind, Y, ids))
    assert len(read.rejected) == 1
    assert "item3" in read.ids


@every_format_with_ids
def test_an_id_or_label_over_a_limit_refuses_its_row(kind, X, write, whole):
    ids = [f"item{row}" for row in range(53)]
    ids[5] = "x" * 129
    labels = ["cat"] * 53
    labels[6] = "y" * 1_100
    read = whole(write(kind, X, ids, labels))
    id_reason, label_reason = read.rejected.values()
    assert "129 bytes long" in id_reason
    assert "the limit is 1024" in label_reason
    assert len(read.ids) == 51


@every_format_with_ids
def test_a_missing_label_is_none(kind, X, write, whole):
    labels = np.arange(53.0)
    labels[2] = np.nan
    stored = labels
    if kind == "jsonl":
        stored = [None if np.isnan(v) else v for v in labels]
    read = whole(write(kind, X, labels=stored))
    assert read.labels == [0, 1, None, *range(3, 53)]
    assert {type(label) for label in read.labels} == {int, type(None)}


@pytest.mark.parametrize("kind", ["npz", "mat", "jsonl"])
def test_a_fractional_label_refuses_its_row(kind, X, write, whole):
    labels = np.arange(53.0)
    labels[2] = 1.5
    read = whole(write(kind, X, labels=labels.tolist()))
    assert len(read.ids) == 52
    assert "a label is 1.5" in next(iter(read.rejected.values()))


@every_format
def test_vectors_of_another_dimension_than_is_wanted_are_refused(kind, X, write, whole):
    path = write(kind, X)
    assert len(whole(path, dimension=6).ids) == 53
    if kind in ("jsonl", "csv"):  # where each line has its own
        read = whole(path, dimension=7)
        assert len(read.rejected) == 53
        assert set(read.rejected.values()) == {"its vector has 6 coordinates and 7 are wanted"}
    else:
        with pytest.raises(FormatError, match="have 6 coordinates") as caught:
            whole(path, dimension=7)
        assert caught.value.why == "7 are wanted"


@every_format
def test_an_abandoned_reader_closes_its_file(kind, X, write):
    parts = formats.read(write(kind, X), chunk_items=1)
    next(parts)
    parts.close()  # the test settings turn a ResourceWarning into a failure
    with pytest.raises(StopIteration):
        next(parts)


@every_format
def test_memory_does_not_grow_with_the_file(kind, write, whole, monkeypatch):
    rows = 4_000 if kind in ("jsonl", "csv") else 40_000
    X = np.random.default_rng(1).normal(size=(rows, 50)).astype(np.float32)
    path = write(kind, X)
    for module in (tables, formats.gather):
        monkeypatch.setattr(module, "MAX_CHUNK_BYTES", 200_000)
    for module in (opening, formats.npz, formats.mat, formats.inflated):
        if hasattr(module, "COPY_BYTES"):
            monkeypatch.setattr(module, "COPY_BYTES", 65_536)
    monkeypatch.setattr(opening, "MAX_MEMORY_SPOOL_BYTES", 65_536)
    next(formats.read(path))  # imports and caches are not the reader's
    tracemalloc.start()
    assert sum(len(part.ids) for part in formats.read(path)) == rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # the file is 4 MB of text or 8 MB of vectors


@every_format
def test_a_missing_file_a_folder_and_a_forbidden_file_say_so(kind, tmp_path, monkeypatch, whole):
    cases = {"does not exist": tmp_path / "none", "is a directory": tmp_path}
    for what, path in cases.items():
        with pytest.raises(FormatError, match=what) as caught:
            whole(path, format=kind)
        assert str(path) in str(caught.value)
        assert caught.value.why
        assert caught.value.remedy

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(FormatError, match="may not be read"):
        whole(tmp_path / "secret", format=kind)


def test_a_path_that_is_none_and_a_disk_that_fails_are_format_errors(whole):
    with pytest.raises(FormatError, match="is no path"):
        whole(Path("a\0b"))

    class Failing(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _: object) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(FormatError, match="cannot be read") as caught:
        whole(io.BufferedReader(Failing()))
    assert "Input/output error" in caught.value.why


@every_format
def test_an_empty_file_holds_no_vectors(kind, tmp_path, whole):
    path = tmp_path / "empty"
    path.touch()
    for options in ({"format": kind}, {}):
        with pytest.raises(FormatError):
            whole(path, **options)


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    with pytest.raises(UsageError) as caught:
        formats.read(tmp_path / "x.parquet", format="parquet")
    assert caught.value.why == "the formats are npy, npz, mat, fvecs, jsonl, csv"
    path = tmp_path / "unknown"
    path.write_bytes(b"0.5,0.25\n")
    with pytest.raises(UsageError, match="cannot be told") as caught:
        next(formats.read(path))
    assert "npy, npz, mat, fvecs, jsonl, csv" in caught.value.remedy


@pytest.mark.parametrize("options", [{"chunk_items": 0}, {"limit": 0}, {"limit": -1}])
def test_a_bound_below_one_is_refused_at_the_call(options, tmp_path):
    with pytest.raises(UsageError):
        formats.read(tmp_path / "x.npy", **options)


def test_a_stream_longer_than_the_bound_is_refused(monkeypatch, pipe, whole):
    monkeypatch.setattr(opening, "MAX_EXPANDED_BYTES", 100_000)
    with pytest.raises(FormatError, match="longer than 100,000 bytes"):
        whole(pipe(bytes(3_000_000)), format="fvecs")


@every_format
def test_queries_are_read_whole(kind, X, write):
    ids, vectors = formats.read_queries(write(kind, X))
    assert ids == [str(row) for row in range(53)]
    assert np.array_equal(vectors, X)
    assert formats.read_queries(write(kind, X), limit=2)[1].shape == (2, 6)


@every_format
def test_the_first_refused_query_stops_them_all(kind, X, write):
    X[9, 0] = np.nan
    with pytest.raises(FormatError, match=r"(row 9|line 1[01]) of .* is no vector") as caught:
        formats.read_queries(write(kind, X))
    assert caught.value.why
    assert caught.value.remedy


def test_the_bound_on_a_line_leaves_room_for_the_longest_vector():
    longest = b"-1.2345678901234567e-300, " * 16_384
    assert len(longest) + 6 * 8_192 + 6 * 1_024 < records.MAX_LINE_BYTES
