"""The bytes we store, each in one documented format. Nothing here is ever unpickled.

| what   | format                                                                                        |
|--------|-----------------------------------------------------------------------------------------------|
| value  | sequence (uint64 LE), vector (float32 or float16 LE), id (UTF-8, the rest)                    |
| batch  | `SHB`, version byte, header length (uint32 LE), header (JSON), vectors (float32 LE, row-major) |
| model  | npz (a zip of npy members, no object arrays), sealed by its SHA-256                            |
| record | JSON array of text, written by write.lua                                                      |
| place  | see places.py                                                                                 |
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError
from stream_hash.settings import MAX_BATCH_ITEMS, MAX_PAYLOAD_BYTES, VectorType

Operation: TypeAlias = Literal["upsert", "delete", "label"]

_BATCH_MAGIC: Final = b"SHB\x01"
_BATCH_HEAD: Final = struct.Struct("<4sI")
_DTYPES: Final[Mapping[VectorType, str]] = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True)
class Batch:
    """Items on their way into an index, all with the same operation.

    vectors : float32 array of shape (n_items, dimension) for upserts, else None.
    labels, metadata : JSON text an item, empty for none.
    """

    operation: Operation
    ids: list[str]
    vectors: NDArray[np.float32] | None = None
    labels: list[str] | None = None
    metadata: list[str] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, positions: Sequence[int]) -> Batch:
        """The batch of only the items at `positions`."""

        def pick(values: list[str] | None) -> list[str] | None:
            return None if values is None else [values[p] for p in positions]

        vectors = None if self.vectors is None else self.vectors[list(positions)]
        return Batch(self.operation, [self.ids[p] for p in positions], vectors, pick(self.labels), pick(self.metadata))

    def piece(self, start: int, stop: int) -> Batch:
        """The batch of the items from `start` to before `stop`, with a copy of their vectors."""
        part = slice(start, stop)
        vectors = None if self.vectors is None else self.vectors[part].copy()
        labels = None if self.labels is None else self.labels[part]
        metadata = None if self.metadata is None else self.metadata[part]
        return Batch(self.operation, self.ids[part], vectors, labels, metadata)


def encode_batch(batch: Batch) -> bytes:
    """A batch as bytes. Texts that are empty for all items are left out."""
    header: dict[str, Any] = {"operation": batch.operation, "ids": batch.ids}
    if batch.labels is not None and any(batch.labels):
        header["labels"] = batch.labels
    if batch.metadata is not None and any(batch.metadata):
        header["metadata"] = batch.metadata
    if batch.vectors is not None:
        header["dimension"] = batch.vectors.shape[1]
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the vectors then lie where numpy need not copy them to compute
    parts: list[Any] = [_BATCH_HEAD.pack(_BATCH_MAGIC, len(text)), text]
    if batch.vectors is not None:
        parts.append(np.ascontiguousarray(batch.vectors, dtype="<f4").data.cast("B") if len(batch) else b"")
    return b"".join(parts)


def decode_batch(payload: bytes) -> Batch:
    """The batch that `encode_batch` wrote. Raises IntegrityError when the bytes are anything else."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise IntegrityError(f"a batch has {len(payload)} bytes", why=f"the limit is {MAX_PAYLOAD_BYTES}")
    try:
        magic, length = _BATCH_HEAD.unpack_from(payload)
        if magic != _BATCH_MAGIC:
            raise IntegrityError(f"a batch begins with {magic!r}", why=f"this version writes {_BATCH_MAGIC!r}")
        start = _BATCH_HEAD.size + length
        header = json.loads(payload[_BATCH_HEAD.size : start])
        ids, operation = header["ids"], header["operation"]
        if len(ids) > MAX_BATCH_ITEMS:
            raise IntegrityError(f"a batch has {len(ids)} items", why=f"the limit is {MAX_BATCH_ITEMS}")
        if operation not in ("upsert", "delete", "label"):
            raise IntegrityError(f"a batch's operation is {operation!r:.40}")
        empty = [""] * len(ids)
        labels, metadata = header.get("labels", empty), header.get("metadata", empty)
        for texts in (ids, labels, metadata):
            if len(texts) != len(ids) or not set(map(type, texts)) <= {str}:
                raise IntegrityError("a batch's ids, labels and metadata are not as many texts as items")
        vectors = None
        if operation == "upsert":
            vectors = np.frombuffer(payload, dtype="<f4", offset=start).reshape(len(ids), header["dimension"])
        return Batch(operation, ids, vectors, labels, metadata)
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError("a batch's payload is damaged", why=str(error)) from error


def _value_type(dimension: int, dtype: VectorType) -> np.dtype[np.void]:
    return np.dtype([("sequence", "<u8"), ("vector", _DTYPES[dtype], (dimension,))])


def id_offset(dimension: int, dtype: VectorType) -> int:
    """Where in a value its id begins."""
    return _value_type(dimension, dtype).itemsize


