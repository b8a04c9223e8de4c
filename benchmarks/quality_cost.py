"""What learning and encoding cost, against the least they could, alternating in one process; memory against items."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.dataset import gist_like
from benchmarks.quality_data import Labelled
from benchmarks.report import Spread, progress
from stream_hash.numerics.grh import GRH

REPETITIONS = 15
LABELS = 1_198
ENCODED = 60_000


def cost(data: Labelled, queries: int, splits: int) -> list[list[str]]:  # noqa: ARG001  # as all sections
    """Ratios of times, by one thread of the linear algebra; peaks of memory."""
    with threadpool_limits(1):
        return _times(data) + _memory(data)


def _times(data: Labelled) -> list[list[str]]:
    from sklearn.linear_model import Ridge

    x, y = data.vectors[:LABELS].astype(np.float64), data.labels[:LABELS]
    targets = np.where(np.random.default_rng(0).random((len(x), 16)) < 0.5, -1.0, 1.0)
    rows = [["what", "against", "ratio", "seconds"]]
    linear: dict[str, Any] = {"feature_map": None, "random_state": 0}
    fits = {
        "GRH, ridge, hyperplanes": GRH(**linear),
        "GRH, passive-aggressive, hyperplanes": GRH(learner="pa", **linear),
        "GRH, ridge, defaults": GRH(random_state=0),
        "GRH, passive-aggressive, defaults": GRH(learner="pa", random_state=0),
    }
    landmarks = fits["GRH, ridge, defaults"].fit(x, y).feature_map_.base.base
    features = landmarks.features(x)
    for name, model in fits.items():
        progress(name)
        solved = (x, "a ridge solve of the vectors") if "hyperplanes" in name else (features, "one of their features")
        seen = solved[0]
        rows.append(_ratio(name, solved[1], lambda m=model: m.fit(x, y), lambda s=seen: Ridge(3.0).fit(s, targets)))
    vectors = data.vectors[np.arange(ENCODED) % len(data.vectors)]
    for name in ("hyperplanes", "defaults"):
        progress(f"encoding, {name}")
        fitted = fits[f"GRH, ridge, {name}"].fit(x.astype(np.float32), y)
        if name == "hyperplanes":
            weights = fitted.hyperplanes_.T.astype(np.float32)
            bare = lambda w=weights: vectors @ w  # noqa: E731
        else:
            inner = landmarks.landmarks.T.astype(np.float32)
            outer = np.ones((inner.shape[1], 16), np.float32)
            bare = lambda a=inner, b=outer: [part @ a @ b for part in np.array_split(vectors, 16)]  # noqa: E731
        rows.append(
            _ratio(f"encoding {ENCODED:,}, {name}", "its bare products", lambda f=fitted: f.transform(vectors), bare)
        )
    return rows


def _memory(data: Labelled) -> list[list[str]]:
    rows = []
    for labels in (5_000, 10_000, 20_000):
        progress(f"memory, {labels} labels")
        peak = _peak(labels, data.vectors.shape[1])
        rows.append([f"peak memory, {labels:,} labels × 64 bits", "", f"{peak / 2**20:,.0f} MiB", ""])
    return rows


def _ratio(name: str, against: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> list[str]:
    ours()
    theirs()
    ratios, seconds = [], []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        ours()
        middle = time.perf_counter()
        theirs()
        seconds.append(middle - start)
        ratios.append(seconds[-1] / (time.perf_counter() - middle))
    return [name, against, Spread.of(ratios).shown(2), Spread.of(seconds).shown(3)]


def _peak(labels: int, dimension: int) -> int:
    """Bytes that a fit to so many items of 64 bits allocates at its peak, beyond the items themselves."""
    x, y = gist_like(np.random.default_rng(0), labels)
    x = np.ascontiguousarray(x[:, :dimension])
    tracemalloc.start()
    GRH(64, n_learned=64, random_state=0).fit(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
