from __future__ import annotations

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_hash.errors import IntegrityError
from stream_hash.settings import VectorType
from stream_hash.storage.codec import (
    Batch,
    decode_batch,
    decode_model,
    decode_record,
    decode_records,
    decode_values,
    encode_batch,
    encode_model,
    encode_values,
)

texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(texts, texts, texts), max_size=8), st.integers(1, 5))
def test_a_batch_survives_its_bytes(rows: list[tuple[str, str, str]], dimension: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(rows), dimension)).astype(np.float32)
    ids, labels, metadata = ([row[i] for row in rows] for i in range(3))
    decoded = decode_batch(encode_batch(Batch("upsert", ids, vectors, labels, metadata)))
    assert (decoded.operation, decoded.ids, decoded.labels, decoded.metadata) == ("upsert", ids, labels, metadata)
    assert decoded.vectors is not None
    assert decoded.vectors.tobytes() == vectors.tobytes()


def test_a_batch_cut_short_or_changed_is_refused_and_never_misread() -> None:
    whole = encode_batch(Batch("upsert", ["a", "b"], np.ones((2, 3), np.float32), ["1", ""], None))
    for length in range(len(whole)):
        with pytest.raises(IntegrityError):
            decode_batch(whole[:length])
    for hostile in (b"", b"SHB\x02" + whole[4:], whole[:8] + b"[" * 100_000, whole + b"\0"):
        with pytest.raises(IntegrityError):
            decode_batch(hostile)


GOOD = {"operation": "upsert", "ids": ["a", "b"], "dimension": 3}

HOSTILE_HEADERS: dict[str, bytes] = {
    what: json.dumps({**GOOD, **changed}).encode()
    for what, changed in {
        "another operation": {"operation": "drop"},
        "an operation that is no text": {"operation": ["upsert"]},
        "ids that are no texts": {"ids": ["a", 7]},
        "ids that are a text": {"ids": 7},
        "a label too few": {"labels": ["1"]},
        "metadata of a third": {"metadata": ["", "", ""]},
        "labels that are no texts": {"labels": ["1", None]},
        "another dimension": {"dimension": 4},
        "no dimension": {"dimension": None},
    }.items()
} | {
    "no ids": b'{"operation": "delete"}',
    "no object": b"[]",
    "no JSON": b"{",
    "a deep one": b"[" * 100_000,
}


@pytest.mark.parametrize("what", HOSTILE_HEADERS)
def test_a_batch_of_a_header_that_lies_is_refused(what: str) -> None:
    vectors = np.ones((2, 3), np.float32).tobytes()

    def payload(header: bytes) -> bytes:
        return b"SHB\x01" + len(header).to_bytes(4, "little") + header + vectors

    assert len(decode_batch(payload(json.dumps(GOOD).encode()))) == 2
    with pytest.raises(IntegrityError):
        decode_batch(payload(HOSTILE_HEADERS[what]))


@pytest.mark.parametrize("item_id", ["a", "ab", "abc", "é", "abcdefgh"])
def test_vectors_lie_where_they_need_not_be_copied(item_id: str) -> None:
    payload = encode_batch(Batch("upsert", [item_id], np.ones((1, 3), np.float32)))
    assert (len(payload) - 12) % 8 == 0
    vectors = decode_batch(payload).vectors
    assert vectors is not None
    assert not vectors.flags.owndata


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@given(st.lists(texts.filter(bool), max_size=8))
def test_values_survive_their_bytes_and_missing_ones_are_left_out(dtype: VectorType, ids: list[str]) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(ids), 4)).astype(np.float16).astype(np.float32)
    sequences = rng.integers(1, 2**52, len(ids))
    blobs: list[bytes | None] = list(encode_values(sequences, vectors, ids, dtype))
    numbers = np.arange(len(ids) * 2)
    decoded = decode_values(numbers, [b for blob in blobs for b in (blob, None)], 4, dtype)
    assert list(decoded.ids) == ids
    assert [decoded.ids[row] for row in range(len(decoded.ids))] == ids
    assert decoded.vectors.flags.aligned
    assert decoded.numbers.tolist() == numbers[::2].tolist()
    assert decoded.sequences.tolist() == sequences.tolist()
    assert (decoded.vectors == vectors).all()


def test_a_value_shorter_than_its_vector_is_refused() -> None:
    blob, longer = encode_values(np.array([1, 2]), np.ones((2, 4), np.float32), ["", "long"], "float32")
    for blobs in ([blob[:-1]], [blob[:-1], longer]):
        with pytest.raises(IntegrityError, match="shorter"):
            decode_values(np.arange(len(blobs)), blobs, 4, "float32")


