from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.errors import IntegrityError, UsageError
from stream_hash.numerics.drift import Adwin
from stream_hash.numerics.prequential import MOST_POINTS, PrequentialSeries


def coins(p: float, count: int, seed: int) -> list[float]:
    return (np.random.default_rng(seed).random(count) < p).astype(float).tolist()


def alarms(adwin: Adwin, figures: list[float]) -> list[int]:
    return [at for at, figure in enumerate(figures) if adwin.add(figure)]


class PlainWindow:
    """ADWIN as the paper first gives it: all figures kept, every place tried."""

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self.window: list[float] = []

    def add(self, figure: float) -> bool:
        self.window.append(figure)
        dropped = False
        while (change := self._change()) is not None:
            dropped = dropped or change < 0
            self.window.pop(0)
        return dropped

    def _change(self) -> float | None:
        w = np.array(self.window)
        if len(w) < 10:
            return None
        for place in range(5, len(w) - 4):
            older, newer = w[:place], w[place:]
            inverse = 1 / len(older) + 1 / len(newer)
            chance = math.log(2 * (len(w) - 1) / self.delta)
            bound = math.sqrt(2 * inverse * w.var() * chance) + 2 / 3 * inverse * chance
            if abs(newer.mean() - older.mean()) > bound:
                return float(newer.mean() - older.mean())
        return None


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000), low=st.floats(0, 1), high=st.floats(0, 1), delta=st.sampled_from([0.002, 0.05, 0.5])
)
def test_with_runs_of_one_figure_it_is_the_plain_window(seed: int, low: float, high: float, delta: float) -> None:
    figures = coins(high, 90, seed) + coins(low, 90, seed + 1)
    adwin, plain = Adwin(delta, runs=1_000), PlainWindow(delta)
    for figure in figures:
        assert adwin.add(figure) == plain.add(figure)
        assert len(adwin) == len(plain.window)
    assert adwin.mean == pytest.approx(np.mean(plain.window))


def test_runs_keep_sums_and_spreads() -> None:
    figures = np.random.default_rng(0).random(1_000)
    adwin = Adwin(delta=1e-9)
    assert alarms(adwin, figures.tolist()) == []
    assert len(adwin) == 1_000
    runs = [
        (1 << power, *run) for power in reversed(range(20)) for run in dict(enumerate(adwin._levels)).get(power, [])
    ]
    at = 0
    for size, total, spread in runs:
        part = figures[at : at + size]
        assert (total, spread) == (pytest.approx(part.sum()), pytest.approx(part.var() * size, abs=1e-9))
        at += size


def test_false_alarms_are_rarer_than_delta() -> None:
    """The paper bounds the chance at each step; over 2,000 steps together it is still below delta."""
    seeds = 100
    assert sum(bool(alarms(Adwin(), coins(0.5, 2_000, seed))) for seed in range(seeds)) <= 0.01 * seeds


@pytest.mark.parametrize("seed", range(15))
def test_a_drop_of_a_fifth_is_seen_within_350_coins_and_a_rise_is_none(seed: int) -> None:
    adwin = Adwin()
    assert alarms(adwin, coins(0.6, 1_500, seed)) == []
    assert alarms(adwin, coins(0.4, 350, seed + 100))[0] > 0
    rising = Adwin()
    assert alarms(rising, coins(0.4, 700, seed) + coins(0.6, 700, seed + 100)) == []
    assert rising.mean > 0.53, "the low past is forgotten"


@pytest.mark.parametrize("seed", range(15))
def test_a_drop_of_precision_is_seen_within_200_queries(seed: int) -> None:
    """precision@10 of single queries varies less than coins do."""
    rng = np.random.default_rng(seed)
    before, after = (rng.binomial(10, np.clip(rng.normal(p, 0.2, 1_000), 0, 1)) / 10 for p in (0.6, 0.4))
    adwin = Adwin()
    assert alarms(adwin, before.tolist()) == []
    assert alarms(adwin, after[:200].tolist())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 600))
def test_a_stored_state_goes_on_as_if_it_had_not_been_stored(seed: int, cut: int) -> None:
    figures = coins(0.8, 300, seed) + coins(0.5, 300, seed + 1)
    one, other = Adwin(), Adwin()
    assert alarms(one, figures[:cut]) == alarms(other, figures[:cut])
    other = Adwin.from_dict(json.loads(json.dumps(other.to_dict())))
    assert alarms(one, figures[cut:]) == alarms(other, figures[cut:])
    assert one.to_dict() == other.to_dict()


def test_the_state_grows_with_the_logarithm_of_the_window() -> None:
    adwin = Adwin()
    alarms(adwin, coins(0.5, 5_000, 0))
    assert len(adwin) == 5_000
    assert len(json.dumps(adwin.to_dict())) < 4_000


@pytest.mark.parametrize("figure", [-0.1, 1.1, math.nan])
def test_figures_out_of_range_are_refused(figure: float) -> None:
    with pytest.raises(UsageError):
        Adwin().add(figure)
    with pytest.raises(UsageError):
        PrequentialSeries().add(0, figure)


@pytest.mark.parametrize(
    "change",
    [
        {"delta": 0},
        {"delta": "x"},
        {"runs": 1},
        {"levels": [[[2.0, 0.0]]]},
        {"levels": [[[0.5, -1.0]]]},
        {"levels": [[[math.nan, 0.0]]]},
        {"levels": [[[0.5, 0.0]] * 6]},
        {"levels": [[0.5]]},
        {"levels": 3},
    ],
)
def test_states_of_no_detector_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        Adwin.from_dict(Adwin().to_dict() | change)
    with pytest.raises(IntegrityError):
        Adwin.from_dict({})


def test_an_empty_window_has_no_mean() -> None:
    assert math.isnan(Adwin().mean)
    with pytest.raises(UsageError):
        Adwin(delta=1)


def test_the_series_keeps_means_of_the_whole_stream() -> None:
    series, figures = PrequentialSeries(), np.random.default_rng(0).random(40_000)
    for at, figure in enumerate(figures.tolist()):
        series.add(at, figure)
        if at in {7, 12_345}:
            series = PrequentialSeries.from_dict(json.loads(json.dumps(series.to_dict())))
    assert len(series.points) < MOST_POINTS
    runs = figures[: len(series.points) * series.length].reshape(-1, series.length)
    assert [point.mean for point in series.points] == pytest.approx(runs.mean(axis=1).tolist())
    assert [point.position for point in series.points] == [(i + 1) * series.length - 1 for i in range(len(runs))]


@pytest.mark.parametrize(
    "change", [{"length": "x"}, {"points": [[1, 2.0]]}, {"points": [[1]]}, {"open": [3.0, 2.0]}, {"open": [0.0, 99.0]}]
)
def test_states_of_no_series_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        PrequentialSeries.from_dict(PrequentialSeries().to_dict() | change)
