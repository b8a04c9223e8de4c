"""The benchmarks of drift and of the gate say what they should, on sizes too small to measure anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.drift import recovered, shown
from benchmarks.drift_stream import ARRIVALS, FIRST_CLASSES, REFERENCE, drifting

ROOT = Path(__file__).parents[2]


def run(name: str, path: Path, *options: str) -> tuple[dict[str, Any], str]:
    """The JSON object and the tables of a benchmark."""
    output = path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(output), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text()), done.stderr


@pytest.mark.timeout(320)
def test_drift_compares_three_runs_of_one_stream(tmp_path: Path) -> None:
    plot = tmp_path / "drift.svg"
    result, tables = run("drift", tmp_path, "--seed", "1", "--start", "100", "--length", "60", "--plot", str(plot))
    assert len(result["phases"]) == ARRIVALS + 1
    for row in result["phases"]:
        assert set(row["recovered"]) == {"retrained", "kept", "twin"}
    assert result["training"][0]["asked"] == "the first classes"
    assert "what comes" in tables
    assert "within 300 labels, of 5" in tables
    assert plot.stat().st_size > 1_000


@pytest.mark.timeout(320)
def test_the_gate_lets_true_labels_in_and_no_random_ones(tmp_path: Path) -> None:
    result, tables = run("gate", tmp_path, "--trials", "1", "--items", "1000")
    kinds = {row["kind"]: row["live"] for row in result["decisions"]}
    assert set(kinds) == {"random", "random, continued", "random class", "true", "worse"}
    assert not any(kinds[kind] for kind in kinds if kind != "true")
    assert "| challenger" in tables


def test_a_stream_brings_its_classes_one_after_another_and_one_changes_its_look() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 1_000)
    vectors = np.stack([labels, rng.random(len(labels))], axis=1).astype(np.float32)  # the first says whose look it is
    stream = drifting(vectors, labels, 50, 60, np.random.default_rng(3))
    assert stream.first == FIRST_CLASSES * 50
    known = set(stream.labels[: stream.first].tolist())
    looks = stream.vectors[:, 0].astype(int)
    assert (looks[: stream.first] == stream.labels[: stream.first]).all()
    for at, phase in enumerate(stream.phases):
        (own,) = set(stream.labels[phase.rows[phase.own]].tolist())
        assert (phase.own.sum(), len(phase.rows)) == (60, 90)
        assert set(stream.labels[phase.rows[~phase.own]].tolist()) <= known - {own}
        assert (own in known) == (at == ARRIVALS // 2)
        assert (looks[phase.rows[phase.own]] == own).all() == (at != ARRIVALS // 2)
        known.add(own)
    one, other = (set(map(bytes, aside.vectors)) for aside in stream.references)
    assert len(one) == len(other) == (FIRST_CLASSES + ARRIVALS + 1) * REFERENCE
    assert not set(map(bytes, stream.vectors)) & (one | other)
    assert not one & other


def test_a_series_has_recovered_when_it_stays_at_nine_tenths_of_the_reference() -> None:
    reference = np.full(400, 0.5)
    late = np.where(np.arange(400) < 160, 0.1, 0.5)
    assert recovered(reference, reference) == 100
    assert recovered(late, reference) == 160 + 88, "of the last 100, twelve may be of before"
    assert recovered(np.full(400, 0.3), reference) is None
    once = np.where((np.arange(400) >= 100) & (np.arange(400) < 200), 0.5, 0.1)
    assert recovered(once, reference) is None, "once is not enough"
    gaps = late.copy()
    gaps[::7] = np.nan
    assert recovered(gaps, reference) is not None


def test_means_are_of_the_same_items_and_those_in_time_are_counted() -> None:
    late = {"retrained": [0.5, 0.7], "kept": [0.2, 0.4], "twin": [0.6, 0.6], "reference": [0.6, 0.8]}
    rows = [{"seed": 1, "phase": "class 2", "recovered": {"retrained": 300, "kept": None, "twin": 301}, "late": late}]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown(rows).splitlines()]
    assert ["", "within 300 labels, of 1", "1", "0", "0"] in lines
    assert ["1", "class 2", "0.600 ± 0.100", "0.300 ± 0.100", "0.600 ± 0.000", "0.700 ± 0.100"] in lines
    assert ["all", "less the reference's", "-0.100 ± 0.000", "-0.400 ± 0.000", "-0.100 ± 0.100", "-"] in lines
