"""All labelled items of a file at once, with what had to be left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from stream_hash import formats
from stream_hash.errors import UsageError
from stream_hash.formats import Rejected
from stream_hash.formats.opening import name_of
from stream_hash.numerics.protocol import Classes, unit
from stream_hash.numerics.validation import vector_faults
from stream_hash.settings import Label


@dataclass(frozen=True)
class Labelled:
    """What a file holds. vectors : (n, dimension) float32, of unit length, each with its classes.

    rejected : rows left out; first_rejection : why, of the first. unlabelled : items left out, having no label.
    """

    vectors: NDArray[np.float32]
    classes: Classes
    rejected: int
    unlabelled: int
    first_rejection: str


def read_labelled(source: Path | BinaryIO, format_: str, limit: int | None, show: Callable[[str], None]) -> Labelled:
    """The labelled items of a file. Raises UsageError when there is none."""
    vectors: list[NDArray[np.float32]] = []
    labels: list[Label] = []
    rejections: list[str] = []
    unlabelled = 0
    for part in formats.read(source, format=format_, limit=limit):
        if isinstance(part, Rejected):
            rejections.append(f"{part.where}: {part.reason}")
            continue
        faults = vector_faults(part.vectors, "cosine")
        rejections += [f"item {part.ids[row]!r}: {fault}" for row, fault in sorted(faults.items())]
        kept = {row: label for row, label in enumerate(part.labels) if row not in faults and label is not None}
        unlabelled += len(part.ids) - len(kept) - len(faults)
        vectors.append(unit(part.vectors[list(kept)]))
        labels += kept.values()
        show(f"{name_of(source)}: {len(labels)} items")
    if not labels:
        raise UsageError(
            f"{name_of(source)} holds no labelled item",
            why="an answer is right if it has the query's label",
            remedy="give a file with labels: y or labels in npz, X_class in mat, label in jsonl and csv",
        )
    return Labelled(
        np.concatenate(vectors), Classes.of(labels), len(rejections), unlabelled, rejections[0] if rejections else ""
    )
