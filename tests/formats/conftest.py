"""What the tests of all formats share: writing a file of each, reading one whole, and a stream like stdin."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from stream_hash import formats


@dataclass
class Whole:
    """All that `read` gave, put together."""

    ids: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    metadata: list[Any] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)

    @property
    def vectors(self) -> np.ndarray:
        return np.concatenate(self.blocks)


class Pipe(io.RawIOBase):
    """A stream that cannot seek and hands out a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, at_most: int) -> None:
        super().__init__()
        self._data = memoryview(data)
        self._at_most = at_most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._at_most, len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


def read_whole(source: Any, **options: Any) -> Whole:
    whole = Whole()
    for part in formats.read(source, **options):
        if isinstance(part, formats.Rejected):
            assert part.where not in whole.rejected
            whole.rejected[part.where] = part.reason
            continue
        assert part.vectors.dtype == np.float32
        assert part.vectors.flags.c_contiguous
        assert part.vectors.dtype.isnative
        assert np.isfinite(part.vectors).all()
        assert len(part.ids) == len(part.vectors) == len(part.labels) == len(part.metadata) > 0
        whole.ids += part.ids
        whole.labels += part.labels
        whole.metadata += part.metadata
        whole.sizes.append(len(part.ids))
        whole.blocks.append(part.vectors)
    return whole


@pytest.fixture
def whole() -> Callable[..., Whole]:
    return read_whole


@pytest.fixture
def pipe() -> Callable[..., io.BufferedReader]:
    def make(data: bytes, at_most: int = 1_000) -> io.BufferedReader:
        return io.BufferedReader(Pipe(data, at_most))

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes vectors, with ids and labels where the format has them, and returns the path."""

    def make(kind: str, X: np.ndarray, ids: Any = None, labels: Any = None) -> Path:
        path = tmp_path / f"items.{kind}"
        if kind == "npy":
            np.save(path, X)
        elif kind == "npz":
            beside = {"ids": ids, "y": labels}
            np.savez_compressed(path, X=X, **{k: np.asarray(v) for k, v in beside.items() if v is not None})
        elif kind == "mat":
            beside = {"X": X, "ids": ids, "X_class": labels}
            variables = {k: np.asarray(v) for k, v in beside.items() if v is not None}
            scipy.io.savemat(path, variables, do_compression=True)
        elif kind == "fvecs":
            with path.open("wb") as file:
                for row in X:
                    file.write(np.array([len(row)], "<i4").tobytes() + row.astype("<f4").tobytes())
        elif kind == "jsonl":
            with path.open("w") as file:
                for at, row in enumerate(X.tolist()):
                    item = {"vector": row}
                    if ids is not None:
                        item["id"] = ids[at]
                    if labels is not None:
                        item["label"] = labels[at]
                    file.write(json.dumps(item) + "\n")
        else:
            with path.open("w", newline="") as file:
                head = [name for name, v in (("id", ids), ("label", labels)) if v is not None]
                rows = csv.writer(file)
                rows.writerow(head + [f"v{at}" for at in range(X.shape[1])])
                for at, row in enumerate(X.tolist()):
                    rows.writerow([v[at] for v in (ids, labels) if v is not None] + row)
        return path

    return make
