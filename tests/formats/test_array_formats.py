"""npy, npz, mat and fvecs: numpy and scipy write, we read, and numpy says what is right."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stream_hash import formats
from stream_hash.errors import FormatError

NUMBERS = st.one_of(
    arrays.integer_dtypes(endianness="?", sizes=(8, 16, 32, 64)),
    arrays.unsigned_integer_dtypes(endianness="?", sizes=(8, 16, 32, 64)),
    arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)


def matrices(dtypes):
    shapes = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
    return dtypes.flatmap(
        lambda dtype: arrays.arrays(
            dtype,
            shapes,
            elements={"allow_nan": False, "allow_infinity": False, "min_value": -1_000, "max_value": 1_000}
            if dtype.kind == "f"
            else None,
        )
    )


def read_vectors(data: bytes, kind: str, **options) -> np.ndarray:
    parts = list(formats.read(io.BytesIO(data), format=kind, **options))
    assert not [part for part in parts if isinstance(part, formats.Rejected)]
    return np.concatenate([part.vectors for part in parts])


def npy_bytes(X, **options) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(X), **options)
    return file.getvalue()


def npz_bytes(**named) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **named)
    return file.getvalue()


def mat_bytes(compressed=True, **named) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, named, do_compression=compressed)
    return file.getvalue()


@given(matrices(NUMBERS), st.booleans(), st.sampled_from([(1, 0), (2, 0), (3, 0)]), st.integers(1, 10))
def test_npy_of_every_dtype_order_and_version_reads_as_numpy_reads_it(X, fortran, version, chunk_items):
    data = npy_bytes(np.asfortranarray(X) if fortran else X, version=version)
    expected = np.load(io.BytesIO(data)).astype(np.float32)
    assert np.array_equal(read_vectors(data, "npy", chunk_items=chunk_items), expected)


@given(matrices(NUMBERS), st.booleans(), st.integers(1, 10))
def test_npz_of_every_dtype_and_order_reads_as_numpy_reads_it(X, fortran, chunk_items):
    data = npz_bytes(vectors=np.asfortranarray(X) if fortran else X)
    assert np.array_equal(read_vectors(data, "npz", chunk_items=chunk_items), X.astype(np.float32))


@settings(deadline=None)
@given(
    matrices(NUMBERS.filter(lambda dtype: dtype.itemsize > 2 or dtype.kind != "f")), st.booleans(), st.integers(1, 10)
)
def test_mat_of_every_dtype_reads_as_scipy_reads_it(X, compressed, chunk_items):
    data = mat_bytes(compressed, other=np.eye(2), X=X, name="text", tree={"a": [1, "b"]})
    expected = scipy.io.loadmat(io.BytesIO(data))["X"].astype(np.float32)
    assert np.array_equal(read_vectors(data, "mat", chunk_items=chunk_items), expected)


def test_the_header_of_another_writer_is_read(whole):
    head = b'{"shape":(2,2),"descr":"<f4","fortran_order":False}\n'
    data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + np.arange(4, dtype="<f4").tobytes()
    assert whole(io.BytesIO(data)).vectors.tolist() == [[0, 1], [2, 3]]
    assert np.load(io.BytesIO(data)).tolist() == [[0, 1], [2, 3]]


def test_a_big_endian_mat_file_with_small_elements_is_read(whole):
    def element(kind: int, body: bytes) -> bytes:
        if 0 < len(body) <= 4:
            return len(body).to_bytes(2, "big") + kind.to_bytes(2, "big") + body.ljust(4, b"\0")
        return kind.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body + bytes(-len(body) % 8)

    def matrix(name: bytes, shape: tuple[int, int], class_: int, kind: int, values: bytes) -> bytes:
        flags, axes = np.array([class_, 0], ">u4").tobytes(), np.array(shape, ">i4").tobytes()
        return element(14, element(6, flags) + element(5, axes) + element(1, name) + element(kind, values))

    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    data += matrix(b"X", (2, 2), 6, 3, np.array([1, 2, 3, -4], ">i2").tobytes())  # doubles kept as int16
    data += matrix(b"X_class", (2, 1), 6, 2, b"\x07\x08")
    read = whole(io.BytesIO(data))
    assert read.vectors.tolist() == [[1, 3], [2, -4]]
    assert read.labels == [7, 8]
    assert np.array_equal(read.vectors, scipy.io.loadmat(io.BytesIO(data))["X"])


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1)])
@pytest.mark.parametrize("dtype", ["u1", "i8", ">f4", "f8"])
def test_labels_in_any_orientation_are_whole_numbers(shape, dtype, whole):
    X, labels = np.eye(4), np.arange(4).astype(dtype).reshape(shape)
    for data in (
        npz_bytes(X=X, y=labels),
        npz_bytes(X=X, labels=np.asfortranarray(labels)),
        mat_bytes(X=X, X_class=labels),
        mat_bytes(compressed=False, X=X, X_class=labels),
    ):
        read = whole(io.BytesIO(data))
        assert read.labels == [0, 1, 2, 3]
        assert {type(label) for label in read.labels} == {int}


def test_labels_in_the_widest_float_are_whole_numbers_too(whole):
    labels = whole(io.BytesIO(npz_bytes(X=np.eye(2), y=np.array([3, np.nan], np.longdouble)))).labels
    assert labels == [3, None]
    assert type(labels[0]) is int


def test_bytes_as_ids_are_utf_8_and_broken_ones_refuse_their_row(whole):
    ids = np.array(["ä".encode(), b"b", b"\xff"])
    read = whole(io.BytesIO(npz_bytes(X=np.eye(3), ids=ids)))
    assert read.ids == ["ä", "b"]
    assert read.rejected == {"row 2": "b'\\xff' is not UTF-8: invalid start byte"}


def test_big_endian_text_is_read(whole):
    read = whole(io.BytesIO(npz_bytes(X=np.eye(2), ids=np.array(["ab", "ü"], ">U2"))))
    assert read.ids == ["ab", "ü"]


def test_an_empty_id_refuses_its_row(whole):
    assert whole(io.BytesIO(npz_bytes(X=np.eye(2), ids=np.array(["", "b"])))).ids == ["b"]


@pytest.mark.parametrize("compressed", [True, False])
def test_rows_of_matlab_text_lose_only_their_padding(compressed, whole):
    ids = np.array(["a b", "c", "ü "])
    read = whole(io.BytesIO(mat_bytes(compressed, X=np.eye(3), ids=ids, X_class=np.array(["x", "yy", "z"]))))
    assert read.ids == ["a b", "c", "ü"]
    assert read.labels == ["x", "yy", "z"]


def test_members_that_are_not_asked_for_are_never_opened(whole):
    file = io.BytesIO(npz_bytes(X=np.eye(2), y=np.array([{}, []], dtype=object)))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("../../notes.txt", b"hello")
    file.seek(0)
    assert whole(file, labels=False).ids == ["0", "1"]
    file.seek(0)
    with pytest.raises(FormatError, match="dtype object"):
        whole(file)


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (np.eye(2, dtype=complex), "complex128"),
        (np.eye(2, dtype=bool), "bool"),
        (np.array([["a", "b"]]), "text"),
        (np.array([[b"a", b"b"]]), "bytes"),
        (np.array([[{}, []]], dtype=object), "object"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), "datetime64"),
        (np.zeros((2, 2), dtype=[("a", "f4")]), "structured"),
        (np.zeros(3), "shape (3,)"),
        (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        (np.float64(1), "shape ()"),
        (np.zeros((0, 4)), "no vectors"),
        (np.zeros((4, 0)), "no vectors"),
        (np.zeros((1, 16_385)), "16,385 coordinates"),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_what_is_no_array_of_vectors_is_refused_by_name(kind, X, said, whole):
    data = npz_bytes(X=X) if kind == "npz" else npy_bytes(X)
    with pytest.raises(FormatError) as caught:
        whole(io.BytesIO(data))
    assert said in str(caught.value)
    assert caught.value.why
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (np.eye(2) * 1j, "is complex"),
        (np.eye(2, dtype=bool), "is logical"),
        (scipy.sparse.eye_array(2).tocsc(), "is sparse"),
        (np.array([["a", 1]], dtype=object), "is a cell array"),
        ({"a": 1}, "is a struct"),
        (np.array(["ab", "cd"]), "no readable MATLAB file"),
        (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        (np.zeros((0, 4)), "no vectors"),
    ],
)
def test_a_mat_variable_that_is_no_plain_array_is_refused_by_name(X, said, whole):
    with pytest.raises(FormatError) as caught:
        whole(io.BytesIO(mat_bytes(X=X)))
    assert said in str(caught.value)
    assert caught.value.why
    assert caught.value.remedy


@pytest.mark.parametrize("what", ["ids", "labels"])
def test_ids_and_labels_must_be_as_many_as_the_vectors(what, whole):
    with pytest.raises(FormatError, match=f"3 {what} and 2 vectors"):
        whole(io.BytesIO(npz_bytes(X=np.eye(2), **{what: np.arange(3)})))
    name = {"labels": "X_class"}.get(what, what)
    with pytest.raises(FormatError, match=f"3 {what} and 2 vectors"):
        whole(io.BytesIO(mat_bytes(X=np.eye(2), **{name: np.arange(3)})))
    with pytest.raises(FormatError, match=r"have shape \(2, 3\)"):
        whole(io.BytesIO(npz_bytes(X=np.eye(2), **{what: np.zeros((2, 3))})))


@pytest.mark.parametrize("values", [np.ones(2, bool), np.ones(2, complex), np.ones(2, "M8[D]")])
def test_labels_that_are_neither_numbers_nor_text_are_refused(values, whole):
    with pytest.raises(FormatError, match=r"the labels in .* are "):
        whole(io.BytesIO(npz_bytes(X=np.eye(2), y=values)))


def test_two_arrays_that_could_be_the_vectors_are_refused(whole):
    with pytest.raises(FormatError, match=r"X\.npy and vectors\.npy"):
        whole(io.BytesIO(npz_bytes(X=np.eye(2), vectors=np.eye(2))))


@pytest.mark.parametrize("data", [npz_bytes(Z=np.eye(2)), mat_bytes(Z=np.eye(2))], ids=["npz", "mat"])
def test_without_vectors_the_error_says_what_there_is(data, whole):
    with pytest.raises(FormatError) as caught:
        whole(io.BytesIO(data))
    assert caught.value.why == "it holds ['Z']"


def test_fvecs_of_several_lengths_say_which_vector_differs(whole):
    def record(dimension: int) -> bytes:
        return np.array([dimension], "<i4").tobytes() + np.zeros(dimension, "<f4").tobytes()

    with pytest.raises(FormatError, match=r"vector 2 of .* has 1 coordinates"):
        whole(io.BytesIO(record(3) * 2 + record(1) * 2), format="fvecs")
