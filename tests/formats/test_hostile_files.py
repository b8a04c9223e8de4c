"""Files that lie, are cut, or are noise: only FormatError, Rejected and good chunks may come of them.

Every case also bounds what is allocated, by tracemalloc, which sees numpy's arrays as well.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash import formats
from stream_hash.errors import FormatError
from stream_hash.formats import mat, npz

MAX_ALLOCATED_BYTES = 64 * 2**20
FORMATS = formats.FORMATS


@pytest.fixture(scope="module", autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def outcome(data: bytes, kind: str) -> tuple[int, list[str], FormatError | None]:
    """How many items came, why rows were refused, and the error at the end, if any."""
    good, refused, raised = 0, [], None
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        for part in formats.read(io.BytesIO(data), format=kind):
            if isinstance(part, formats.Rejected):
                refused.append(part.reason)
            else:
                assert part.vectors.dtype == np.float32
                assert np.isfinite(part.vectors).all()
                good += len(part.ids)
    except FormatError as error:
        raised = error
    assert tracemalloc.get_traced_memory()[1] - before < MAX_ALLOCATED_BYTES
    if raised is not None:
        assert raised.why
        assert raised.remedy
        assert len(str(raised)) + len(raised.why) < 1_000
    return good, refused, raised


def npy_file(header: str | bytes, body: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    text = header.encode("latin-1") if isinstance(header, str) else header
    length = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + length.to_bytes(2 if version == 1 else 4, "little") + text + body


def header(shape: str = "(2, 2)", descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def npy_of(X: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, X)
    return file.getvalue()


def zip_of(compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return bytearray(file.getvalue())


def patched(data: bytearray, offset: int, layout: str, value: int, entry: bytes = b"PK\x01\x02") -> bytes:
    """`data` with one field of the first entry of the zip directory replaced."""
    struct.pack_into(layout, data, data.index(entry) + offset, value)
    return bytes(data)


def npz_with(ids: bytes) -> bytes:
    """Two good vectors with this array of ids."""
    return bytes(zip_of(X=npy_of(np.eye(2)), ids=ids))


def zip_claiming(member: bytes, size: int) -> bytes:
    """An archive of one array whose directory claims another size for it."""
    return patched(zip_of(X=member), 24, "<I", size)


def stored_zip_claiming(shape: str, values_bytes: int) -> bytes:
    """An archive of one array that is not compressed, all of whose headers promise what the file does not have."""
    member = npy_file(header(shape))
    data = zip_of(zipfile.ZIP_STORED, X=member)
    for offset in (20, 24):
        patched(data, offset, "<I", len(member) + values_bytes)
    return bytes(data)


def zip_at(offset: int) -> bytes:
    """An archive whose one member begins at an offset of 64 bits, as its directory says."""
    extra = struct.pack("<HHQ", 1, 8, offset)
    data = bytearray(patched(zip_of(X=npy_of(np.eye(2))), 42, "<I", 2**32 - 1))
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 30, len(extra))
    end = data.index(b"PK\x05\x06")
    data[end:end] = extra
    struct.pack_into("<I", data, end + len(extra) + 12, end + len(extra) - data.index(b"PK\x01\x02"))
    return bytes(data)


def element(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<II", kind, len(body) if length is None else length) + body + bytes(-len(body) % 8)


def mat_head(class_: int = 6, shape: tuple[int, ...] = (2, 2), name: bytes = b"X") -> bytes:
    axes = struct.pack(f"<{len(shape)}i", *shape)
    return element(6, struct.pack("<II", class_, 0)) + element(5, axes) + element(1, name)


def mat_file(*elements: bytes, compress: bool = False) -> bytes:
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return start + b"".join(element_compressed(e) if compress else e for e in elements)


def element_compressed(body: bytes) -> bytes:
    packed = zlib.compress(body)
    return struct.pack("<II", 15, len(packed)) + packed


def nested_cells(depth: int) -> bytes:
    head = mat_head(1, (1, 1), b"")
    inside = element(14, mat_head(6, (1, 1), b"") + element(9, bytes(8)))
    lengths = [len(inside) + at * (8 + len(head)) + len(head) for at in range(depth)]
    shells = b"".join(struct.pack("<II", 14, length) + head for length in reversed(lengths))
    return element(14, mat_head(1, (1, 1), b"X") + shells + inside)


VALUES = element(9, np.eye(2).tobytes())
TERABYTES = "(1099511627776, 16)"

HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    # npy
    "npy pickled objects": ("npy", lambda: npy_of(np.array([[{}, print]], dtype=object))),
    "npy header claims terabytes": ("npy", lambda: npy_file(header(TERABYTES))),
    "npy header claims terabytes in columns": ("npy", lambda: npy_file(header(TERABYTES, order="True"))),
    "npy shape past 64 bits": ("npy", lambda: npy_file(header("(2, 99999999999999999999999)"))),
    "npy shape wraps around to nothing": ("npy", lambda: npy_file(header("(4611686018427387904, 4)"))),
    "npy negative shape": ("npy", lambda: npy_file(header("(-1, 2)"), bytes(16))),
    "npy shape of names": ("npy", lambda: npy_file(header("(a, b)"), bytes(16))),
    "npy header runs code": ("npy", lambda: npy_file(header("(__import__('os').getpid(), 2)"), bytes(16))),
    "npy header of 4 GiB": ("npy", lambda: npy_file(header(), version=2, length=2**32 - 1)),
    "npy header of parentheses": ("npy", lambda: npy_file("(" * 9_000)),
    "npy header of minuses": ("npy", lambda: npy_file("{'descr': " + "-" * 9_000 + "1}")),
    "npy header of blanks": ("npy", lambda: npy_file("{" + " " * 9_000 + "'descr'" + " " * 900)),
    "npy header of nothing": ("npy", lambda: npy_file("")),
    "npy header not closed": ("npy", lambda: npy_file(header().strip()[:-1])),
    "npy header with a key twice": ("npy", lambda: npy_file(header().replace("}", "'shape': (2, 2)}"))),
    "npy header with another key": ("npy", lambda: npy_file(header().replace("}", "'more': 'x'}"))),
    "npy header with swapped kinds": ("npy", lambda: npy_file(header("'<f4'", "(2, 2)"))),
    "npy dtype unknown": ("npy", lambda: npy_file(header(descr="'<f3'"), bytes(16))),
    "npy dtype of fields": ("npy", lambda: npy_file(header(descr="'f4,f4'"), bytes(32))),
    "npy dtype of a subarray": ("npy", lambda: npy_file(header(descr="'(999999999,)f4'"))),
    "npy dtype nested": ("npy", lambda: npy_file(header(descr="[('a', " * 500))),
    "npy dtype of no bytes": ("npy", lambda: npy_file(header(descr="'|V0'"))),
    "npy version 9": ("npy", lambda: npy_file(header(), bytes(16), version=9)),
    "npy of two arrays": ("npy", lambda: npy_of(np.eye(2)) * 2),
    "npy of NUL": ("npy", lambda: bytes(1_000)),
    # npz
    "npz pickled objects": ("npz", lambda: bytes(zip_of(X=npy_of(np.array([[{}]], dtype=object))))),
    "npz pickled labels": (
        "npz", lambda: bytes(zip_of(X=npy_of(np.eye(2)), y=npy_of(np.array([{}, []], dtype=object)))),
    ),
    "npz header claims terabytes": ("npz", lambda: bytes(zip_of(X=npy_file(header(TERABYTES))))),
    "npz header of 4 GiB": ("npz", lambda: bytes(zip_of(X=npy_file(header(), version=2, length=2**32 - 1)))),
    "npz header smaller than its bomb": ("npz", lambda: bytes(zip_of(X=npy_file(header(), bytes(50_000_000))))),
    "npz declared smaller than its bomb": (
        "npz",
        lambda: zip_claiming(npy_file(header("(2, 4)"), bytes(50_000_000)), len(npy_file(header("(2, 4)"))) + 32),
    ),
    "npz declared larger than it is": (
        "npz", lambda: zip_claiming(npy_file(header("(100, 2)"), bytes(16)), len(npy_file(header("(100, 2)"))) + 800),
    ),
    "npz declared larger than deflate can": (
        "npz", lambda: zip_claiming(npy_file(header("(100000000, 2)")), 800_000_075),
    ),
    "npz text not Unicode": ("npz", lambda: npz_with(npy_file(header("(2,)", "'<U1'"), b"\xff" * 8))),
    "npz text a gigabyte wide": ("npz", lambda: npz_with(npy_file(header("(2,)", "'<U250000000'")))),
    "npz text 80,000 bytes wide": ("npz", lambda: npz_with(npy_of(np.zeros(2, "U20000")))),
    "npz text of no bytes": ("npz", lambda: npz_with(npy_file(header("(2,)", "'<U0'")))),
    "npz wrong checksum": ("npz", lambda: patched(zip_of(X=npy_of(np.eye(2))), 16, "<I", 12345)),
    "npz encrypted": ("npz", lambda: patched(zip_of(X=npy_of(np.eye(2))), 8, "<H", 1)),
    "npz of an unknown method": ("npz", lambda: patched(zip_of(X=npy_of(np.eye(2))), 10, "<H", 97)),
    "npz of lzma": ("npz", lambda: bytes(zip_of(zipfile.ZIP_LZMA, X=npy_of(np.eye(2))))),
    "npz member beyond the end": ("npz", lambda: patched(zip_of(X=npy_of(np.eye(2))), 42, "<I", 2**31)),
    "npz local name of 60,000 bytes": (
        "npz",
        lambda: patched(zip_of(zipfile.ZIP_STORED, X=npy_of(np.eye(100))), 26, "<H", 60_000, entry=b"PK\x03\x04"),
    ),
    "npz member beyond 63 bits": ("npz", lambda: zip_at(2**64 - 1)),
    "npz stored member longer than the file": ("npz", lambda: stored_zip_claiming("(1000000, 2)", 8_000_000)),
    "npz of a future version": ("npz", lambda: patched(zip_of(X=npy_of(np.eye(2))), 6, "<H", 999)),
    "npz directory of 4 GiB": (
        "npz", lambda: bytes(zip_of(X=b"")[:-22]) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 2**32 - 2, 0, 0),
    ),
    "npz of 20,000 members": ("npz", lambda: bytes(zip_of(**{f"a{at}": b"" for at in range(20_000)}))),
    "npz with its vectors twice": (
        "npz", lambda: bytes(zip_of(X=npy_of(np.eye(2)), Y=npy_of(np.eye(2))).replace(b"Y.npy", b"X.npy")),
    ),
    "npz of nothing": ("npz", lambda: bytes(zip_of())),
    "npz of text": ("npz", lambda: bytes(zip_of(X=b"hello"))),
    # mat
    "mat 7.3": ("mat", lambda: b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n"),
    "mat 4": ("mat", lambda: struct.pack("<5i", 0, 2, 2, 0, 2) + b"X\0" + bytes(32)),
    "mat garbage": ("mat", lambda: mat_file(np.random.default_rng(0).bytes(10_000))),
    "mat of NUL": ("mat", lambda: mat_file(bytes(10_000))),
    "mat of another byte order": ("mat", lambda: mat_file()[:-2] + b"XX"),
    "mat element of 4 GiB": ("mat", lambda: mat_file(element(14, mat_head() + VALUES, 2**32 - 1))),
    "mat values of 4 GiB": ("mat", lambda: mat_file(element(14, mat_head() + element(9, bytes(32), 2**32 - 16)))),
    "mat packed values of 4 GiB": (
        "mat", lambda: mat_file(element(14, mat_head() + element(9, bytes(32), 2**32 - 16)), compress=True),
    ),
    "mat packed name of 4 GiB": (
        "mat", lambda: mat_file(element(14, mat_head()[:-16] + element(1, b"X", 2**32 - 16)), compress=True),
    ),
    "mat packed element of 4 GiB": (
        "mat",
        lambda: mat_file(
            element(14, mat_head(6, (2**15, 2**14)) + element(9, b"", 2**32 - 8), 2**32 - 8), compress=True
        ),
    ),
    "mat bomb behind a small claim": (
        "mat", lambda: mat_file(element(14, mat_head() + VALUES) + bytes(50_000_000), compress=True),
    ),
    "mat shape that is not filled": ("mat", lambda: mat_file(element(14, mat_head(shape=(2**30, 2)) + VALUES))),
    "mat values beyond their shape": ("mat", lambda: mat_file(element(14, mat_head(shape=(1, 2)) + VALUES))),
    "mat negative shape": ("mat", lambda: mat_file(element(14, mat_head(shape=(-2, -2)) + VALUES))),
    "mat of 10,000 axes": ("mat", lambda: mat_file(element(14, mat_head(shape=(1,) * 10_000) + VALUES))),
    "mat head longer than its element": (
        "mat", lambda: mat_file(struct.pack("<II", 14, 24) + mat_head() + VALUES),
    ),
    "mat of cells within cells": ("mat", lambda: mat_file(nested_cells(100_000))),
    "mat of packed cells within cells": ("mat", lambda: mat_file(nested_cells(100_000), compress=True)),
    "mat with its vectors twice": ("mat", lambda: mat_file(*[element(14, mat_head() + VALUES)] * 2)),
    "mat values of an unknown type": ("mat", lambda: mat_file(element(14, mat_head() + element(77, bytes(32))))),
    "mat class unknown": ("mat", lambda: mat_file(element(14, mat_head(99) + VALUES))),
    "mat packed twice": ("mat", lambda: mat_file(element_compressed(element(14, mat_head() + VALUES)), compress=True)),
    "mat packed noise": ("mat", lambda: mat_file(element(15, b"\x78\x9c" + b"noise" * 10))),
    "mat ids of broken text": (
        "mat",
        lambda: mat_file(
            element(14, mat_head() + VALUES), element(14, mat_head(4, (2, 1), b"ids") + element(16, b"\xff\xfe"))
        ),
    ),
    "mat ids of too few characters": (
        "mat",
        lambda: mat_file(
            element(14, mat_head() + VALUES), element(14, mat_head(4, (2, 9), b"ids") + element(16, b"ab"))
        ),
    ),
    # fvecs
    "fvecs of 2 billion coordinates": ("fvecs", lambda: struct.pack("<i", 2**31 - 1) + bytes(100)),
    "fvecs of -1 coordinates": ("fvecs", lambda: struct.pack("<i", -1) * 100),
    "fvecs of no coordinates": ("fvecs", lambda: bytes(400)),
    "fvecs of two bytes": ("fvecs", lambda: b"\1\0"),
    # text as a whole
    "jsonl of blanks": ("jsonl", lambda: b" \r\n" * 10_000),
    "csv of blanks": ("csv", lambda: b" \r\n" * 10_000),
    "csv of NUL": ("csv", lambda: bytes(5_000_000)),
    "csv of commas": ("csv", lambda: b"," * 500_000),
}  # fmt: skip

REFUSING: dict[str, tuple[str, Callable[[], bytes]]] = {
    "jsonl of one long line": ("jsonl", lambda: b"[" * 20_000_000),
    "jsonl of NUL": ("jsonl", lambda: bytes(5_000_000)),
    "jsonl deep": ("jsonl", lambda: (b"[" * 500_000 + b"\n") * 3),
    "jsonl of empty objects": ("jsonl", lambda: b'{"vector": [' + b"{}," * 340_000 + b"{}]}\n"),
    "jsonl of digits": ("jsonl", lambda: b'{"vector": [' + b"9" * 1_000_000 + b"]}\n"),
    "jsonl of invalid UTF-8": ("jsonl", lambda: b"\xff\n" * 1_000),
    "jsonl of distinct keys": ("jsonl", lambda: b"{" + b",".join(b'"%d":0' % at for at in range(90_000)) + b"}\n"),
    "csv of long cells": ("csv", lambda: b"a,b\n" + (b"1" * 900_000 + b",2\n") * 5),
    "csv of open quotes": ("csv", lambda: b'id,v\n"' + b'a\n"' * 10_000),
    "csv of digits": ("csv", lambda: b"v\n" + b"9" * 100_000 + b"\n"),
    "csv of many cells": ("csv", lambda: b"v\n" + b"1," * 500_000 + b"1\n"),
}


SAID = {
    "npy header of 4 GiB": "the limit is 10,000",
    "npy header with a key twice": "its header is",
    "npy shape past 64 bits": "its shape is",
    "npy pickled objects": "dtype object",
    "npz pickled labels": "dtype object",
    "npz header claims terabytes": "not as long as its header says",
    "npz declared larger than deflate can": "cannot hold as much",
    "npz of 20,000 members": "has a directory of",
    "npz encrypted": "no password is asked for",
    "npz text 80,000 bytes wide": "80,000 bytes wide",
    "npz stored member longer than the file": "EOFError",
    "npz with its vectors twice": "one of them would be ignored",
    "mat 7.3": "MATLAB 7.3",
    "mat element of 4 GiB": "an element claims",
    "mat values of 4 GiB": "4,294,967,280 bytes of values",
    "mat packed values of 4 GiB": "4,294,967,280 bytes of values",
    "mat packed element of 4 GiB": "compressed bytes claim to hold",
    "mat bomb behind a small claim": "expands to more than it claims",
    "mat head longer than its element": "the head of an array ends early",
    "mat of 10,000 axes": "an element of 40,000 bytes",
    "mat of cells within cells": "a cell array",
    "mat shape that is not filled": "do not fill X",
    "mat negative shape": "the shape (-2, -2)",
    "mat ids of too few characters": "has 2 characters",
}
"""Where several checks would refuse a file, the one that must do it before the others cost anything."""


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_a_format_error_and_allocates_nothing_of_what_it_claims(case):
    kind, make = HOSTILE[case]
    good, refused, raised = outcome(make(), kind)
    assert raised is not None
    assert good == 0
    assert not refused
    assert SAID.get(case, "") in f"{raised}: {raised.why}"


@pytest.mark.parametrize("case", REFUSING)
def test_a_hostile_line_is_refused_without_stopping_the_file(case):
    kind, make = REFUSING[case]
    good, refused, raised = outcome(make(), kind)
    assert raised is None
    assert good == 0
    assert refused
    assert all(len(reason) < 300 for reason in refused)


def test_a_header_claiming_terabytes_allocates_nothing():
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    with pytest.raises(FormatError, match="truncated"):
        next(formats.read(io.BytesIO(npy_file(header(TERABYTES))), format="npy"))
    assert tracemalloc.get_traced_memory()[1] - before < 100_000


def test_a_pickle_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("sprung").touch, ())

    for data in (npy_of(np.array([[Trap()]], dtype=object)), bytes(zip_of(X=npy_of(np.array([[Trap()]]))))):
        with pytest.raises(FormatError, match="dtype object") as caught:
            next(formats.read(io.BytesIO(data)))
        assert "pickled" in caught.value.why
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("order", ["False", "True"])
def test_an_honest_archive_of_zeros_is_read_a_block_at_a_time(order):
    data = bytes(zip_of(X=npy_file(header("(43000, 400)", order=order), bytes(68_800_000))))
    assert len(data) < 100_000
    assert outcome(data, "npz") == (43_000, [], None)


@pytest.mark.parametrize("module", [npz, mat])
def test_an_archive_may_not_expand_beyond_the_bound(module, monkeypatch):
    X = np.zeros((1_000, 100), np.float32)
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": X}, do_compression=True)
    data = file.getvalue() if module is mat else bytes(zip_of(X=npy_of(X)))
    kind = module.__name__.rpartition(".")[2]
    assert outcome(data, kind)[0] == 1_000
    monkeypatch.setattr(module, "MAX_EXPANDED_BYTES", 399_999)
    good, _, raised = outcome(data, kind)
    assert good == 0
    assert "expands to 400," in str(raised)


def valid_files() -> dict[str, bytes]:
    X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    ids, labels = np.array(["a", "bb", "c", "d", "e"]), np.arange(5)
    files = {"npy": npy_of(X), "npy in columns": npy_of(np.asfortranarray(X))}
    for name, save in (("npz", np.savez_compressed), ("npz stored", np.savez)):
        file = io.BytesIO()
        save(file, X=X, ids=ids, y=labels)
        files[name] = file.getvalue()
    for name, compressed in (("mat", True), ("mat stored", False)):
        file = io.BytesIO()
        scipy.io.savemat(file, {"X": X, "X_class": labels, "ids": ids}, do_compression=compressed)
        files[name] = file.getvalue()
    files["fvecs"] = b"".join(struct.pack("<i3f", 3, *row) for row in X.tolist())
    rows = [
        f'{{"id": "{i}", "vector": {row}, "label": {at}}}\n'
        for at, (i, row) in enumerate(zip(ids, X.tolist(), strict=True))
    ]
    files["jsonl"] = "".join(rows).encode()
    cells = [f"{i},{at},{','.join(map(str, row))}\n" for at, (i, row) in enumerate(zip(ids, X.tolist(), strict=True))]
    files["csv"] = ("id,label,x,y,z\n" + "".join(cells)).encode()
    return files


VALID = valid_files()


@pytest.mark.parametrize("name", VALID)
def test_a_whole_file_is_the_control(name):
    assert outcome(VALID[name], name.split()[0]) == (5, [], None)


@pytest.mark.parametrize("name", [name for name in VALID if name not in ("jsonl", "csv", "fvecs")])
def test_an_array_file_cut_anywhere_gives_no_item(name):
    data = VALID[name]
    for end in range(1, len(data), 3):
        good, refused, raised = outcome(data[:end], name.split()[0])
        whole_without_a_later_variable = name.startswith("mat") and raised is None
        assert raised is not None or whole_without_a_later_variable, end
        assert not refused
        assert good in (0, 5)


def test_an_fvecs_file_cut_within_a_vector_gives_no_item():
    for end in range(1, len(VALID["fvecs"])):
        good, refused, raised = outcome(VALID["fvecs"][:end], "fvecs")
        assert (good, refused, raised is None) == ((end // 16, [], True) if end % 16 == 0 else (0, [], False))


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_a_text_file_cut_anywhere_gives_no_more_items_than_lines(name):
    data = VALID[name]
    for end in range(1, len(data)):
        good, refused, raised = outcome(data[:end], name)
        assert good <= data[:end].count(b"\n") + 1
        assert len(refused) <= 1
        assert good or refused or raised


@pytest.mark.parametrize("name", VALID)
def test_changed_bytes_of_a_good_file_do_no_more_than_refuse_it(name):
    random = np.random.default_rng(0)
    for _ in range(250):
        changed = bytearray(VALID[name])
        for _ in range(random.integers(1, 5)):
            at = int(random.integers(len(changed)))
            piece = (b"\xff" * 4, bytes(4), b"\0\0\0\x80", random.bytes(1), random.bytes(4), b"")[random.integers(6)]
            changed[at : at + int(random.integers(5))] = piece
        outcome(bytes(changed), name.split()[0])


STARTS = {
    "npy": b"\x93NUMPY\x01\x00",
    "npz": b"PK\x03\x04",
    "mat": mat_file(),
    "fvecs": struct.pack("<i", 2),
    "jsonl": b'{"vector": ',
    "csv": b"id,v0,v1\n",
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.booleans(), st.binary(max_size=2_000))
def test_noise_does_no_more_than_be_refused(kind, started, noise):
    outcome(STARTS[kind] * started + noise, kind)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_in_a_header_or_a_packed_element_does_no_more_than_be_refused(noise):
    outcome(npy_file(noise, bytes(16)), "npy")
    outcome(npy_file(header(descr=repr(noise.decode("latin-1"))), bytes(16)), "npy")
    outcome(bytes(zip_of(X=noise)), "npz")
    outcome(mat_file(noise, compress=True), "mat")
    outcome(mat_file(element(14, noise), compress=True), "mat")
