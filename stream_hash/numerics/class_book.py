"""The classes met so far, and what stands for each: its code word, its place among the directions.

A class keeps its place, its word and its directions for ever; classes that come later are appended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.code_words import distinct_columns, extend_words
from stream_hash.numerics.directions import extend_directions, frame_directions
from stream_hash.numerics.learners import check_names


class ClassBook:
    """classes : (n_classes,), in order of arrival. counts : (n_classes,), items of each. words : int8 (n_classes,
    n_bits), ±1. directions : (n_bits, n_classes); the words' columns, or orthonormal frames.
    """

    def __init__(self, n_bits: int, seed: int, *, frames: bool) -> None:
        self.seed = seed
        self.frames = frames
        self.classes: NDArray[Any] = np.zeros(0, dtype=np.int64)
        self.counts = np.zeros(0)
        self.words = np.zeros((0, n_bits), dtype=np.int8)
        self.directions = np.zeros((n_bits, 0))

    def meet(self, found: NDArray[Any], member: sp.csr_array) -> tuple[sp.csr_array, int]:
        """Enter what `read_labels` returned. Returns member with a column for each of `classes`, and how many are new.

        Raises UnlearnableError when texts meet numbers, or when there are not so many words.
        """
        known = set(self.classes.tolist())
        fresh = np.array([label for label in found.tolist() if label not in known], dtype=found.dtype)
        if len(fresh) and known and (fresh.dtype.kind == "U") != (self.classes.dtype.kind == "U"):
            raise UnlearnableError(
                f"label {fresh.tolist()[0]!r} is of another kind than {self.classes.tolist()[0]!r}",
                remedy="give all labels as text, or all as whole numbers",
            )
        if len(fresh):
            self._append(fresh, bool(known))
        position = {label: i for i, label in enumerate(self.classes.tolist())}
        columns = np.array([position[label] for label in found.tolist()], dtype=np.intp)
        self.counts[columns] += np.asarray(member.sum(axis=0)).ravel()
        entries = member.tocoo()
        shape = (member.shape[0], len(self.classes))
        return sp.csr_array((entries.data, (entries.row, columns[entries.col])), shape=shape), len(fresh)

    def targets(self, member: sp.csr_array) -> NDArray[np.float64]:
        """The codes items should have: their class's word; of several classes the majority, of a tie the first.

        member : (n, n_classes), no row empty. Returns ±1 of shape (n, n_bits).
        """
        words = self.words.astype(np.float64)
        votes = np.asarray(member @ words)
        return np.where(votes == 0, words[member.indices[member.indptr[:-1]]], np.sign(votes))

    def active_bits(self) -> NDArray[np.bool_]:
        """Which bits tell classes apart that have items: (n_bits,)."""
        seen = self.words[self.counts > 0]
        return distinct_columns(seen) if len(seen) else np.zeros(self.words.shape[1], dtype=np.bool_)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ClassBook:
        """Raises IntegrityError when the arrays are not those of a book."""
        book = cls(1, 0, frames=False)
        check_names(arrays, vars(book))
        for name, value in arrays.items():
            setattr(book, name, value.copy() if value.ndim else value.item())
        return book

    def _append(self, fresh: NDArray[Any], old: bool) -> None:
        count, taken = len(fresh), len(self.classes)
        if self.frames and not old and count > 1:
            self.directions = frame_directions(np.random.default_rng(self.seed), self.words.shape[1], count)
            self.words = np.where(self.directions.T >= 0, 1, -1).astype(np.int8)
        elif self.frames and taken + count > 2 ** self.words.shape[1]:
            # no words are left that are all different; posteriors of classes that share one still differ in size
            draw = np.random.default_rng([self.seed, taken]).integers(2, size=(count, self.words.shape[1]))
            self.words = np.vstack([self.words, (2 * draw - 1).astype(np.int8)])
        else:
            self.words = extend_words(self.words, count, self.seed)
        if len(self.words) > self.directions.shape[1]:
            self.directions = (
                extend_directions(self.directions, self.words[taken:])
                if self.frames and old
                else self.words.T.astype(np.float64)
            )
        self.classes = np.concatenate([self.classes, fresh]) if old else fresh
        self.counts = np.concatenate([self.counts, np.zeros(count)])
