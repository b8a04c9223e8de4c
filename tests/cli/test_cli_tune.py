"""tune: the curve, the choice, and what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.cli.support import DIMENSION, Cli

ROW = [
    *("budget", "fetch", "recall", "recall_error", "precision", "precision_error"),
    *("candidates", "probes", "reranked", "p50", "p95", "timed"),
]


def test_json_is_a_line_of_facts_a_line_a_setting_and_the_choice(cli: Cli, index: str) -> None:
    outcome = cli("tune", index, "--target-recall", 0.5, "--queries", 20, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    facts, *rows, choice = outcome.lines
    assert list(facts) == [
        *("index", "generation", "items", "k", "queries", "labelled", "truth_items", "truth_k", "truth_whole"),
        "memory",
    ]
    assert (facts["index"], facts["items"], facts["queries"], facts["labelled"]) == (index, 300, 20, 20)
    assert (facts["truth_items"], facts["truth_whole"]) == (300, True)
    assert facts["memory"]["vector_bytes"] == 4 * DIMENSION
    assert facts["memory"]["bytes_an_item"] > 4 * DIMENSION
    assert all(list(row) == ROW for row in rows)
    assert list(choice) == [
        *("measure", "target", "chosen", "saved", "predicted_seconds", "prediction_error", "exact_seconds")
    ]
    assert choice["chosen"] in rows
    assert (choice["measure"], choice["target"], choice["saved"]) == ("recall", 0.5, False)
    assert list(choice["predicted_seconds"]) == ["2", "10"]


def test_people_get_the_curve_with_its_errors_and_the_choice(cli: Cli, index: str) -> None:
    text = cli("tune", index, "--target-recall", 0.5, "--queries", 20).out
    assert text.startswith(
        f"{index}: 300 items, generation 1; 20 of them asked, 20 labelled; truth: exact search of 300"
    )
    header = text.splitlines()[1].split()
    assert header[:6] == ["budget", "fetch", "recall@10", "±", "precision@10", "±"]
    assert sum(line.endswith("chosen") for line in text.splitlines()) == 1
    assert "saved      no: give --save\n" in text
    assert "at 10 times the items" in text
    text = cli("tune", index, "--queries", 20, "--sample", 150).out
    assert "truth: the nearest 5 of 150 items drawn at random, for 10 of all" in text
    assert "chosen" not in text


def test_what_is_saved_answers_queries_and_explain_says_so(cli: Cli, index: str) -> None:
    *_, choice = cli("tune", index, "--target-recall", 0.2, "--queries", 20, "--save", "--json").lines
    assert choice["saved"] is True
    chosen = {name: choice["chosen"][name] for name in ("budget", "fetch")}
    assert chosen["budget"] < 300
    answer = cli("query", index, "--id", "item-3", "--explain", "--json").json
    assert answer["tuned"] == chosen
    assert answer["reranked"] <= chosen["fetch"]
    words = "budget {budget}, fetch {fetch}".format(**chosen)
    assert f"tuned            {words}\n" in cli("query", index, "--id", "item-3", "--explain").out
    assert f"plan             {words}: recall@10 0." in cli("status", index).out
    assert cli("query", index, "--id", "item-3", "--budget", 300, "--explain", "--json").json["tuned"] is None
    assert cli("tune", index, "--reset").out == f"forgot {words}\n"
    assert cli("tune", index, "--reset").out == "nothing was saved\n"
    assert cli("tune", index, "--reset", "--json").json == {"index": index, "forgotten": None}
    assert cli("query", index, "--id", "item-3", "--explain", "--json").json["tuned"] is None
    assert "tuned" not in cli("query", index, "--id", "item-3", "--explain").out


def test_a_target_out_of_reach_ends_with_1_after_the_curve(
    cli: Cli, name: str, vectors: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    index = name
    np.savez(tmp_path / "pairs.npz", vectors=vectors, labels=np.arange(300) // 2)
    assert cli("create", index, "--dim", DIMENSION, "--items", 300).code == 0
    assert cli("ingest", index, tmp_path / "pairs.npz", "--wait").code == 0
    outcome = cli("tune", index, "--target-precision", 1.0, "-k", 29, "--queries", 20, "--save", "--json")
    assert outcome.code == 1
    *_, choice = outcome.lines
    assert (choice["chosen"], choice["saved"], choice["predicted_seconds"]) == (None, False, None)
    what, why, fix = outcome.err.splitlines()
    assert what == "Error: no budget reaches precision@29 1"
    assert why.startswith("  why: the best was 0.")
    assert fix.startswith("  fix: lower the target")
    assert cli("status", index, "--json").json["plan"] is None


def test_what_cannot_be_tuned(cli: Cli, index: str, name: str) -> None:
    outcome = cli("tune", index, "-k", 31)
    assert (outcome.code, outcome.out) == (1, "")
    assert "too few items to tune" in outcome.err
    assert cli("tune", index, "--sample", 10).code == 2
    assert cli("create", name + "e", "--dim", 2).code == 0
    assert "it holds 0" in cli("tune", name + "e").err
    assert cli("tune", "nothing").code == 5
