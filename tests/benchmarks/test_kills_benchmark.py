"""The benchmark of kills says what became of a point, and fails when a point is not in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import kills
from tests.faults.killed_world import Outcome
from tests.faults.killing import Point


class Deployment:
    """In place of a World: every point is reached, and one of them leaves something undone."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None: ...

    def suffer(self, point: Point) -> Outcome:
        return Outcome(point, reached=True, seconds=1.5, violations=["lost"] * (point.victim == "server"))


@pytest.mark.parametrize(("victim", "code"), [("trainer", 0), ("server", 1)])
def test_a_table_of_points_and_1_when_one_is_not_in_order(
    victim: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "World", Deployment)
    output = tmp_path / "result.json"
    outcome = CliRunner().invoke(kills.main, ["--victim", victim, "--point", "published", "--json", str(output)])
    assert outcome.exit_code == code
    result = json.loads(output.read_text())
    assert {row["victim"] for row in result["points"]} == {victim}
    assert all("published" in row["point"] for row in result["points"])
    assert f"| {victim} " in outcome.output
    assert ("1: lost" in outcome.output) == (code == 1)


def test_a_point_that_does_not_exist_is_refused() -> None:
    assert CliRunner().invoke(kills.main, ["--point", "at tea time"]).exit_code == 2
