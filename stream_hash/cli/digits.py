"""What the demo works on: scikit-learn's digits; and how good answers about them are."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.client import Index
from stream_hash.numerics.evaluation import precision_at_k

QUERIES: Final = 200
K: Final = 10
RADII: Final = range(3)


@dataclass(frozen=True)
class Digits:
    """1,797 images of handwritten digits, 64 coordinates each: items, and queries that are held out.

    ids, labels : of the n items. vectors : (n, 64) float32. queries : (200, 64) float32. wanted : their digits.
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    labels: list[int]
    queries: NDArray[np.float32]
    wanted: list[int]

    @classmethod
    def load(cls) -> Digits:
        """Always the same items and queries. Imports scikit-learn, which takes a second."""
        from sklearn.datasets import load_digits

        images, digits = load_digits(return_X_y=True)
        vectors = images.astype(np.float32)
        order = np.random.default_rng(0).permutation(len(vectors))
        held_out, stored = order[:QUERIES], order[QUERIES:]
        return cls(
            [f"digit-{row}" for row in stored],
            vectors[stored],
            digits[stored].tolist(),
            vectors[held_out],
            digits[held_out].tolist(),
        )


@dataclass(frozen=True)
class Row:
    """How good the answers of one plan are. radius : None for the exact search. The others are means and a median.

    found : results a query, of the ten asked for. precision : the share of the ten that show the query's digit.
    """

    radius: int | None
    precision: float
    found: float
    candidates: float
    probes: float
    p50_milliseconds: float


def measure(index: Index, digits: Digits) -> Iterator[Row]:
    """A row for each radius, of what the radius itself holds, and one for the exact search."""
    for radius in (*RADII, None):
        answers = [
            index.query(query, K, radius=radius, exact=radius is None, widen=False)[0] for query in digits.queries
        ]
        precisions = [
            precision_at_k([result.label for result in answer.results], wanted, K)
            for answer, wanted in zip(answers, digits.wanted, strict=True)
        ]
        yield Row(
            radius,
            statistics.fmean(precisions),
            statistics.fmean(len(answer.results) for answer in answers),
            statistics.fmean(answer.candidates for answer in answers),
            statistics.fmean(answer.probes for answer in answers),
            1e3 * statistics.median(answer.seconds for answer in answers),
        )
