"""Reading an exported index back, part after part (archive_parts.py). The file is not trusted.

Here types and counts are compared with each other, and with what came before; whether an item may be stored, and a
model used, is asked where they are (service/restore.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import StreamHashError
from stream_hash.formats.archive import ArchiveReader, Block, damaged
from stream_hash.formats.archive_parts import (
    ARRAY,
    BOUNDS,
    HEAD,
    ITEMS,
    ITEMS_A_BLOCK,
    LAST_SEQUENCE,
    MAX_MODELS,
    MAX_RUNS,
    MODEL,
    RUNS,
    VECTORS,
    End,
    Header,
    ItemsPart,
    ModelPart,
    Part,
    RunsPart,
)
from stream_hash.formats.opening import Readable
from stream_hash.settings import NUMBER_BITS, IndexSettings

_NAME: Final = re.compile(r"[a-z0-9_.]{1,64}")
_HEX: Final = re.compile(r"[0-9a-f]{32}")
_NONCE: Final = re.compile(r"[0-9a-f]{0,64}")
_TEXT: Final = re.compile(r"[\w.+ -]{1,64}")
_LATEST: Final = 2.0**33
"""Unix seconds, in the year 2242."""


def read_parts(file: Readable, name: str) -> Iterator[Part]:
    """The parts of an archive, in their order. Raises FormatError, naming the block that is not as it should be."""
    return parts_of(ArchiveReader(file, name, BOUNDS), name)


def parts_of(reader: ArchiveReader, name: str) -> Iterator[Part]:
    """The same, of a reader whose place is wanted."""
    return _Parts(name).parts(reader.blocks())


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
            nonce="" if text.get("nonce") is None else self._matching(text, "nonce", _NONCE),
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
            if not isinstance(dtype, str) or not ARRAY.fullmatch(dtype):
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
        width = np.dtype(VECTORS[settings.dtype]).itemsize * settings.dimension
        if len(counts) > 1 or not 1 <= len(ids) <= ITEMS_A_BLOCK or len(block.data) != len(ids) * width:
            self._wrong(
                f"it has {len(ids)} ids, {len(labels)} labels, {len(metadata)} metadata, {len(sequences)} and "
                f"{len(label_sequences)} sequence numbers, and {len(block.data)} bytes of vectors, {width} each"
            )
        if (label_sequences < sequences).any():
            self._wrong("a label is older than its item")
        self._items += len(ids)
        vectors = np.frombuffer(block.data, dtype=VECTORS[settings.dtype]).reshape(len(ids), settings.dimension)
        with np.errstate(invalid="ignore"):  # a signalling NaN; it is refused as any other
            rows = vectors.astype(np.float32)
        after = self._after(text, settings.partitions)
        return ItemsPart(block.number, ids, sequences, labels, label_sequences, metadata, rows, after)

    def _after(self, text: Mapping[str, Any], partitions: int) -> tuple[int, int] | None:
        if text.get("after") is None:
            return None
        after = self._list(text, "after")
        if list(map(type, after)) != [int, int] or not (
            0 <= after[0] < partitions and 0 < after[1] <= 1 << NUMBER_BITS
        ):
            self._wrong(f"it ends after {after!r:.80}")
        return after[0], after[1]

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
