"""The bits that classes say nothing about: ITQ's, put beside those that were learned.

Bits of class posteriors send all items of a class, and queries like them, into few buckets. Beside them some bits of
the vectors themselves divide such buckets by angle, so that a search that stops at a budget has taken the nearer ones.
Their margins are made smaller than the learned ones': query-directed probing then crosses them first, and turns to
another class later.
"""

from __future__ import annotations

import numpy as np

from stream_hash.numerics.feature_maps import Joined, Matrix, Prepared, SingleMap
from stream_hash.numerics.learners import Hyperplanes

SIZE = 0.5
"""Standard deviation of these margins, as a share of the learned ones'."""

SAMPLE = 4_096


def sample(x: Matrix, seed: int) -> Matrix:
    """So many of the vectors at most, from all over: the first ones may be of one class. x : (n, n_features)."""
    if len(x) <= SAMPLE:
        return x
    return x[np.sort(np.random.default_rng(seed).permutation(len(x))[:SAMPLE])]


def rest_hyperplanes(prepared: Prepared, x: Matrix, n_bits: int, seed: int) -> Hyperplanes:
    """n_bits hyperplanes by ITQ in the space of prepared's features. x : (n, n_features)."""
    if not n_bits:
        return np.zeros((0, 0)), np.zeros(0)
    from stream_hash.numerics.rotation import ITQ

    features = prepared.features(x).astype(np.float64)
    rotation = ITQ(n_bits, random_state=seed).fit(features)
    return rotation.hyperplanes_, rotation.offsets_


def put_beside(
    learned: SingleMap, weights: Matrix, offsets: Matrix, rest: Hyperplanes, x: Matrix, share: float
) -> tuple[Joined, Matrix, Matrix]:
    """The learned hyperplanes, then the rest, in the space of one joined map.

    x : (n, n_features), on which the sizes of the margins are compared. share : 0 to 1, what x counts for beside the
    items that gave the rest the size it has. Returns the map, weights and offsets.
    """
    width = weights.shape[1]
    joined = Joined(learned, width)
    both = np.zeros((len(weights) + len(rest[0]), width + rest[0].shape[1]))
    both[: len(weights), :width] = weights
    both[len(weights) :, width:] = rest[0]
    shifts = np.concatenate([offsets, rest[1]])
    spread = joined.margins(x, both, shifts).std(axis=0, dtype=np.float64)
    ours, theirs = spread[: len(weights)].mean(), spread[len(weights) :].mean()
    size = (SIZE * ours / theirs) ** share if ours > 0 and theirs > 0 else 1.0
    both[len(weights) :] *= size
    shifts[len(weights) :] *= size
    return joined, both, shifts