def encode_values(
    sequences: NDArray[np.int64], vectors: NDArray[np.float32], ids: Sequence[str], dtype: VectorType
) -> list[bytes]:
    """One value an item.

    sequences : (n,) int64. vectors : (n, dimension) float32. A float16 index rounds here, once.
    """
    count, dimension = vectors.shape
    fixed = np.empty(count, dtype=_value_type(dimension, dtype))
    fixed["sequence"] = sequences
    fixed["vector"] = vectors
    raw, size = memoryview(fixed.view(np.uint8).data).cast("B") if count else memoryview(b""), fixed.itemsize
    return [b"".join((raw[i * size : (i + 1) * size], ids[i].encode())) for i in range(count)]


@dataclass(frozen=True)
class Values:
    """Decoded values. numbers, sequences : (n,) int64; vectors : (n, dimension) float32; ids : n texts.

    The vectors may be a view of a reply, not to be written to, and are aligned.
    """

    numbers: NDArray[np.int64]
    sequences: NDArray[np.int64]
    vectors: NDArray[np.float32]
    ids: Sequence[str]


class StoredIds(Sequence[str]):
    """The ids of values, each decoded when it is asked for: a search wants those of its results, one in twenty."""

    def __init__(self, blobs: Sequence[bytes], start: int) -> None:
        """start : where in a value its id begins."""
        self._blobs, self._start = blobs, start

    def __len__(self) -> int:
        return len(self._blobs)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [str(blob[self._start :], "utf-8") for blob in self._blobs[at]]
        return str(self._blobs[at][self._start :], "utf-8")

    def __iter__(self) -> Iterator[str]:
        return iter(self[:])


def decode_values(
    numbers: NDArray[np.int64], blobs: Sequence[bytes | None], dimension: int, dtype: VectorType
) -> Values:
    """The values at item `numbers`; numbers without one (deleted meanwhile) are left out.

    Raises IntegrityError when a value is too short for its vector.
    """
    size = id_offset(dimension, dtype)
    present = [blob for blob in blobs if blob is not None]
    lengths = set(map(len, present))
    if lengths and min(lengths) < size:
        raise IntegrityError("a stored value is shorter than its vector", why=f"expected {size} bytes and an id")
    # values of one length, as ids often have, need not be cut one by one
    whole = len(lengths) == 1
    length = lengths.pop() if whole else size
    # joined by what makes them start at whole eights, numbers lie where they can be used without another copy
    gap = bytes(-length % 8)
    raw = gap.join(present if whole else [blob[:size] for blob in present])
    stride, count, kind = length + len(gap), len(present), np.dtype(_DTYPES[dtype])
    if len(present) < len(blobs):
        numbers = numbers[[blob is not None for blob in blobs]]
    if not count:
        return Values(numbers, np.empty(0, np.int64), np.empty((0, dimension), np.float32), [])
    sequences = np.ndarray(count, "<u8", raw, 0, stride)
    vectors = np.ndarray((count, dimension), kind, raw, 8, (stride, kind.itemsize))
    return Values(numbers, sequences.astype(np.int64), vectors.astype(np.float32, copy=False), StoredIds(present, size))


@dataclass(frozen=True)
class Record:
    """What a partition knows of an id beside its vector; `number` is None for an id without an item."""

    number: int | None
    sequence: int
    label: str
    label_sequence: int
    metadata: str


def decode_record(text: bytes) -> Record:
    """The record that write.lua wrote."""
    return _record(*json.loads(text.decode()))  # of bytes, json would guess the encoding


def decode_records(texts: Sequence[bytes]) -> list[Record]:
    """Several records, parsed in one go: half the time of one by one."""
    return [_record(*fields) for fields in json.loads(f"[{b','.join(texts).decode()}]")]


def _record(number: str, sequence: str, label: str, label_sequence: str, metadata: str) -> Record:
    return Record(int(number) if number else None, int(sequence), label, int(label_sequence), metadata)


def encode_model(arrays: Mapping[str, NDArray[Any]]) -> tuple[bytes, str]:
    """Arrays as npz bytes, and the SHA-256 of these. The same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(arrays[name], order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    raw = buffer.getvalue()
    return raw, hashlib.sha256(raw).hexdigest()


def decode_model(raw: bytes, sha256: str) -> dict[str, NDArray[Any]]:
    """The arrays that `encode_model` wrote. Raises IntegrityError unless `raw` has that checksum.

    Who may write a model may write its checksum, so that alone makes nothing safe to read: nothing is decompressed,
    and no array is larger than the bytes that are there.
    """
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise IntegrityError("a model's bytes have changed", why=f"SHA-256 {found}, not {sha256}")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise IntegrityError("a model is compressed", why="it is written as it is")
            if sum(member.file_size for member in members) > len(raw):
                raise IntegrityError("a model's arrays are larger than the model")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    # RuntimeError: encrypted, or of a version that zipfile does not know; EOFError, struct.error: cut within a member
    except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, struct.error) as error:
        raise IntegrityError("a model is damaged", why=str(error)) from error


def _array(member: bytes) -> NDArray[Any]:
    """The array of an npy file. Raises ValueError for one of objects, or whose bytes are not all there."""
    file = io.BytesIO(member)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("its arrays are not of npy's version 1.0")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"an array is of {dtype}")
    if math.prod(shape) * dtype.itemsize != len(member) - file.tell():
        raise ValueError(f"an array of shape {shape} has {len(member) - file.tell()} bytes")
    array = np.frombuffer(member, dtype, offset=file.tell()).reshape(shape, order="F" if by_columns else "C")
    return array.copy()
