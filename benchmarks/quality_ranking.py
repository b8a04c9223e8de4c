"""Rankings of all items: fused, by Hamming distance, and by signature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality_data import RESULTS, Labelled, Part, shown
from benchmarks.report import progress
from stream_hash.numerics.asymmetric import Calibration
from stream_hash.numerics.codes import pack_bits
from stream_hash.numerics.evaluation import expected_average_precisions, level_counts
from stream_hash.numerics.fused import FusedRank
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.protocol import unit
from stream_hash.numerics.rotation import ITQ
from stream_hash.numerics.selection import GRHCV
from stream_hash.settings import SIGNATURE_BITS

BITS = (16, 32, 48, 64)
PAPER = {1_000: (0.298, 0.316, 0.317, 0.321), 2_000: (0.344, 0.368, 0.372, 0.369)}
"""mAP of GRH (rbf, cca): S. Moran & V. Lavrenko, "Graph Regularised Hashing", ECIR 2015."""

QUERIES_A_CLASS = 100
LABELS_OF_SIGNATURE = 1_198
KEPT = 500


def fused(data: Labelled, queries: int, splits: int) -> list[list[str]]:
    """Precision@10 of the fused rank over all items, by labels."""
    rows = [["labels", "exact search", "fused rank", "gain", "weights"]]
    for labels in (1_198, 5_000, 20_000):
        exact, ours, weights = [], [], []
        for seed in range(1, splits + 1):
            progress(f"fused, {labels} labels, split {seed}")
            part = Part(data, seed, queries, labels)
            hasher = GRH(9, n_learned=9, power=0.5, random_state=seed)
            rank = FusedRank(hasher, random_state=seed).fit(part.training, part.labels)
            margins = rank.hasher_.decision_function
            scores = rank.fuse(part.cosines, margins(part.queries), margins(part.database))
            exact.append(part.exact)
            ours.append(part.precision(scores))
            weights.append(f"{rank.weight_:g}")
        gains = [a - b for a, b in zip(ours, exact, strict=True)]
        rows.append([f"{labels:,}", shown(exact), shown(ours), shown(gains), ", ".join(weights)])
    return rows


class _Ranking:
    """The papers' protocol: 100 queries a class, as many labels of each class, all but the queries are searched.

    The training items are part of what is searched, as there; `without` leaves them out.
    """

    def __init__(self, data: Labelled, seed: int, labels: int) -> None:
        rng = np.random.default_rng(seed)
        classes = np.unique(data.labels)
        of_class = [rng.permutation(np.flatnonzero(data.labels == label)) for label in classes]
        asked = min(QUERIES_A_CLASS, len(of_class[0]) // 4)
        self._data = data
        self._queries = np.concatenate([rows[:asked] for rows in of_class])
        self.training = np.concatenate([rows[asked : asked + labels // len(classes)] for rows in of_class])
        self._database = np.concatenate([rows[asked:] for rows in of_class])

    def items(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self._data.vectors[self.training], self._data.labels[self.training]

    def average_precision(self, hasher: Any) -> tuple[float, float]:
        """mAP, and the same without the training items in the database."""
        bits = pack_bits(np.asarray(hasher.decision_function(self._data.vectors[self._database])) >= 0)
        asked = pack_bits(np.asarray(hasher.decision_function(self._data.vectors[self._queries])) >= 0)
        unseen = ~np.isin(self._database, self.training)
        found = []
        for start in range(0, len(asked), 100):
            rows = slice(start, start + 100)
            distances = np.bitwise_count(asked[rows, None] ^ bits)
            relevant = self._data.labels[self._queries[rows]][:, None] == self._data.labels[self._database]
            found.append([_average_precisions(distances[:, kept], relevant[:, kept]) for kept in (slice(None), unseen)])
        everything, without = (np.concatenate(parts).mean() for parts in zip(*found, strict=True))
        return float(everything), float(without)


def _average_precisions(distances: NDArray[np.uint8], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    levels = 65
    return expected_average_precisions(level_counts(distances, levels), level_counts(distances, levels, relevant))


def ranking(data: Labelled, queries: int, splits: int) -> list[list[str]]:  # noqa: ARG001  # the papers' queries
    """mAP by bits and labels. Ties are broken at random, in expectation."""
    rows = [["labels", "bits", "mAP", "1.03 × the paper", "without training items", "chosen"]]
    for labels, paper in PAPER.items():
        parts = [_Ranking(data, seed, labels) for seed in range(1, max(splits, 5) + 1)]
        shared = _chosen(parts, 32, {"power": [1.0, 0.5], "C": [1.0, 3.0, 10.0]}, {"n_components": labels})
        for bits, theirs in zip(BITS, paper, strict=True):
            own = _chosen(parts, bits, {"targets": ["code_words", "frames"]}, {"n_components": labels} | shared)
            rows.append(_row(parts, bits, {"n_components": labels} | shared | own, labels, f"{1.03 * theirs:.3f}"))
    labels = 5_000
    parts = [_Ranking(data, seed, labels) for seed in range(1, splits + 1)]
    fixed = {"n_components": 3_000, "targets": "frames"}
    shared = _chosen(parts[:1], 64, {"power": [1.0, 0.5], "C": [1.0, 3.0, 10.0]}, fixed)
    rows.append(_row(parts, 64, fixed | shared, labels, "(0.48)"))
    return rows


def _row(parts: list[_Ranking], bits: int, settings: dict[str, Any], labels: int, target: str) -> list[str]:
    figures = []
    for seed, part in enumerate(parts):
        progress(f"ranking, {labels} labels, {bits} bits, split {seed + 1}")
        figures.append(part.average_precision(_model(bits, seed, settings).fit(*part.items())))
    everything, without = zip(*figures, strict=True)
    text = ", ".join(f"{name} {value}" for name, value in settings.items())
    return [f"{labels:,}", str(bits), shown(everything, 4), target, shown(without, 4), text]


def _model(bits: int, seed: int, settings: dict[str, Any]) -> GRH:
    return GRH(bits, n_learned=bits, feature_map="posterior", random_state=seed, **settings)


def _chosen(parts: list[_Ranking], bits: int, grid: dict[str, list[Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """The best value of each parameter by cross-validation in the training items, a mean over the splits."""
    chosen: dict[str, Any] = {}
    for name, values in grid.items():
        progress(f"choosing {name} for {bits} bits")
        scores = []
        for seed, part in enumerate(parts):
            model = _model(bits, seed, settings | chosen)
            trials = GRHCV(model, grid={name: values}, measure="ranking", n_splits=3, random_state=seed)
            scores.append([trial["precision"] for trial in trials.fit(*part.items()).trials_])
        chosen[name] = values[int(np.argmax(np.mean(scores, axis=0)))]
    return chosen


def signature(data: Labelled, queries: int, splits: int) -> list[list[str]]:
    """The share of the true ten nearest among the best 500 of all items, by 39 bits."""
    rows = [["how items are scored", "share of the true ten"]]
    shares: dict[str, list[float]] = {"Hamming distance": [], "asymmetric": [], "asymmetric, calibrated": []}
    for seed in range(1, splits + 1):
        progress(f"signature, split {seed}")
        part = Part(data, seed, queries, LABELS_OF_SIGNATURE)
        mean = part.database.mean(axis=0)
        items, asked = unit(part.database - mean), unit(part.queries - mean)
        true = np.argpartition(-part.cosines, RESULTS - 1, axis=1)[:, :RESULTS]
        rotation = ITQ(SIGNATURE_BITS, n_components=96, whitening=0.1, random_state=seed).fit(items)
        margins, wanted = rotation.decision_function(items), rotation.decision_function(asked)
        signs = np.where(margins >= 0, np.float32(1), np.float32(-1))
        codes = pack_bits(margins >= 0)
        calibration = Calibration.fit(margins)
        kept: dict[str, list[float]] = {name: [] for name in shares}
        for start in range(0, len(asked), 100):
            block = slice(start, start + 100)
            scores = {
                "Hamming distance": np.where(wanted[block] >= 0, 1, -1).astype(np.float32) @ signs.T,
                "asymmetric": wanted[block].astype(np.float32) @ signs.T,
                "asymmetric, calibrated": calibration.scores(wanted[block], codes),
            }
            for name, score in scores.items():
                best = np.argpartition(-score, KEPT - 1, axis=1)[:, :KEPT]
                kept[name] += [np.isin(t, b).mean() for t, b in zip(true[block], best, strict=True)]
        for name, values in kept.items():
            shares[name].append(float(np.mean(values)))
    return rows + [[name, shown(values)] for name, values in shares.items()]
