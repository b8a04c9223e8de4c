"""What is indexed: GIST descriptors of CIFAR-10 in the tutorial's split, or random vectors of their shape.

The tutorial (learning2hash.github.io) normalises to unit length, then splits off 0.2 % of the items as queries
and 2 % of the others for training, both with seed 42: 120 queries, 1,198 training items, 58,682 in the database.
The centring that it does next is the model's here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIMENSION = 512
ITEMS = 58_682
CLASSES = 10


@dataclass(frozen=True)
class Dataset:
    """items, training, queries : (n, 512) float32 of unit length; labels and query_labels : (n,) int64.

    source : what it is, for the reader of the output.
    """

    source: str
    items: NDArray[np.float32]
    labels: NDArray[np.int64]
    training: NDArray[np.float32]
    queries: NDArray[np.float32]
    query_labels: NDArray[np.int64]


def load_dataset(path: Path | None, items: int | None = None) -> Dataset:
    """The file at `path`, or random vectors without one; of its database the first `items`.

    queries : the tutorial's 120, then its training items: they are not in the database either, plain LSH learns
    nothing from their labels, and 1,318 queries are less noisy than 120.
    """
    if path is None:
        rng = np.random.default_rng(42)
        vectors, labels = gist_like(rng, (ITEMS if items is None else items) + 1_318)
        source = "random GIST-like vectors, seed 42"
    else:
        import scipy.io

        content = scipy.io.loadmat(path)
        vectors, labels = content["X"].astype(np.float32), content["X_class"].ravel().astype(np.int64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        source = f"{path.name}, the tutorial's split"
    queries, training, database = _split(len(vectors))
    database = database[:items]
    held_out = np.concatenate([queries, training])
    return Dataset(source, vectors[database], labels[database], vectors[training], vectors[held_out], labels[held_out])


def gist_like(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Random vectors with the mean, the spectrum and the skew of GIST, in ten overlapping classes.

    Returns (count, 512) float32 of unit length and (count,) int64. A third of the variance lies in the first
    four directions and nine tenths in the first 128, as it does in CIFAR-10's descriptors.
    """
    labels = rng.integers(CLASSES, size=count)
    spectrum = np.arange(1, DIMENSION + 1, dtype=np.float32) ** np.float32(-0.45)
    directions, _ = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))
    centres = 0.25 * rng.standard_normal((CLASSES, DIMENSION), dtype=np.float32)
    latent = (centres[labels] + rng.standard_normal((count, DIMENSION), dtype=np.float32)) * spectrum
    deviations = latent @ directions.astype(np.float32)
    deviations *= np.float32(0.022 / deviations.std())
    mean = rng.exponential(0.034, DIMENSION).astype(np.float32)
    vectors = np.abs(mean + deviations)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


def _split(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the tutorial's queries, training items and database."""
    from sklearn.model_selection import train_test_split

    rest, queries = train_test_split(np.arange(count), test_size=0.002, random_state=42)
    database, training = train_test_split(rest, test_size=0.02, random_state=42)
    return queries, training, database
