"""Labels as an indicator matrix: which of the classes each item belongs to, if any is known.

Labels y of n items may be

- an array or list of n whole numbers or texts, one class an item; −1 or None: the class is not known;
- a list of n lists, the several labels of each item; an empty one: not known;
- a 0/1 matrix of shape (n, n_classes), dense or scipy.sparse; the classes are then 0 … n_classes − 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stream_hash.errors import UnlearnableError

UNLABELLED = -1


def read_labels(y: Any, count: int) -> tuple[NDArray[Any], sp.csr_array]:
    """The classes, sorted, and who belongs to which.

    Returns classes of shape (n_classes,), int64, float64 or text, and a 0/1 float64 matrix (count, n_classes).
    Raises UnlearnableError for labels of another length, of mixed kinds, or not finite.
    """
    matrix: Any = y if sp.issparse(y) else _as_matrix(y)
    if matrix is not None:
        member: Any = sp.csr_array(matrix).astype(np.float64)
        _check_length(member.shape[0], count)
        member.eliminate_zeros()
        member.data[:] = 1.0
        return np.arange(member.shape[1]), member
    sets = [_several(label) for label in _listed(y)]
    _check_length(len(sets), count)
    flat = np.array([label for several in sets for label in several])
    if flat.dtype.kind not in "biufU" or len({isinstance(one, str) for several in sets for one in several}) > 1:
        raise UnlearnableError(
            "labels mix texts and numbers or are of another kind",
            why="classes are told apart by sorting them",
            remedy="give all labels as text, or all as whole numbers",
        )
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        raise UnlearnableError("a label is NaN or infinity", remedy="mark unlabelled items with -1 or None")
    classes, columns = np.unique(flat, return_inverse=True)
    lengths = [len(several) for several in sets]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp)
    member = sp.csr_array((np.ones(len(flat)), columns.ravel(), starts), shape=(count, len(classes)))
    member.sum_duplicates()
    member.data[:] = 1.0
    return classes, member


def _listed(y: Any) -> list[Any]:
    return list(np.asarray(y).tolist() if hasattr(y, "__array__") else y)


def _as_matrix(y: Any) -> NDArray[Any] | None:
    if isinstance(y, np.ndarray) and y.ndim == 2 and y.dtype.kind in "biuf" and y.shape[1] > 1:
        return y
    return None


def _several(label: Any) -> list[Any]:
    if label is None:
        return []
    if isinstance(label, str):
        return [label]
    if isinstance(label, Iterable):
        return [one for part in label for one in _several(part)]
    return [] if label == UNLABELLED else [label]


def _check_length(found: int, count: int) -> None:
    if found != count:
        raise UnlearnableError(
            f"{found} labels for {count} items: inconsistent numbers of samples",
            remedy="give one label an item; -1 or None where it is not known",
        )
