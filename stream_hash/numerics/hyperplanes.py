"""Hyperplanes drawn at random: locality-sensitive hashing by the sign of Gaussian projections.

Source: M. Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002, section 3:
two vectors fall on the same side of a random hyperplane with probability 1 − angle/π.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gaussian_hyperplanes(rng: np.random.Generator, count: int, dimension: int) -> NDArray[np.float32]:
    """Normals of `count` hyperplanes, independent standard Gaussian, one a row.

    Returns float32 of shape (count, dimension). The same generator state gives the same hyperplanes.
    """
    return rng.standard_normal((count, dimension)).astype(np.float32)
