"""Graphs of what belongs together, as operators that smooth codes: L ↦ S·D⁻¹·L.

Source: S. Moran & V. Lavrenko, "Graph Regularised Hashing", ECIR 2015, equation 2. S is the affinity of the
items, D the diagonal matrix of its degrees, L the codes as ±1. No operator holds an N×N matrix:

class labels        S = Z·Zᵀ with Z the 0/1 matrix of memberships, never multiplied out: O(N·C·K). With one
                    label an item S·D⁻¹·L is the mean code of the item's class; with several, two items are
                    joined as strongly as they share labels.
a given affinity    sparse, non-negative.
nearest neighbours  1 where either of two items is among the k nearest of the other, for items without labels.
a mixture           a label graph and a neighbour graph: an item without labels has only its neighbours.

An item without any edge has a row of zeros: the blend α·S·D⁻¹·L + (1 − α)·L₀ then leaves it its own L₀.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stream_hash.errors import UnlearnableError


class Graph(Protocol):
    """What smooths codes."""

    def smooth(self, codes: NDArray[np.float64]) -> NDArray[np.float64]:
        """S·D⁻¹·L. codes : float64 of shape (n, n_bits), ±1. Returns that shape."""
        ...


class LabelGraph:
    """Items joined by the classes they share."""

    def __init__(self, member: sp.csr_array) -> None:
        """member : 0/1 of shape (n, n_classes), as `read_labels` returns it."""
        self._member = member
        self._inverse_degrees = _inverse(np.asarray(member @ (member.T @ np.ones(member.shape[0]))))

    def smooth(self, codes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self._member @ (self._member.T @ (self._inverse_degrees[:, None] * codes)))

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which items have a label: (n,) bool."""
        return np.asarray(np.diff(self._member.indptr) > 0)


class AffinityGraph:
    """Items joined by a sparse affinity."""

    def __init__(self, affinity: Any) -> None:
        """affinity : scipy.sparse or dense, (n, n), finite and non-negative. Raises UnlearnableError otherwise."""
        self._affinity = sp.csr_array(affinity, dtype=np.float64)
        rows, columns = self._affinity.shape
        if rows != columns:
            raise UnlearnableError(
                f"the affinity has shape {(rows, columns)}", remedy="give one row and column an item"
            )
        if len(self._affinity.data) and not (np.isfinite(self._affinity.data) & (self._affinity.data >= 0)).all():
            raise UnlearnableError("the affinity has a negative or infinite entry", remedy="give weights from 0 up")
        self._inverse_degrees = _inverse(np.asarray(self._affinity.sum(axis=1)).ravel())

    @property
    def size(self) -> int:
        return int(self._affinity.shape[0])

    def smooth(self, codes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self._affinity @ (self._inverse_degrees[:, None] * codes))


def neighbour_graph(x: NDArray[np.floating[Any]], n_neighbors: int) -> AffinityGraph:
    """Each item joined with its nearest, and with those it is nearest to; never with itself.

    x : (n, dimension), Euclidean distances. Fewer items than n_neighbors + 1: all are joined.
    """
    from sklearn.neighbors import kneighbors_graph

    one_way = kneighbors_graph(x, n_neighbors=min(n_neighbors, len(x) - 1), mode="connectivity", include_self=False)
    return AffinityGraph(one_way.maximum(one_way.T))


@dataclass(frozen=True)
class MixedGraph:
    """(1 − weight)·labels + weight·neighbours where an item has labels; its neighbours alone where it has none."""

    labels: LabelGraph
    neighbours: AffinityGraph
    weight: float

    def smooth(self, codes: NDArray[np.float64]) -> NDArray[np.float64]:
        share = np.where(self.labels.labelled, self.weight, 1.0)[:, None]
        return np.asarray((1.0 - share) * self.labels.smooth(codes) + share * self.neighbours.smooth(codes))


def _inverse(degrees: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.divide(1.0, degrees, out=np.zeros(degrees.shape), where=degrees > 0))
