"""Whether the bits of a hasher are worth their room, and how much a new model changes them.

A bit is worth most when it is 1 for half of the items, differs from every other bit, and tells classes apart.
Y. Weiss, A. Torralba & R. Fergus, "Spectral hashing", NIPS 2008, section 2, asks for the first two of codes; the third
is mutual information, as in T. Cover & J. Thomas, "Elements of information theory", equation 2.28.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import UsageError
from stream_hash.numerics.labels import read_labels


@dataclass(frozen=True)
class BitHealth:
    """The bits of one hasher on a sample.

    items : how many. balance : float64 (n_bits,), the share of ones. correlation : float64 (n_bits, n_bits), Pearson's;
    0 for a constant bit with any other. information : float64 (n_bits,), mutual information of bit and class over the
    labelled items, in bits, 0 to 1, biased upward by about (n_classes − 1)/(1.4 · labelled items); None without labels.
    constant : int64 (m,), positions of bits that are the same for all items. duplicates : int64 (m, 2), pairs of
    positions of bits that split the items alike, the second being the first or its opposite; constant bits apart.
    """

    items: int
    balance: NDArray[np.float64]
    correlation: NDArray[np.float64]
    information: NDArray[np.float64] | None
    constant: NDArray[np.int64]
    duplicates: NDArray[np.int64]

    @property
    def mean_correlation(self) -> float:
        """The mean size of the correlation of two different bits; 0 for a single bit."""
        count = len(self.balance)
        sizes = np.abs(self.correlation)
        return float((sizes.sum() - np.trace(sizes)) / max(1, count * (count - 1)))


@dataclass(frozen=True)
class Churn:
    """What changes between two models. bits : share of all bits. codes : share of items with any bit changed.

    by_bit : float64 (n_bits,), share of items whose bit changed.
    """

    bits: float
    codes: float
    by_bit: NDArray[np.float64]


def bit_health(bits: NDArray[Any], labels: Any = None) -> BitHealth:
    """bits : bool, or integers of 0 and 1, of shape (n, n_bits), n ≥ 1. labels : as in labels.py, or None.

    An item of several classes counts once for each, with its weight divided among them. Raises UsageError for arrays
    of another kind, and UnlearnableError, which is one, for labels of another length.
    """
    on = _as_bits(bits)
    ones = on.sum(axis=0)
    constant = (ones == 0) | (ones == len(on))
    centred = on - on.mean(axis=0)
    lengths = np.where(constant, 1.0, np.linalg.norm(centred, axis=0))
    correlation = (centred / lengths).T @ (centred / lengths)
    correlation[constant] = correlation[:, constant] = 0.0
    np.fill_diagonal(correlation, 1.0)
    # counts are whole numbers, exact in float64: agreement is all or nothing
    agreeing = on.T @ on + (1.0 - on).T @ (1.0 - on)
    alike = (agreeing == len(on)) | (agreeing == 0)
    alike[constant] = alike[:, constant] = False
    return BitHealth(
        items=len(on),
        balance=np.asarray(ones / len(on)),
        correlation=correlation,
        information=None if labels is None else _information(on, labels),
        constant=np.flatnonzero(constant).astype(np.int64),
        duplicates=np.argwhere(np.triu(alike, 1)).astype(np.int64),
    )


def churn(before: NDArray[Any], after: NDArray[Any]) -> Churn:
    """Bits of the same items by two models, both of shape (n, n_bits), n ≥ 1. Raises UsageError for others."""
    first, second = _as_bits(before), _as_bits(after)
    if first.shape != second.shape:
        raise UsageError(
            f"bits of shape {first.shape} and {second.shape}",
            why="only the same bits of the same items can be compared",
            remedy="hash one sample with both models",
        )
    changed = first != second
    return Churn(float(changed.mean()), float(changed.any(axis=1).mean()), changed.mean(axis=0))


def _information(on: NDArray[np.float64], labels: Any) -> NDArray[np.float64]:
    """I(bit; class) = Σ p(bit, class)·log₂(p(bit, class)/(p(bit)·p(class))). 0 if no item is labelled."""
    _, member = read_labels(labels, len(on))
    weight = np.asarray(member.sum(axis=1)).ravel()
    labelled = np.flatnonzero(weight)
    if not len(labelled):
        return np.zeros(on.shape[1])
    share = member[labelled].toarray() / weight[labelled, None] / len(labelled)
    of_class = share.sum(axis=0)
    joint_on = share.T @ on[labelled]
    joint = np.stack([joint_on, of_class[:, None] - joint_on])
    independent = joint.sum(axis=1, keepdims=True) * of_class[:, None]
    possible = (joint > 1e-15) & (independent > 0)
    ratio = np.divide(joint, independent, out=np.ones_like(joint), where=possible)
    return np.asarray(np.maximum(0.0, (np.where(possible, joint, 0.0) * np.log2(ratio)).sum(axis=(0, 1))))


def _as_bits(bits: NDArray[Any]) -> NDArray[np.float64]:
    if bits.ndim != 2 or 0 in bits.shape or bits.dtype.kind not in "bui" or not ((bits == 0) | (bits == 1)).all():
        raise UsageError(
            f"bits are {bits.dtype} of shape {bits.shape}",
            why="they must be 0 and 1 in an array of shape (n, n_bits), neither of them 0",
            remedy="pass what a hasher's transform returns",
        )
    return bits.astype(np.float64)
