"""What learning and encoding cost, against the least they could, alternating in one process; memory against items."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.quality_data import Labelled
from benchmarks.report import Spread, progress
from stream_hash.numerics.grh import GRH

REPETITIONS = 7
LABELS = 1_198
ENCODED = 60_000


def cost(data: Labelled, queries: int, splits: int) -> list[list[str]]:  # noqa: ARG001  # as all sections
    """Ratios of times, and peaks of memory."""
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
    for labels in (5_000, 10_000, 20_000):
        progress(f"memory, {labels} labels")
        command = [sys.executable, "-m", "benchmarks.quality_cost", str(labels), str(data.vectors.shape[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        before, after = (int(part) for part in done.stdout.split())
        rows.append([f"peak memory, {labels:,} labels × 64 bits", "", f"{after:,} MB", f"{before:,} MB before"])
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


def _peak(labels: int, dimension: int) -> None:
    """Print the peak memory of this process in MB, before and after a fit."""
    from benchmarks.dataset import gist_like

    x, y = gist_like(np.random.default_rng(0), labels)
    # scikit-learn's imports are not the model's memory
    GRH(8, n_components=10).fit(x[:100, :dimension], y[:100])
    unit = 1024 if sys.platform == "linux" else 1024 * 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    GRH(64, n_learned=64, random_state=0).fit(x[:, :dimension], y)
    print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)  # to the parent


if __name__ == "__main__":
    _peak(int(sys.argv[1]), int(sys.argv[2]))
