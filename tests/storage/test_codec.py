from __future__ import annotations

import json

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
    (blob,) = encode_values(np.array([1]), np.ones((1, 4), np.float32), [""], "float32")
    with pytest.raises(IntegrityError, match="shorter"):
        decode_values(np.array([0]), [blob[:-1]], 4, "float32")


def test_equal_models_are_equal_bytes_and_a_changed_byte_is_refused() -> None:
    arrays = {"w": np.arange(6.0).reshape(2, 3), "name": np.array("cosine")}
    raw, sha256 = encode_model(arrays)
    assert (raw, sha256) == encode_model(dict(reversed(arrays.items())))
    decoded = decode_model(raw, sha256)
    assert decoded["w"].tolist() == arrays["w"].tolist()
    assert decoded["name"] == "cosine"
    assert decoded["name"].shape == ()
    with pytest.raises(IntegrityError, match="changed"):
        decode_model(raw[:-1] + b"x", sha256)


def test_a_model_with_pickled_objects_is_never_loaded() -> None:
    import hashlib
    import io

    buffer = io.BytesIO()
    np.savez(buffer, w=np.array([object()], dtype=object))
    raw = buffer.getvalue()
    with pytest.raises(ValueError, match="pickle"):
        decode_model(raw, hashlib.sha256(raw).hexdigest())


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_records_parsed_in_one_go_are_those_parsed_alone(several: list[tuple[str, str]]) -> None:
    stored = [json.dumps(["7", "12", label, "3", metadata]).encode() for label, metadata in several]
    assert decode_records(stored) == [decode_record(text) for text in stored]