def test_equal_models_are_equal_bytes_and_a_changed_byte_is_refused() -> None:
    arrays = {"w": np.arange(6.0).reshape(2, 3), "name": np.array("cosine")}
    raw, sha256 = encode_model(arrays)
    assert (raw, sha256) == encode_model(dict(reversed(arrays.items())))
    decoded = decode_model(raw, sha256)
    assert decoded["w"].tolist() == arrays["w"].tolist()
    assert decoded["w"].flags.owndata  # and does not keep all the bytes of the model
    assert decoded["name"] == "cosine"
    assert decoded["name"].shape == ()
    with pytest.raises(IntegrityError, match="changed"):
        decode_model(raw[:-1] + b"x", sha256)


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


HOSTILE_MODELS = {
    "pickled objects": (np.array([object()], dtype=object), zipfile.ZIP_STORED),
    "a bomb": (np.zeros(100_000), zipfile.ZIP_DEFLATED),
    "more than there is": (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (400000000000,)}"), 0),
    "less than there is": (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", bytes(16)), 0),
    "a shape below zero": (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -2)}", bytes(16)), 0),
    "items of no size": (npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000000000,)}"), 0),
    "code for a header": (npy("{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}"), 0),
    "a later version": (b"\x93NUMPY\x03\x00" + bytes(100), 0),
    "no npy": (b"x" * 100, 0),
}


@pytest.mark.parametrize("kind", HOSTILE_MODELS)
def test_a_model_is_not_trusted_for_its_checksum(kind: str) -> None:
    content, compression = HOSTILE_MODELS[kind]
    buffer, member = io.BytesIO(), io.BytesIO()
    if isinstance(content, np.ndarray):
        np.save(member, content, allow_pickle=True)
        content = member.getvalue()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("w.npy", content)
    raw = buffer.getvalue()
    with pytest.raises(IntegrityError, match="a model is") as caught:
        decode_model(raw, hashlib.sha256(raw).hexdigest())
    assert WHY.get(kind, "") in f"{caught.value} {caught.value.why}"


WHY = {
    "pickled objects": "an array is of object",
    "a bomb": "is compressed",
    "more than there is": "an array of shape (400000000000,) has 0 bytes",
    "less than there is": "an array of shape (1,) has 16 bytes",
    "items of no size": "an array is of |V0",
    "a later version": "not of npy's version 1.0",
}
"""What is said of a model, where a rule of ours says it before numpy stumbles."""


def test_a_model_that_says_it_is_larger_than_it_is_is_refused() -> None:
    raw, _ = encode_model({"w": np.zeros(3)})
    size = raw.index(b"PK\x01\x02") + 24
    lying = raw[:size] + (10**9).to_bytes(4, "little") + raw[size + 4 :]
    with pytest.raises(IntegrityError, match="larger than the model"):
        decode_model(lying, hashlib.sha256(lying).hexdigest())


def test_arrays_that_another_program_wrote_by_columns_are_read_as_they_are() -> None:
    buffer = io.BytesIO()
    by_columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(buffer, w=by_columns)
    raw = buffer.getvalue()
    assert decode_model(raw, hashlib.sha256(raw).hexdigest())["w"].tolist() == by_columns.tolist()


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_records_parsed_in_one_go_are_those_parsed_alone(several: list[tuple[str, str]]) -> None:
    stored = [json.dumps(["7", "12", label, "3", metadata]).encode() for label, metadata in several]
    assert decode_records(stored) == [decode_record(text) for text in stored]


def test_members_of_a_model_that_are_the_same_bytes_are_refused() -> None:
    raw, _ = encode_model({name: np.zeros(1_000) for name in "ab"})
    start = raw.rindex(b"PK\x01\x02")  # of b; and that of a before it
    first = raw.index(b"PK\x01\x02")
    twice = raw[:start] + raw[first:start].replace(b"a.npy", b"c.npy") + raw[raw.index(b"PK\x05\x06") :]
    with pytest.raises(IntegrityError):
        decode_model(twice, hashlib.sha256(twice).hexdigest())
    for damaged in (b"", b"PK", raw[: len(raw) // 2]):
        with pytest.raises(IntegrityError, match="damaged"):
            decode_model(damaged, hashlib.sha256(damaged).hexdigest())
