"""Code words: a code for each class, far from every other class's, that never changes once it is given.

The first classes are drawn together: columns that split them in halves, the best of many draws by how few
columns repeat and then by the least distance. A class that comes later takes, of a pool of words, the one
farthest from those taken, and of the farthest the one that leaves the bits most balanced.

The distance is guaranteed as by E. N. Gilbert, "A comparison of signalling alphabets", BSTJ 1952: n − 1 words
forbid at most (n − 1)·V(d − 1) others, V(r) being the size of a ball of radius r. We ask that this be at most half
of all words, so that a random pool holds an allowed one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import UnlearnableError

POOL = 4_096
"""Words to choose from for longer codes; for codes of at most 12 bits the pool is all words."""

DRAWS = 200


def guaranteed_distance(n_words: int, n_bits: int) -> int:
    """The least Hamming distance that `extend_words` promises between any two of n_words words of n_bits bits."""
    distance, ball = 1, 1
    while distance < n_bits:
        ball += math.comb(n_bits, distance)
        if (n_words - 1) * ball > 2 ** (n_bits - 1):
            break
        distance += 1
    return distance


def extend_words(words: NDArray[np.int8], count: int, seed: int) -> NDArray[np.int8]:
    """`count` more words after those given, which stay as they are.

    words : int8 of ±1, shape (n_words, n_bits), n_words = 0 for a start. Returns (n_words + count, n_bits).
    The same words and seed give the same result. Raises UnlearnableError when there are not so many words.
    """
    taken, n_bits = words.shape
    if n_bits < 60 and taken + count > 2**n_bits:
        raise UnlearnableError(
            f"{taken + count} classes cannot have different codes of {n_bits} bits",
            remedy=f"take at least {math.ceil(math.log2(taken + count))} bits, or give fewer classes",
        )
    rng = np.random.default_rng([seed, taken])
    if taken == 0 and count > 1:
        first = _balanced_words(rng, count, n_bits)
        if least_distance(first) >= guaranteed_distance(count, n_bits):
            return first
    for _ in range(count):
        words = np.vstack([words, _farthest(rng, words)])
    return words


def least_distance(words: NDArray[np.int8]) -> int:
    """The least Hamming distance between two of at least two words."""
    products = words.astype(np.float32) @ words.T.astype(np.float32)
    np.fill_diagonal(products, -np.inf)
    return int((words.shape[1] - products.max()) // 2)


def distinct_columns(words: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which bits tell classes apart, and otherwise than an earlier bit does (or its complement): (n_bits,) bool."""
    signed = words * words[:1]
    _, first = np.unique(signed, axis=1, return_index=True)
    distinct = np.zeros(words.shape[1], dtype=np.bool_)
    distinct[first] = True
    return np.asarray(distinct & (signed != 1).any(axis=0))


def _balanced_words(rng: np.random.Generator, count: int, n_bits: int) -> NDArray[np.int8]:
    """Every bit is +1 for half of the words, give or take one."""
    draws = max(1, min(DRAWS, 2**24 // (n_bits * count * max(count, n_bits))))
    ranks = rng.random((draws, count, n_bits)).argsort(axis=1)
    words = np.where(ranks < (count + 1) // 2, 1, -1).astype(np.float32)
    between_words = words @ words.transpose(0, 2, 1) - n_bits * 2 * np.eye(count, dtype=np.float32)
    between_bits = np.abs(words.transpose(0, 2, 1) @ words)
    repeats = (between_bits >= count).sum(axis=(1, 2))
    best = np.lexsort([between_words.max(axis=(1, 2)), repeats])[0]
    chosen: NDArray[np.int8] = words[best].astype(np.int8)
    # which half is +1 is left to chance: for an odd number of words the larger one would always be
    return np.asarray(chosen * rng.choice(np.array([-1, 1], dtype=np.int8), n_bits))


def _farthest(rng: np.random.Generator, words: NDArray[np.int8]) -> NDArray[np.int8]:
    taken, n_bits = words.shape
    while True:
        if n_bits <= 12:
            every = np.arange(2**n_bits)[:, None] >> np.arange(n_bits) & 1
            pool = rng.permutation(2 * every - 1).astype(np.float32)
        else:
            pool = rng.choice(np.array([-1, 1], dtype=np.float32), (POOL, n_bits))
        if taken == 0:
            return np.asarray(pool[0].astype(np.int8))
        nearest = (n_bits - (pool @ words.T.astype(np.float32)).max(axis=1)) // 2
        if nearest.max() >= guaranteed_distance(taken + 1, n_bits):
            imbalance = np.abs(pool + words.sum(axis=0, dtype=np.float32)).sum(axis=1)
            return np.asarray(pool[np.lexsort([imbalance, -nearest])[0]].astype(np.int8))
