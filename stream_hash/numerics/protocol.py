"""The tutorial's protocol: which items are queries, which are learned from, and which are searched.

As on learning2hash.github.io: vectors are brought to unit length; 0.2 % of the items become queries, then 2 % of the
others training items, both by `train_test_split` with seed 42; the rest is the database. Of CIFAR-10's
60,000 that is 120, 1,198 and 58,682. Exact search ranks by the cosine about the mean.

Departure: that mean is the database's, so that nothing of the queries is used. Hashers centre by themselves, on
their training items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stream_hash.errors import UsageError
from stream_hash.settings import Label

SEED: Final = 42
QUERY_SHARE: Final = 0.002
TRAINING_SHARE: Final = 0.02


@dataclass(frozen=True)
class Classes:
    """The labels of items as numbers.

    names : of the classes, as text in JSON's order. of_item : (n,) int64, the class of each item, or None where an
    item has several. membership : (n, n_classes) float32 CSR, 1 where the item is of the class.
    """

    names: list[str]
    of_item: NDArray[np.int64] | None
    membership: sparse.csr_array

    @classmethod
    def of(cls, labels: Sequence[Label]) -> Classes:
        """Number the labels in order, whole numbers before text; 3 and "3" are two classes."""
        several = [label if isinstance(label, list) else [label] for label in labels]
        known = {one for many in several for one in many}
        numbers = {name: at for at, name in enumerate(sorted(known, key=lambda one: (isinstance(one, str), one)))}
        columns = np.array([numbers[one] for many in several for one in dict.fromkeys(many)])
        rows = np.repeat(np.arange(len(several)), [len(set(many)) for many in several])
        membership = sparse.csr_array(
            (np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(several), len(numbers))
        )
        return cls([str(name) for name in numbers], columns if len(rows) == len(several) else None, membership)

    def relevant(self, queries: NDArray[np.intp], items: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether an item shares a class with a query. Returns (len(queries), len(items))."""
        if self.of_item is not None:
            return np.asarray(self.of_item[queries][:, None] == self.of_item[items])
        shared = self.membership[queries] @ self.membership[items].T
        return np.asarray(shared.toarray() > 0)


@dataclass(frozen=True)
class Split:
    """Positions of the queries, the training items and the database: three integer arrays without overlap."""

    queries: NDArray[np.intp]
    training: NDArray[np.intp]
    database: NDArray[np.intp]


def split(count: int, seed: int = SEED, *, queries: int | None = None, training: int | None = None) -> Split:
    """Split `count` items as the tutorial does.

    queries, training : how many, instead of the tutorial's shares. Raises UsageError when nothing would be left to
    search. Imports scikit-learn, which takes a second.
    """
    wanted = (queries or 1) + (training or 1) + 1
    if count < wanted:
        raise UsageError(
            f"there are {count} labelled items",
            why=f"{queries or 1} queries, {training or 1} training items and at least one to find are wanted",
            remedy="give a larger file, or lower --queries and --train",
        )
    from sklearn.model_selection import train_test_split

    rest, asked = train_test_split(np.arange(count), test_size=queries or QUERY_SHARE, random_state=seed)
    database, learned = train_test_split(rest, test_size=training or TRAINING_SHARE, random_state=seed)
    return Split(asked, learned, database)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors at unit length; one of zero length stays. vectors : (n, dimension), finite."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return (vectors / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32)
