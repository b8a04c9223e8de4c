"""A trainer, a hash worker and the server killed with SIGKILL in the middle of a re-index: it comes to its end.

All sixty points: `python -m benchmarks.kills`. Here are a few of each, one after another in one deployment.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.kill_points import POINTS
from tests.faults.killed_world import World

FEW = {
    "trainer": (
        "after the model was published, before the checkpoint",
        "after both were begun, before the first chunk is sent",
        "after the switch of partition 0, before partition 1",
        "in the middle of retiring",
    ),
    "hasher": (
        "between the first and the second put of a chunk",
        "after SETBIT of a chunk, before its job is finished",
        "while a write to two generations is made",
        "while a batch is finished",
    ),
    "server": (
        "while the first items of a chunk are put, and again",
        "while a chunk's job is finished",
        "while partition 0 is switched, and again",
        "as it starts again after a kill",
    ),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", FEW)
def test_whoever_is_killed_what_was_asked_for_comes_to_its_end(victim: str) -> None:
    points = {point.name: point for point in POINTS if point.victim == victim}
    with tempfile.TemporaryDirectory(prefix="sh-") as folder, World(Path(folder)) as world:
        for name in FEW[victim]:
            outcome = world.suffer(points[name])
            assert outcome.reached, name
            assert not outcome.violations, name


def test_there_are_twenty_points_of_each() -> None:
    assert Counter(point.victim for point in POINTS) == {"trainer": 20, "hasher": 20, "server": 20}
    assert len({point.key for point in POINTS}) == 60
