"""The comparison with peers and the growth benchmark run and say what they should, without any peer installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.dataset import gist_like
from benchmarks.peers import child
from benchmarks.peers.against_loop import check_same
from benchmarks.peers.catalogue import CATALOGUE, HNSWLIB, LSHRS, OURS, Entry
from benchmarks.peers.figures import Row, rows_of
from benchmarks.peers.pictures import draw, pareto
from benchmarks.peers.targets import targets
from benchmarks.peers.task import K, Limits, Task, best, prepared
from benchmarks.peers.tutorial_loop import TutorialLoop
from benchmarks.scale import bits_for
from benchmarks.scale_data import Clusters
from stream_hash.numerics.model import lsh_model
from stream_hash.service.answer import Answer, Result
from stream_hash.settings import IndexSettings

ROOT = Path(__file__).parents[2]


def run(name: str, path: Path, *options: str) -> tuple[dict[str, Any], str]:
    """The JSON object and the tables of a benchmark."""
    output = path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(output), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text()), done.stderr


def small_task(items: int = 400) -> Task:
    vectors, _ = gist_like(np.random.default_rng(1), items + 60)
    return prepared(vectors[:items], vectors[items : items + 50], vectors[items + 50 :], Limits())


def row(peer: str, recall: float, **figures: Any) -> Row:
    plain = Row(peer, "b", "s", recall, 0.3, 1.0, 2.0, 3.0, {"1": 1_000.0}, 5_000.0, 4_000.0, 0.0, 300.0, 10)
    return replace(plain, **figures)


def test_ours_and_the_loop_are_compared_and_who_is_absent_is_said_to_be(tmp_path: Path) -> None:
    names = (OURS, "NearPy", "tutorial's loop", "exact numpy")
    options = [option for name in names for option in ("--peer", name)]
    small = ("--items", "500", "--queries", "4", "--seconds", "0.05", "--processes", "1")
    picture = tmp_path / "peers.svg"
    result, tables = run("peers", tmp_path, *options, *small, "--nearpy-python", "no/python", "--plot", str(picture))
    assert (result["items"], result["queries"], list(result["peers"])) == (500, 4, list(names))
    assert result["machine"]["server"]
    assert "no/python" in result["peers"]["NearPy"]["absent"]
    assert "| NearPy          | absent" in tables
    rows = {(row["peer"], row["build"], row["setting"]): row for row in result["rows"]}
    assert rows["exact numpy", "all items", ""]["recall"] == 1
    loop = rows["tutorial's loop", "16 bits", "radius 8"]
    ours = rows[OURS, "LSH, 16 bits", "radius 8"]
    assert ours["recall"] == pytest.approx(loop["recall"])
    assert {build for peer, build, _ in rows if peer == OURS} == {"LSH, 16 bits", "ITQ, 16 bits", "ITQ, 14 bits"}
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] for row in rows.values())
    assert all(row["rates"]["1"] > 0 for row in rows.values())
    against = [target for target in result["targets"] if "tutorial's loop" in target["what"]]
    assert [target["aim"] for target in against] == [20, None, 200, None]
    assert all(target["value"] > 0 for target in against)
    assert "in each of 4 queries" in against[0]["at"]
    assert picture.read_text().startswith("<?xml")


def test_scale_gives_latency_memory_and_reindex_for_each_size(tmp_path: Path) -> None:
    options = ("--size", "700", "--size", "300", "--queries", "4", "--budget", "60", "--workers", "1")
    result, tables = run("scale", tmp_path, *options)
    assert [row["items"] for row in result["rows"]] == [300, 700]
    for row in result["rows"]:
        assert row["reindex_seconds"] > 0
        assert row["bytes_per_item"] > 0
        for plan in ("lsh", "itq"):
            assert row[plan]["mean_candidates"] >= 60
            assert 0 < row[plan]["recall_at_10"] <= 1
    assert result["growth"].keys() == {"lsh", "itq"}
    assert "| p50 at 700, of that at 300, LSH" in tables


def test_a_peer_that_is_not_installed_is_absent_with_the_reason(tmp_path: Path) -> None:
    small_task().save(tmp_path)
    output = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.peers.child", "NearPy", str(tmp_path), str(output), "unix:///none"]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 0
    absent = json.loads(output.read_text())
    assert absent["absent"].startswith("ModuleNotFoundError: No module named 'nearpy'")
    assert rows_of("NearPy", absent, *(np.empty((0, K), dtype=np.int64) for _ in range(3))) == []


def test_a_process_that_fails_ends_the_measurement() -> None:
    code = "from benchmarks.peers.timing import forked; forked(2, lambda number: (lambda: 1 // number))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "a process of the benchmark failed: ZeroDivisionError" in done.stderr


def test_the_task_is_centred_saved_and_its_truth_is_exact(tmp_path: Path) -> None:
    task = small_task()
    task.save(tmp_path)
    again = Task.load(tmp_path)
    assert np.array_equal(again.items, task.items)
    assert again.limits == task.limits
    assert np.allclose(np.linalg.norm(task.items, axis=1), 1, atol=1e-6)
    assert np.abs(task.items.mean(axis=0)).max() < 0.1
    everything = np.arange(len(task.items))
    for query, true in zip(task.queries, task.truth, strict=True):
        found = best(task.items, query, everything)
        assert set(found) == set(true.tolist()) == set(np.argsort(-(task.items @ query))[:K].tolist())
        assert found == sorted(found, key=lambda one: -float(task.items[one] @ query))


def test_the_loop_finds_the_whole_ball_and_ranks_it() -> None:
    task = small_task()
    model = lsh_model(IndexSettings(task.items.shape[1]), task.training)
    loop = TutorialLoop(model, task.items)
    codes = model.encode(task.items).codes[:, 0]
    for query in task.queries:
        distances = np.bitwise_count(codes ^ model.encode(query[None, :]).codes[0, 0])
        for radius in (0, 2, 4):
            ball = np.flatnonzero(distances <= radius)
            assert loop.candidates(query, radius) == set(ball.tolist())
            assert loop.query(query, radius) == best(task.items, query, ball) == loop.query_as_printed(query, radius)


def test_other_candidates_than_the_loops_are_noticed() -> None:
    task = small_task()
    query = task.queries[0]
    rows = best(task.items, query, np.arange(len(task.items)))
    results = [Result(f"item-{one:011d}", float(task.items[one] @ query), None, None) for one in rows]
    check_same(task.items, query, set(rows), Answer(results, candidates=K))
    with pytest.raises(AssertionError, match="candidates, the loop has"):
        check_same(task.items, query, set(rows), Answer(results, candidates=K + 1))
    with pytest.raises(AssertionError, match="the loop does not have"):
        check_same(task.items, query, {*rows[1:], 399}, Answer(results, candidates=K))
    with pytest.raises(AssertionError, match="only the loop has"):
        check_same(task.items, query, set(rows), Answer(results[:-1], candidates=K))


def test_lshrs_is_taken_at_its_fastest_of_half_recall_and_ours_at_no_less_recall() -> None:
    rows = [
        row(OURS, 0.55, rates={"1": 9_000.0}),
        row(OURS, 0.92, rates={"1": 600.0}, p50=2.0),
        row(LSHRS, 0.4, rates={"1": 800.0}),
        row(LSHRS, 0.6, rates={"1": 40.0}, ingest=1_000.0, index_bytes=1_200.0),
        row(LSHRS, 0.7, rates={"1": 30.0}, ingest=2_500.0, index_bytes=600.0),
        row(HNSWLIB, 0.95, p50=0.1),
    ]
    found = {target.what: target for target in targets(rows, {})}
    assert found["queries/s, of LSHRS's"].value == 15
    assert found["queries/s, of LSHRS's"].met
    assert (found["ingest, of LSHRS's"].value, found["ingest, of LSHRS's fastest to fill"].value) == (5, 2)
    assert (found["bytes an item, of LSHRS's"].value, found["bytes an item, of LSHRS's smallest"].value) == (0.25, 0.5)
    assert found["p50, of hnswlib's, at recall@10 ≥ 0.9"].value == pytest.approx(20)
    assert found["times faster than the tutorial's loop, radius 2"].value is None
    (first, *_) = targets(rows[:3], {})
    assert (first.value, first.met) == (None, None)
    assert "no setting" in first.at


def test_the_front_holds_what_no_other_setting_beats(tmp_path: Path) -> None:
    rows = [row(OURS, recall, p50=p50) for recall, p50 in ((0.9, 3.0), (0.5, 1.0), (0.4, 2.0), (0.95, 9.0), (0.5, 1.5))]
    assert [(one.recall, one.p50) for one in pareto(rows, lambda one: one.p50)] == [(0.5, 1.0), (0.9, 3.0), (0.95, 9.0)]
    draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_module_of_ours_that_is_missing_is_a_fault_and_no_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in CATALOGUE.values():
        assert (ROOT / "benchmarks" / "peers" / f"{entry.module}.py").is_file()
    monkeypatch.setitem(CATALOGUE, "nobody", Entry("nobody"))
    with pytest.raises(ModuleNotFoundError, match=r"benchmarks\.peers\.nobody"):
        child.run("nobody", Path(), "")


def test_items_are_the_same_however_many_are_drawn_and_bits_follow_their_number() -> None:
    assert np.array_equal(Clusters().chunk(3)[:20], Clusters().chunk(3, 20))
    assert not np.array_equal(Clusters().chunk(3, 20), Clusters().queries(20))
    assert [bits_for(count) for count in (1, 60_000, 250_000, 1_000_000)] == [1, 12, 14, 16]
