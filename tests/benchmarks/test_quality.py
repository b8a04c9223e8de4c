"""The quality benchmark measures what it says: its search against a plain one, and its short sections."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality_data import Labelled, Part, digits
from stream_hash.numerics.lsh import LSH

ROOT = Path(__file__).parents[2]


def small() -> Part:
    data = digits()
    return Part(Labelled("some digits", data.vectors[:500], data.labels[:500]), 3, 40, 60)


def plain(part: Part, query: int, candidates: list[int]) -> float:
    best = sorted(candidates, key=lambda item: -part.cosines[query, item])[:10]
    return sum(bool(part.relevant[query, item]) for item in best) / 10


def test_searches_find_what_a_plain_one_finds() -> None:
    part = small()
    hasher = LSH(8, random_state=0).fit(part.training)
    margins, items = hasher.decision_function(part.queries), hasher.decision_function(part.database) >= 0
    found = part.search(hasher, (30,))
    own, whole, sizes = [], [], []
    for query, margin in enumerate(margins):
        differing = items != (margin >= 0)
        own.append(plain(part, query, np.flatnonzero(~differing.any(axis=1)).tolist()))
        costs = np.round((differing * np.abs(margin)).sum(axis=1), 6)
        limit = np.sort(costs)[29]
        taken = np.flatnonzero(costs <= limit)
        whole.append(plain(part, query, taken.tolist()))
        sizes.append(len(taken))
    assert found["radius 0"].precision == pytest.approx(np.mean(own))
    assert found["30 whole"].precision == pytest.approx(np.mean(whole))
    assert found["30 whole"].candidates == pytest.approx(np.mean(sizes))
    assert found["30 cut"].candidates == 30


def test_queries_to_average_over_can_be_chosen() -> None:
    part = small()
    hasher = LSH(8, random_state=0).fit(part.training)
    sides = [part.query_labels < 5, part.query_labels >= 5]
    halves = [part.search(hasher, (30,), among)["30 cut"].precision for among in sides]
    every = part.search(hasher, (30,))["30 cut"].precision
    assert np.average(halves, weights=[side.sum() for side in sides]) == pytest.approx(every)


def test_exact_search_is_that_about_the_mean() -> None:
    part = small()
    x = part.database - part.database.mean(axis=0)
    q = part.queries - part.database.mean(axis=0)
    cosines = (q @ x.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    best = np.argsort(-cosines, axis=1)[:, :10]
    assert part.exact == pytest.approx(np.take_along_axis(part.relevant, best, axis=1).mean())


def test_digits_are_ordered_and_signatures_measured(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.quality", "--json", str(output), "--items", "3000", "--queries", "40"]
    command += ["--splits", "2", "--only", "digits", "--only", "signature"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    rows = {name: [float(cell.split(" ± ")[0]) for cell in cells] for name, *cells in result["digits"][1:]}
    for lsh, tutorial, ours in zip(rows["LSH"], rows["tutorial's GRH"], rows["GRH"], strict=True):
        assert lsh < tutorial < ours
    shares = [float(cells.split(" ± ")[0]) for _, cells in result["signature"][1:]]
    assert shares == sorted(shares)
    assert "| how items are scored" in done.stderr
