"""A drop of one class's figures is found soon, dated, and seldom seen where there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stream_hash.errors import IntegrityError
from stream_hash.numerics import cusum
from stream_hash.numerics.cusum import Cusum


def figures(rng: np.random.Generator, mean: float, count: int) -> list[float]:
    """Precisions at 10 as queries have them: some find much, some little."""
    return (rng.binomial(10, rng.beta(3 * mean, 3 * (1 - mean), count)) / 10).tolist()


def first_alarm(found: list[float]) -> tuple[int, int] | None:
    """At which figure there was an alarm, and since when it says."""
    detector = Cusum()
    for position, figure in enumerate(found):
        since = detector.add(position, figure)
        if since is not None:
            return position, since
    return None


def test_a_drop_is_found_soon_and_dated() -> None:
    late, dated = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        alarm = first_alarm(figures(rng, 0.6, 200) + figures(rng, 0.3, 200))
        assert alarm is not None
        late.append(alarm[0] - 200)
        dated.append(alarm[1] - 200)
    assert 0 < np.median(late) < 25
    assert abs(np.median(dated)) < 6


def test_without_a_drop_an_alarm_is_rare() -> None:
    alarms = [first_alarm(figures(np.random.default_rng(seed), 0.5, 500)) for seed in range(40)]
    assert sum(alarm is not None for alarm in alarms) <= 2, "one in tens of thousands of figures"


def test_a_class_that_fills_does_not_drop() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert first_alarm([one for step in range(10) for one in figures(rng, 0.05 + 0.05 * step, 40)]) is None


def test_mean_and_variance_are_those_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures(np.random.default_rng(0), 0.5, 200)
    detector = Cusum()
    for position, figure in enumerate(found):
        detector.add(position, figure)
    assert (detector.mean, detector.variance) == pytest.approx((np.mean(found), np.var(found)))
    monkeypatch.setattr(cusum, "MEMORY", 50)
    forgetful = Cusum()
    for position, figure in enumerate([0.2] * 100 + [0.8] * 150):
        forgetful.add(position, figure)
    assert forgetful.mean > 0.75, "what is old is forgotten"


def test_the_state_goes_on_as_it_was() -> None:
    rng = np.random.default_rng(3)
    found = figures(rng, 0.6, 100) + figures(rng, 0.2, 60)
    whole = first_alarm(found)
    detector = Cusum()
    alarm = None
    for position, figure in enumerate(found):
        detector = Cusum.from_list(json.loads(json.dumps(detector.to_list())))
        since = detector.add(position, figure)
        if since is not None:
            alarm = position, since
            break
    assert alarm == whole is not None


@pytest.mark.parametrize(
    "state", [[], [1, 2, 3], [1, 0, 2.0, 0.1, 0], [-1, 0, 0.5, 0.1, 0], [1, 0, 0.5, 0.1, float("nan")], ["a"] * 5, {}]
)
def test_a_state_that_is_none_is_refused(state: list[float]) -> None:
    with pytest.raises(IntegrityError):
        Cusum.from_list(state)
