"""The benchmarks run and say what they should, on sizes too small to measure anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.dataset import gist_like, load_dataset
from benchmarks.report import Spread, table
from benchmarks.round_trips import counted

ROOT = Path(__file__).parents[2]
MACHINE = {"date", "python", "numpy", "redis_py", "cores"}


def run(name: str, path: Path, *options: str) -> tuple[dict[str, Any], str]:
    """The JSON object and the tables of a benchmark."""
    output = path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(output), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return json.loads(output.read_text()), done.stderr


def test_ingest_gives_rates_their_ratio_and_memory(tmp_path: Path) -> None:
    result, tables = run("ingest", tmp_path, "--items", "600", "--repetitions", "2", "--workers", "1")
    assert result["machine"].keys() == MACHINE | {"server"}
    assert (result["items"], result["workers"], result["repetitions"]) == (600, 1, 2)
    assert "random" in result["data"]
    for name in ("producer_to_searchable_items_per_second", "raw_set_and_sadd_items_per_second", "ratio"):
        spread = result[name]
        assert 0 < spread["least"] <= spread["median"] <= spread["greatest"]
    for name in ("memory", "memory_with_labels"):
        kinds = {row["kind"]: row["keys"] for row in result[name]["by_kind"]}
        assert kinds["value:n"] == 600
        assert kinds["records"] == 1
        assert ("labelled" in kinds) == (name == "memory_with_labels")
        assert result[name]["used_memory_bytes_per_item"] > 0
    assert "| ratio (target: at least 0.25)" in tables


def test_query_gives_times_round_trips_and_a_row_for_each_radius(tmp_path: Path) -> None:
    result, tables = run("query", tmp_path, "--items", "600", "--queries", "5", "--workers", "1")
    assert result["machine"].keys() == MACHINE | {"server"}
    assert (result["items"], result["queries"]) == (600, 5)
    assert result["radius_2"]["round_trips"]["greatest"] <= 3
    assert result["radius_2"]["ratio"] > 0
    assert [row["radius"] for row in result["radii"]] == [0, 1, 2, 3, 4]
    assert [row["mean_probes"] for row in result["radii"][:4]] == [1, 17, 137, 697]
    candidates = [row["mean_candidates"] for row in result["radii"]]
    assert candidates == sorted(candidates)
    assert result["exact"]["agreement_with_numpy"] == 1
    assert result["exact"]["recall_at_10"] == 1
    assert "| radius 4" in tables
    for row in result["plans"]:
        assert row["round_trips"] == 3
        assert row["fetched"] <= row["candidates"]
        assert min(row["ratio"], row["ratio_without_records"], *row["milliseconds"].values()) > 0


def test_query_cost_gives_five_ratios(tmp_path: Path) -> None:
    options = ("--items", "600", "--queries", "8", "--repetitions", "1", "--seconds", "0.1")
    result, tables = run("query_cost", tmp_path, *options)
    assert result["machine"].keys() == MACHINE | {"server"}
    assert min(result["bare"]["query"].values()) > 0
    assert result["batches"].keys() == {"default", "fetch 100"}
    assert result["cold"]["ratio"]["median"] > 0
    assert [row["radius"] for row in result["radii"]] == [2, 8]
    assert result["two_processes"]["ratio"]["median"] > 0
    for letter in "abcde":
        assert f"| {letter}: " in tables


def test_filters_are_measured_by_how_rare_their_items_are(tmp_path: Path) -> None:
    result, tables = run("filters", tmp_path, "--items", "600", "--queries", "6")
    assert result["machine"].keys() == MACHINE | {"server"}
    rows = {row["filter"]: row for row in result["filters"]}
    assert rows["none"]["round_trips"] == 3
    assert [rows[f"tag, {share}"]["share"] for share in (0.5, 0.1, 0.01)] == pytest.approx([0.5, 0.1, 0.01], rel=0.7)
    for row in result["filters"]:
        assert row["short"] == 0
        assert row["milliseconds"]["p50"] > 0
        assert row["equal_to_numpy"] == 1 or row["scanning"] < 1
    assert rows["tag, 0.1, exact"]["scanning"] == 1
    assert "| equal to numpy |" in tables


def test_live_loses_nothing_and_answers_every_query_while_generations_replace_each_other(tmp_path: Path) -> None:
    options = ("--items", "3000", "--minutes", "0.1", "--switches", "3", "--verifications", "3", "--clients", "2")
    options += ("--pause", "0.02")  # clients that never rest leave a trainer, which makes way for them, little time
    result, tables = run("live", tmp_path, *options)
    assert result["machine"].keys() == MACHINE | {"server"}
    counts = result["counts"]
    for name in ("failed", "short", "doubled_in_answers", "violations", "violations_at_the_end", "pending"):
        assert counts[name] == 0, result["errors"] + result["violations"]
    for name in ("lost", "doubled", "deleted_and_there", "not_as_sent_last", "dead", "dead_letters"):
        assert counts[name] == 0
    assert counts["accepted"] == counts["applied"] == counts["accepted_by_the_producer"]
    assert set(counts["changes"]) == {"upsert", "delete", "add again"}
    assert counts["queries"] > 0
    assert counts["switches"] == counts["by_gate"] + counts["by_force"] >= 3
    assert counts["verifications"] == 3
    generations = result["generations"]
    assert [row["generation"] for row in generations] == list(range(1, counts["switches"] + 2))
    assert generations[0]["decision"] == "lsh"
    (rest, *_) = result["memory"]["rests"]
    assert set(rest["second_generation"]) == {"bucket:n", "directory", "opened", "places:n", "(table of keys)"}
    assert result["reindex"]["ingest_seconds"] > 0
    assert "| items lost (target: 0)" in tables


def test_startup_gives_both_times_and_their_ratio(tmp_path: Path) -> None:
    result, tables = run("startup", tmp_path, "--repetitions", "1")
    assert result["machine"].keys() == MACHINE
    assert result["ratio"]["median"] == pytest.approx(
        result["help_seconds"]["median"] / result["import_sklearn_seconds"]["median"]
    )
    assert "| ratio (target: at most 0.35)" in tables


def test_without_a_file_the_data_are_random_and_the_same_each_time() -> None:
    one, two = load_dataset(None, 50), load_dataset(None, 50)
    assert (one.items.shape, one.training.shape[1], one.queries.dtype) == ((50, 512), 512, np.float32)
    assert np.array_equal(one.items, two.items)
    assert np.allclose(np.linalg.norm(one.queries, axis=1), 1, atol=1e-5)
    assert not set(map(bytes, one.items)) & set(map(bytes, one.queries))


def test_the_whole_dataset_is_split_as_in_the_tutorial(tmp_path: Path) -> None:
    import scipy.io

    vectors, labels = gist_like(np.random.default_rng(0), 1_000)
    scipy.io.savemat(tmp_path / "small.mat", {"X": 3 * vectors, "X_class": labels[None, :].astype(np.uint8)})
    data = load_dataset(tmp_path / "small.mat")
    assert (len(data.items), len(data.training), len(data.queries)) == (978, 20, 22)
    assert data.source.startswith("small.mat")
    assert np.allclose(np.linalg.norm(data.items, axis=1), 1, atol=1e-5)


def test_a_spread_is_a_median_between_extremes_and_a_table_is_aligned() -> None:
    assert Spread.of([3, 1, 2]).shown(1) == "2.0 (1.0 to 3.0)"
    assert table([("a", "bb"), ("ccc", "d")]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"


def test_round_trips_are_counted_however_many_commands_travel_together(real_client: Any) -> None:
    real_client.ping()
    with counted() as trips:
        real_client.get("a")
        with real_client.pipeline() as pipeline:
            pipeline.get("a")
            pipeline.get("b")
            pipeline.execute()
    assert trips.count == 2
