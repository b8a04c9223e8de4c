"""What the blocks of an exported index hold, in their order:

| kind | how many | text                                                           | data                              |
|------|----------|----------------------------------------------------------------|-----------------------------------|
| HEAD | 1        | settings, the live generation, the target, the saved plan …    | –                                 |
| MODL | any      | a generation's number and record; name, dtype, shape of arrays | these arrays, one after the other |
| RUNS | 1        | the records of the last runs of training, newest first         | –                                 |
| ITEM | any      | ids, sequence numbers, labels and theirs, metadata: lists      | vectors as stored, row after row  |
| DONE | 1        | how many items, the last sequence number, SHA-256              | –                                 |

Arrays are little-endian and of few dtypes; vectors are float32 or float16, as the settings say. Labels and metadata
are JSON text, empty for none, as in the index. Two things are there for an export that goes on, and an import does
not look at them: the nonce of the index, and after which item number of which partition a block of items ends. Here is
how it is written; how it is read, archive_reading.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_hash.formats.archive import DONE, ArchiveWriter, Bound
from stream_hash.settings import IndexSettings, VectorType

HEAD: Final = b"HEAD"
MODEL: Final = b"MODL"
RUNS: Final = b"RUNS"
ITEMS: Final = b"ITEM"

ITEMS_A_BLOCK: Final = 1_024
VECTOR_BYTES: Final = 2**20
TEXT_BYTES: Final = 2**20
"""A block of items ends before it has more of any; with one item it may, by less than 64 KiB."""

MAX_MODELS: Final = 64
"""An index keeps ten, and those that are in use."""

MAX_RUNS: Final = 1_000

LAST_SEQUENCE: Final = 2**52
"""Sequence numbers up to here are whole numbers in the scripts as well, with as many to follow."""

BOUNDS: Final = {
    HEAD: Bound(2**16, 0),
    MODEL: Bound(2**18, 2**29),  # what a server takes as one string
    RUNS: Bound(2**22, 0),
    ITEMS: Bound(TEXT_BYTES + 2**16, VECTOR_BYTES),
    DONE: Bound(2**12, 0),
}

VECTORS: Final[Mapping[VectorType, str]] = {"float32": "<f4", "float16": "<f2"}
ARRAY: Final = re.compile(r"<f[48]|<i8|\|b1|<U[1-9][0-9]?")
"""The dtypes that a model's arrays may have."""


@dataclass(frozen=True)
class Header:
    """archive : drawn for this export. created : Unix seconds. writer : the version that wrote it. live : a
    generation, 0 when the index has none; target : what a trainer wants live, None when none has published yet. items,
    sequence : of the index when the export began. plan : the saved plan, JSON values. nonce : of the index, empty in
    files of before there was one. digest : of the block, in what was read.
    """

    archive: str
    created: float
    writer: str
    index: str
    settings: IndexSettings
    live: int
    target: int | None
    items: int
    sequence: int
    plan: dict[str, Any] | None
    nonce: str = ""
    digest: str = ""


@dataclass(frozen=True)
class ModelPart:
    """The model of a generation, and its record but for the checksum, which is that of the server's bytes."""

    generation: int
    kind: str
    created: float
    parent: int | None
    origin: int | None
    figures: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunsPart:
    """Records of runs of training, newest first, JSON values."""

    runs: list[dict[str, Any]]


@dataclass(frozen=True)
class ItemsPart:
    """Items. number : of the block. sequences, label_sequences : (n,) int64. vectors : (n, dimension) float32. labels,
    metadata : JSON text, empty for none. after : the partition and the item number before which everything has been
    written with this block; None when that is not said.
    """

    number: int
    ids: list[str]
    sequences: NDArray[np.int64]
    labels: list[str]
    label_sequences: NDArray[np.int64]
    metadata: list[str]
    vectors: NDArray[np.float32]
    after: tuple[int, int] | None = None


@dataclass(frozen=True)
class End:
    """items : rows of all blocks. sequence : the last given out when the export ended. sha256 : of all before."""

    items: int
    sequence: int
    sha256: str


Part: TypeAlias = Header | ModelPart | RunsPart | ItemsPart | End


def write_header(archive: ArchiveWriter, header: Header) -> None:
    text = {**asdict(header), "settings": asdict(header.settings)}
    del text["digest"]
    archive.write(HEAD, text)


def write_model(archive: ArchiveWriter, model: ModelPart) -> None:
    """Raises ValueError for an array of a dtype that no model has."""
    arrays = {name: np.ascontiguousarray(value) for name, value in sorted(model.arrays.items())}
    for name, value in arrays.items():
        if not ARRAY.fullmatch(value.dtype.str):
            raise ValueError(f"the model's {name!r} is {value.dtype.str}")
    text = {name: getattr(model, name) for name in ("generation", "kind", "created", "parent", "origin", "figures")}
    shapes = [[name, value.dtype.str, model.arrays[name].shape] for name, value in arrays.items()]
    archive.write(MODEL, {**text, "arrays": shapes}, [value.tobytes() for value in arrays.values()])


def write_runs(archive: ArchiveWriter, runs: Sequence[Mapping[str, Any]]) -> None:
    archive.write(RUNS, {"runs": list(runs)})


def write_items(archive: ArchiveWriter, items: ItemsPart, dtype: VectorType) -> None:
    """One block or several, each within its bound. The number that `items` has is not looked at."""
    sizes = [len(one.encode()) + len(other.encode()) for one, other in zip(items.labels, items.metadata, strict=True)]
    width = np.dtype(VECTORS[dtype]).itemsize * items.vectors.shape[1]
    start = 0
    while start < len(items.ids):
        stop, text = start, 0
        while stop < len(items.ids) and stop - start < ITEMS_A_BLOCK:
            # of JSON within JSON what is escaped doubles; an id may be of characters that take six bytes each
            text += 2 * sizes[stop] + 6 * len(items.ids[stop].encode()) + 128
            if stop > start and (text > TEXT_BYTES or (stop + 1 - start) * width > VECTOR_BYTES):
                break
            stop += 1
        part = slice(start, stop)
        texts = {
            "ids": items.ids[part],
            "sequences": items.sequences[part].tolist(),
            "labels": items.labels[part],
            "label_sequences": items.label_sequences[part].tolist(),
            "metadata": items.metadata[part],
        }
        where = {"after": items.after} if items.after is not None and stop == len(items.ids) else {}
        archive.write(ITEMS, texts | where, [items.vectors[part].astype(VECTORS[dtype]).tobytes()])
        start = stop


def write_end(archive: ArchiveWriter, items: int, sequence: int) -> End:
    return End(items, sequence, archive.finish({"items": items, "sequence": sequence}))
