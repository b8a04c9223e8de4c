"""The benchmark of faults gives its tables and JSON, and fails when something is not in order; made small, or with a
deployment that is only said to have been struck.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.chaos import __main__ as chaos
from benchmarks.chaos import bad_items, kills, memory, soak
from tests.faults import index_machine
from tests.faults.chaos_world import Settled


class Deployment:
    """In place of a ChaosWorld: nothing is struck. What seed 1 leaves is not in order; to seed 2 nothing was sent."""

    def __init__(self, folder: Path, *, seed: int, **_: Any) -> None:
        (folder / "fleet.log").write_text("the log\n")
        self._seed = seed

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None: ...

    def strike(self, kills: int, **_: Any) -> None: ...

    def settle(self) -> Settled:
        return Settled(
            *(Counter(hasher=3), Counter(server=1)),
            batches=0 if self._seed == 2 else 7,
            queries=5,
            slowest_seconds=2.5,
            violations=["lost"] * (self._seed == 1),
        )


def run(tmp_path: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    output = tmp_path / "result.json"
    outcome = CliRunner().invoke(chaos.main, [*words, "--json", str(output)])
    return outcome.exit_code, json.loads(output.read_text()), outcome.output


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kills_are_told_by_victim_and_1_is_the_end_when_something_was_lost_or_nothing_done(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "ChaosWorld", Deployment)
    code, result, output = run(tmp_path, "kills", "--kills", "4", "--seed", str(seed))
    assert code == bool(seed)
    assert result["kills"] == {"hasher": 3}
    assert result["in_order"] == (not seed)
    assert ("log" in result) == bool(seed)
    assert "| lost, doubled, half done (target: 0)" in output


def test_a_machine_runs_and_tells_what_it_did_and_too_short_a_run_is_not_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, result, output = run(tmp_path, "machine", "--examples", "2", "--steps", "5")
    assert (code, result["difference"]) == (1, "")
    assert result["done"]["steps"] > 0
    assert set(result["never_done"]) <= set(index_machine.WAYS)
    assert "| differences (target: 0)" in output
    monkeypatch.setattr(index_machine, "run", lambda *_, **__: Counter(index_machine.WAYS))
    code, result, _ = run(tmp_path, "machine")
    assert (code, result["never_done"]) == (0, [])


def test_memory_has_to_run_out_and_a_query_to_be_answered_all_the_same() -> None:
    good = {"violations": [], "half_written": False, "recovered": True, "answered": memory.K, "refused": "OOM"}
    assert memory._in_order([good, {**good, "refused": ""}])
    assert not memory._in_order([{**good, "refused": ""}])
    for wrong in ({"violations": ["x"]}, {"half_written": True}, {"recovered": False}, {"answered": memory.K - 1}):
        assert not memory._in_order([good, {**good, **wrong}]), wrong


def test_each_kind_of_bad_item_is_bad_in_a_batch_and_in_a_line() -> None:
    import io

    import numpy as np

    from stream_hash import formats
    from stream_hash.service.checking import checked_upsert
    from stream_hash.service.ingest import item_faults
    from stream_hash.settings import IndexSettings
    from stream_hash.storage.codec import Batch

    rng, settings = np.random.default_rng(0), IndexSettings(bad_items.DIMENSION)
    for number in range(3 * bad_items.KINDS):
        what, item = bad_items.bad_item(rng, number)
        batch = Batch("upsert", [item.item_id], item.vector[None, :], [item.label], [item.metadata])
        assert item_faults(batch, settings), what
        parts = list(formats.read(io.BytesIO(bad_items.as_line(bad_items.good_item(rng, 0)) + bad_items.as_line(item))))
        refused = sum(isinstance(part, formats.Rejected) for part in parts)
        for part in parts:
            if not isinstance(part, formats.Rejected):
                refused += len(checked_upsert(settings, part.ids, part.vectors, part.labels, part.metadata)[1])
        assert refused == 1, what


def test_a_series_is_flat_when_no_window_that_is_judged_is_far_from_the_mean() -> None:
    whole = {("hasher", 7): 100, ("trainer", 1): 100, ("producer", 2): 100, ("supervisor", 3): 100}
    gone, late = {("hasher", 8): 9_000}, {("trainer", 9): 9_000}

    def spread(**more: Any) -> dict[str, float]:
        """Of a run in which all is flat but the server's resident size, and what is said."""
        looks = [
            soak.Look(
                float(n),
                more.get("items", lambda _: 10)(n),
                1_000 + 500 * (n < 10),
                {
                    **{one: size for one, size in whole.items() if one[0] != more.get("without")},
                    ("server", 4): 100 + 100 * (n > 100),
                    ("hasher", 7): more.get("hasher", lambda _: 100)(n),
                    **(gone if n < 50 else {}),
                    **(late if n >= 20 else {}),
                },
            )
            for n in range(120)
        ]
        series = soak._series(looks, 120.0)
        assert [row["judged"] for row in series] == [False] * 3 + [True] * 9
        return soak._spread(series)

    flat = spread()
    assert flat.keys() == {"items", "data", "hasher 7", "trainer 1", "producer 2", "supervisor 3", "server 4"}
    assert (flat["data"], flat["server 4"] > soak.FLAT, soak._not_flat(flat)) == (0, True, [])
    assert soak._not_flat(spread(hasher=lambda n: 100 + 20 * (n > 100))) == ["hasher 7"]
    assert soak._not_flat(spread(hasher=lambda n: 100 + n / 3)) == ["hasher 7"], "a leak of a third"
    assert soak._not_flat(spread(items=lambda n: 10 + n // 60 * 2)) == ["items"]
    assert soak._not_flat(spread(without="trainer")) == ["trainer"]
    assert soak._not_flat({}) == sorted(soak.JUDGED), "nothing that could be judged is nothing in order"
