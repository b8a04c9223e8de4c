"""Directions among class posteriors: each bit is the sign of d·(p − mean p) for a direction d over the classes.

code_words  d is a column of the code words: the bit asks for one half of the classes against the other
frames      blocks of random orthonormal directions, all at right angles to (1, …, 1), along which p never varies:
            within a block no bit repeats what another says, so that long codes keep the angles between posteriors
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def frame_directions(rng: np.random.Generator, n_bits: int, n_classes: int) -> NDArray[np.float64]:
    """Stacked frames of n_classes − 1 directions; n_classes ≥ 2. Returns (n_bits, n_classes), rows of length 1."""
    # the orthonormal complement of (1, …, 1): all but the first of a basis that begins with it
    start = np.column_stack([np.ones(n_classes), np.eye(n_classes)[:, 1:]])
    complement = np.linalg.qr(start)[0][:, 1:].T
    size = n_classes - 1
    blocks = [np.linalg.qr(rng.standard_normal((size, size)))[0] @ complement for _ in range(-(-n_bits // size))]
    return np.vstack(blocks)[:n_bits]


def extend_directions(directions: NDArray[np.float64], words: NDArray[np.int8]) -> NDArray[np.float64]:
    """A coordinate more for each word of a new class, of the size of the others; the old ones stay.

    directions : (n_bits, n_classes). words : (n_new, n_bits), ±1.
    """
    return np.hstack([directions, words.T * np.sqrt(np.mean(directions**2))])
