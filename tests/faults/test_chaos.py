"""Processes of a deployment are killed and stopped at random moments, and nothing is lost, doubled or left undone.

A thousand kills with the leases that are deployed: `python -m benchmarks.chaos kills`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.faults.chaos_world import WEIGHTS, ChaosWorld

KILLS = 25


@pytest.mark.timeout(400)
def test_random_kills_lose_double_and_leave_nothing() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sh-") as folder,
        ChaosWorld(Path(folder), hashers=2, trainers=1, producers=1, short_leases=True, seed=3) as world,
    ):
        world.strike(KILLS, pause_seconds=0.25)
        settled = world.settle()
    assert settled.violations == []
    assert settled.failed_queries == []
    assert sum(settled.kills[victim] for victim in WEIGHTS) == KILLS
    assert settled.queries > 0
    assert settled.batches > 0
