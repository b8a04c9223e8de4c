"""What the blocks of an exported index hold, in their order:

| kind | how many | text                                                           | data                              |
|------|----------|----------------------------------------------------------------|-----------------------------------|
| HEAD | 1        | settings, the live generation, the target, the saved plan …    | –                                 |
| MODL | any      | a generation's number and record; name, dtype, shape of arrays | these arrays, one after the other |
| RUNS | 1        | the records of the last runs of training, newest first         | –                                 |
| ITEM | any      | ids, sequence numbers, labels and theirs, metadata: lists      | vectors as stored, row after row  |
| DONE | 1        | how many items, the last sequence number, SHA-256              | –                                 |

Arrays are little-endian and of few dtypes; vectors are float32 or float16, as the settings say. Labels and metadata
are JSON text, empty for none, as in the index. Here types and counts are compared with each other; whether an item may
be stored, and a model used, is asked where they are (service/restore.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import StreamHashError
from stream_hash.formats.archive import DONE, ArchiveWriter, Block, Bound, damaged, read_blocks
from stream_hash.formats.opening import Readable
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

_VECTORS: Final[Mapping[VectorType, str]] = {"float32": "<f4", "float16": "<f2"}
_DTYPE: Final = re.compile(r"<f[48]|<i8|\|b1|<U[1-9][0-9]?")
_NAME: Final = re.compile(r"[a-z0-9_.]{1,64}")
_HEX: Final = re.compile(r"[0-9a-f]{32}")
_TEXT: Final = re.compile(r"[\w.+ -]{1,64}")
_LATEST: Final = 2.0**33
"""Unix seconds, in the year 2242."""


@dataclass(frozen=True)
class Header:
    """archive : drawn for this export. created : Unix seconds. writer : the version that wrote it. live : a
    generation, 0 when the index has none; target : what a trainer wants live, None when none has published yet. items,
    sequence : of the index when the export began. plan : the saved plan, JSON values. digest : of the block, in what
    was read.
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
    metadata : JSON text, empty for none.
    """

    number: int
    ids: list[str]
    sequences: NDArray[np.int64]
    labels: list[str]
    label_sequences: NDArray[np.int64]
    metadata: list[str]
    vectors: NDArray[np.float32]


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
        if not _DTYPE.fullmatch(value.dtype.str):
            raise ValueError(f"the model's {name!r} is {value.dtype.str}")
    text = {name: getattr(model, name) for name in ("generation", "kind", "created", "parent", "origin", "figures")}
    shapes = [[name, value.dtype.str, model.arrays[name].shape] for name, value in arrays.items()]
    archive.write(MODEL, {**text, "arrays": shapes}, [value.tobytes() for value in arrays.values()])


def write_runs(archive: ArchiveWriter, runs: Sequence[Mapping[str, Any]]) -> None:
    archive.write(RUNS, {"runs": list(runs)})


def write_items(archive: ArchiveWriter, items: ItemsPart, dtype: VectorType) -> None:
    """One block or several, each within its bound. The number that `items` has is not looked at."""
    sizes = [len(one.encode()) + len(other.encode()) for one, other in zip(items.labels, items.metadata, strict=True)]
    width = np.dtype(_VECTORS[dtype]).itemsize * items.vectors.shape[1]
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
        archive.write(
            ITEMS,
            {
                "ids": items.ids[part],
                "sequences": items.sequences[part].tolist(),
                "labels": items.labels[part],
                "label_sequences": items.label_sequences[part].tolist(),
                "metadata": items.metadata[part],
            },
            [items.vectors[part].astype(_VECTORS[dtype]).tobytes()],
        )
        start = stop


def write_end(archive: ArchiveWriter, items: int, sequence: int) -> End:
    return End(items, sequence, archive.finish({"items": items, "sequence": sequence}))


def read_parts(file: Readable, name: str) -> Iterator[Part]:
    """The parts of an archive, in the order above. Raises FormatError, naming the block that is not as it should be."""
    return _Parts(name).parts(read_blocks(file, name, BOUNDS))


class _Parts:
    """Reads the blocks of one archive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._generations: list[int] = []
        self._header: Header | None = None
        self._items = 0
        self._runs = False

    def parts(self, blocks: Iterator[Block]) -> Iterator[Part]:
        for block in blocks:
            self._number = block.number
            yield self._part(block)

    def _part(self, block: Block) -> Part:
        """Kinds follow each other as in the table above."""
        if (block.kind == HEAD) != (block.number == 0):
            self._wrong("its header is the first block")
        if block.kind == HEAD:
            self._header = self._head(block)
            return self._header
        if (block.kind in (MODEL, RUNS)) == self._runs:
            self._wrong("its models come first, then runs, then items")
        if block.kind == MODEL:
            return self._model(block)
        if block.kind == RUNS:
            return self._runs_of(block)
        return self._items_of(block) if block.kind == ITEMS else self._end(block)

    def _head(self, block: Block) -> Header:
        text = block.text
        try:
            settings = IndexSettings(**self._dict(text, "settings"))
        except (StreamHashError, TypeError) as error:
            self._wrong(f"its settings: {error!s:.200}")
        return Header(
            archive=self._matching(text, "archive", _HEX),
            created=self._moment(text, "created"),
            writer=self._matching(text, "writer", _TEXT),
            index=self._matching(text, "index", _TEXT),
            settings=settings,
            live=self._whole(text, "live", 0),
            target=self._whole_or_none(text, "target"),
            items=self._whole(text, "items", 0),
            sequence=self._whole(text, "sequence", 0),
            plan=None if text.get("plan") is None else self._dict(text, "plan"),
            digest=hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest(),
        )

    def _model(self, block: Block) -> ModelPart:
        text = block.text
        generation = self._whole(text, "generation", 1)
        if self._generations and generation <= self._generations[-1]:
            self._wrong(f"generation {generation} follows {self._generations[-1]}")
        self._generations.append(generation)
        if len(self._generations) > MAX_MODELS:
            self._wrong(f"it has more than {MAX_MODELS} models")
        return ModelPart(
            generation=generation,
            kind=self._matching(text, "kind", _TEXT),
            created=self._moment(text, "created"),
            parent=self._whole_or_none(text, "parent"),
            origin=self._whole_or_none(text, "origin"),
            figures=self._figures(text),
            arrays=self._arrays(self._list(text, "arrays"), block.data),
        )

    def _figures(self, text: Mapping[str, Any]) -> dict[str, Any]:
        figures = self._dict(text, "figures")
        if not all(value is None or isinstance(value, (str, int, float)) for value in figures.values()):
            self._wrong("its figures are not plain values")
        return figures

    def _arrays(self, shapes: list[Any], data: bytes | bytearray) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        offset = 0
        for entry in shapes:
            if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[2], list):
                self._wrong("an array has a name, a dtype and a shape")
            name, dtype, shape = entry
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name in arrays:
                self._wrong(f"an array is named {name!r:.80}")
            if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
                self._wrong(f"array {name!r} has dtype {dtype!r:.80}")
            if len(shape) > 2 or not all(type(axis) is int and 0 <= axis <= 2**31 for axis in shape):
                self._wrong(f"array {name!r} has shape {shape!r:.80}")
            count = math.prod(shape)
            size = count * np.dtype(dtype).itemsize
            if size > len(data) - offset:
                self._wrong(f"array {name!r} is longer than the block")
            arrays[name] = np.frombuffer(data[offset : offset + size], dtype=dtype).reshape(shape)
            offset += size
        if offset != len(data):
            self._wrong("its arrays are shorter than the block")
        return arrays

    def _runs_of(self, block: Block) -> RunsPart:
        runs = self._list(block.text, "runs")
        if len(runs) > MAX_RUNS or not all(isinstance(run, dict) for run in runs):
            self._wrong(f"its runs are up to {MAX_RUNS} JSON objects")
        assert self._header is not None  # noqa: S101 - it is the first block
        for role, wanted in (("live", self._header.live), ("wanted", self._header.target)):
            if wanted and wanted not in self._generations:
                self._wrong(f"generation {wanted} is {role}, and its model is not there")
        self._runs = True
        return RunsPart(runs)

    def _items_of(self, block: Block) -> ItemsPart:
        text = block.text
        assert self._header is not None  # noqa: S101 - it is the first block
        settings = self._header.settings
        if not self._header.live:
            self._wrong("there are items, and no generation is live")
        ids, labels, metadata = (self._texts(text, name) for name in ("ids", "labels", "metadata"))
        sequences, label_sequences = (self._numbers(text, name) for name in ("sequences", "label_sequences"))
        counts = {len(ids), len(labels), len(metadata), len(sequences), len(label_sequences)}
        width = np.dtype(_VECTORS[settings.dtype]).itemsize * settings.dimension
        if len(counts) > 1 or not 1 <= len(ids) <= ITEMS_A_BLOCK or len(block.data) != len(ids) * width:
            self._wrong(
                f"it has {len(ids)} ids, {len(labels)} labels, {len(metadata)} metadata, {len(sequences)} and "
                f"{len(label_sequences)} sequence numbers, and {len(block.data)} bytes of vectors, {width} each"
            )
        if (label_sequences < sequences).any():
            self._wrong("a label is older than its item")
        self._items += len(ids)
        vectors = np.frombuffer(block.data, dtype=_VECTORS[settings.dtype]).reshape(len(ids), settings.dimension)
        with np.errstate(invalid="ignore"):  # a signalling NaN; it is refused as any other
            return ItemsPart(
                block.number, ids, sequences, labels, label_sequences, metadata, vectors.astype(np.float32)
            )

    def _end(self, block: Block) -> End:
        items, sequence = self._whole(block.text, "items", 0), self._whole(block.text, "sequence", 0)
        if items != self._items:
            self._wrong(f"it speaks of {items} items, and there are {self._items}")
        return End(items, sequence, str(block.text["sha256"]))

    def _whole(self, text: Mapping[str, Any], name: str, least: int) -> int:
        value = text.get(name)
        if type(value) is not int or not least <= value <= LAST_SEQUENCE:
            self._wrong(f"its {name} is {value!r:.80}")
        return value

    def _whole_or_none(self, text: Mapping[str, Any], name: str) -> int | None:
        return None if text.get(name) is None else self._whole(text, name, 0)

    def _moment(self, text: Mapping[str, Any], name: str) -> float:
        value: Any = text.get(name)
        if type(value) not in (int, float) or not 0 <= value <= _LATEST:
            self._wrong(f"its {name} is {value!r:.80}")
        return float(value)

    def _matching(self, text: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
        value = text.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._wrong(f"its {name} is {value!r:.80}")
        return value

    def _dict(self, text: Mapping[str, Any], name: str) -> dict[str, Any]:
        value = text.get(name)
        if not isinstance(value, dict):
            self._wrong(f"its {name} is {value!r:.80}")
        return value

    def _list(self, text: Mapping[str, Any], name: str) -> list[Any]:
        value = text.get(name)
        if not isinstance(value, list):
            self._wrong(f"its {name} is {value!r:.80}")
        return value

    def _texts(self, text: Mapping[str, Any], name: str) -> list[str]:
        values = self._list(text, name)
        if not set(map(type, values)) <= {str}:
            self._wrong(f"of its {name} some are no text")
        return values

    def _numbers(self, text: Mapping[str, Any], name: str) -> NDArray[np.int64]:
        values = self._list(text, name)
        if not set(map(type, values)) <= {int} or not all(1 <= value <= LAST_SEQUENCE for value in values):
            self._wrong(f"of its {name} some are no sequence numbers")
        return np.array(values, dtype=np.int64)

    def _wrong(self, why: str) -> NoReturn:
        raise damaged(self._name, f"block {self._number} is not as it should be", why)
