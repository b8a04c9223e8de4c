"""query: what is asked, what is answered, and in which words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.support import Cli

KEYS = ["query", "generation", "probes", "candidates", "reranked", "seconds", "results", "radius", "widened"]

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def questions(vectors: np.ndarray[Any, Any], tmp_path: Path) -> Path:
    path = tmp_path / "questions.npz"
    np.savez(path, X=vectors[:5] + 0.01, ids=np.array(["a", "b", "c", "d", "e"]))
    return path


def nearest(vectors: np.ndarray[Any, Any], query: np.ndarray[Any, Any], k: int) -> list[str]:
    """The ids of the k nearest by cosine, by plain numpy."""
    scores = vectors @ query / np.linalg.norm(vectors, axis=1)
    return [f"item-{row}" for row in np.argsort(-scores, kind="stable")[:k]]


def test_each_query_is_answered_on_a_line_with_exactly_these_keys(cli: Cli, index: str, questions: Path) -> None:
    outcome = cli("query", index, "--vectors", questions, "-k", 3, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert [answer["query"] for answer in outcome.lines] == ["a", "b", "c", "d", "e"]
    for answer in outcome.lines:
        assert list(answer) == KEYS
        assert answer["generation"] == 1
        assert answer["radius"] is None
        assert [list(result) for result in answer["results"]] == [["id", "score", "label"]] * 3
        assert answer["candidates"] == 300
        assert answer["reranked"] == 200


def test_exact_answers_are_those_of_plain_numpy(
    cli: Cli, index: str, questions: Path, vectors: np.ndarray[Any, Any]
) -> None:
    answers = cli("query", index, "--vectors", questions, "--exact", "--json").lines
    for row, answer in enumerate(answers):
        assert [result["id"] for result in answer["results"]] == nearest(vectors, vectors[row] + 0.01, 10)
        assert (answer["radius"], answer["widened"], answer["candidates"]) == (None, False, 300)


def test_a_radius_of_all_bits_answers_as_exact_does(cli: Cli, index: str, questions: Path) -> None:
    def results(*plan: object) -> list[Any]:
        return [answer["results"] for answer in cli("query", index, "--vectors", questions, *plan, "--json").lines]

    assert results("--radius", 10) == results("--exact")
    assert results("--budget", 1_000, "--fetch", 0) == results("--exact")


def test_rows_without_ids_are_called_by_their_number(cli: Cli, index: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((3, 8)))
    answers = cli("query", index, "--vectors", tmp_path / "rows.npy", "--limit", 2, "--json").lines
    assert [answer["query"] for answer in answers] == ["0", "1"]


def test_an_item_is_its_own_nearest_and_its_id_names_the_query(cli: Cli, index: str) -> None:
    answer = cli("query", index, "--id", "item-13", "-k", 2, "--json").json
    assert answer["query"] == "item-13"
    assert answer["results"][0] == {"id": "item-13", "score": pytest.approx(1.0), "label": 3}


def test_metadata_is_in_a_result_that_has_some(cli: Cli, name: str) -> None:
    cli("create", name, "--dim", 2)
    line = {"id": "a", "vector": [1, 2], "label": ["x", 3], "metadata": {"page": 7}}
    cli("ingest", name, "-", "--wait", stdin=json.dumps(line).encode())
    (result,) = cli("query", name, "--id", "a", "--json").json["results"]
    assert result == {"id": "a", "score": pytest.approx(1.0), "label": ["x", 3], "metadata": {"page": 7}}


def test_only_items_that_match_are_answers_and_the_answer_says_how_they_were_found(
    cli: Cli, index: str, questions: Path, vectors: np.ndarray[Any, Any]
) -> None:
    outcome = cli("query", index, "--vectors", questions, "--label", 3, "-k", 4, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    of_class = [f"item-{row}" for row in range(300) if row % 10 == 3]
    for row, answer in enumerate(outcome.lines):
        assert list(answer) == [*KEYS, "matched", "scanned"]
        ranked = [item for item in nearest(vectors, vectors[row] + 0.01, 300) if item in of_class]
        assert [result["id"] for result in answer["results"]] == ranked[:4]
        assert {result["label"] for result in answer["results"]} == {3}
        assert answer["matched"] == 30
    (exact, *_) = cli("query", index, "--vectors", questions, "--label", 3, "--exact", "-k", 40, "--json").lines
    assert (len(exact["results"]), exact["scanned"], exact["reranked"]) == (30, 300, 30)
    assert cli("query", index, "--id", "item-0", "--label", "nothing", "--json").json["results"] == []


def test_metadata_are_compared_as_text_and_as_json_and_all_conditions_hold(cli: Cli, name: str) -> None:
    cli("create", name, "--dim", 2)
    items: list[dict[str, Any]] = [
        {"id": "a", "label": ["x", 3], "metadata": {"page": 7, "colour": "red"}},
        {"id": "b", "label": "x", "metadata": {"page": "7", "colour": "red"}},
        {"id": "c", "label": 3, "metadata": {"page": 7.0, "colour": "blue"}},
        {"id": "d"},
    ]
    text = "\n".join(json.dumps({**item, "vector": [1, row + 1]}) for row, item in enumerate(items))
    cli("ingest", name, "-", "--wait", stdin=text.encode())

    def found(*wanted: str) -> str:
        answer = cli("query", name, "--id", "d", *wanted, "--json").json
        return "".join(sorted(result["id"] for result in answer["results"]))

    assert found("--where", "page=7") == "abc"
    assert found("--where", 'page="7"') == "b"
    assert found("--where", "page=7", "--where", "colour=red") == "ab"
    assert found("--where", "colour=red", "--label", "3") == "a"
    assert found("--label", "x", "--label", "3") == "a"
    assert found("--where", "colour=green") == ""
    explained = cli("query", name, "--id", "d", "--where", "page=7", "--explain").out
    assert "matched          3\n" in explained
    assert "scanned          " in explained


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "red"], ["'red'", "it has no =", "write it as KEY=VALUE"]),
        (["--where", "=red"], ["'=red'", "no key stands before the ="]),
        (["--where", "k" * 300 + "=1"], ["300 bytes", "256", "shorten it"]),
        (["--where", "a=" + "x" * 9_000], ["'xxx", "8192"]),
        (["--label", "x" * 2_000], ["'xxx", "1024"]),
        (["--where", "a=1"] * 17, ["17 conditions", "16"]),
    ],
)
def test_a_malformed_filter_is_refused_before_any_server_is_asked(
    cli: Cli, options: list[str], said: list[str]
) -> None:
    outcome = cli("query", "no-such-index", "--id", "a", *options, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    for part in [*said, "  fix: "]:
        assert part in outcome.err


def test_a_radius_that_holds_too_little_is_widened_and_the_answer_says_so(cli: Cli, index: str) -> None:
    answer = cli("query", index, "--id", "item-0", "-k", 200, "--radius", 0, "--json").json
    assert answer["widened"] is True
    assert answer["radius"] > 0
    assert len(answer["results"]) == 200
    text = cli("query", index, "--id", "item-0", "-k", 200, "--radius", 0).out
    assert text.startswith(f"query item-0 (radius widened to {answer['radius']})\n")


def test_explain_adds_codes_buckets_and_the_time_of_each_stage(cli: Cli, index: str) -> None:
    answer = cli("query", index, "--id", "item-0", "--radius", 2, "--explain", "--json").json
    assert list(answer) == [*KEYS, "codes", "buckets", "tuned", "stages"]
    (code,) = answer["codes"]
    assert 0 <= code < 2**10
    assert answer["buckets"] == cli("status", index, "--json").json["buckets"]
    assert list(answer["stages"]) == ["plan", "gather", "prune", "fetch", "rank", "results"]
    text = cli("query", index, "--id", "item-0", "--radius", 2, "--explain").out
    for said in (
        "generation       1\n",
        f"code of table 0  {code:010b}\n",
        "probes           56\n",
        f"buckets          {answer['buckets']} not empty\n",
        f"candidates       {answer['candidates']}\n",
        "gather  ",
    ):
        assert said in text


def test_people_get_a_table_a_query(cli: Cli, index: str) -> None:
    lines = cli("query", index, "--id", "item-13", "-k", 2).out.splitlines()
    assert lines[0] == "query item-13"
    assert lines[1].split() == ["rank", "id", "score", "label"]
    assert lines[2].split() == ["1", "item-13", "1.000000", "3"]
    assert lines[4] == ""


def test_what_is_stored_cannot_steer_a_terminal(cli: Cli, name: str) -> None:
    cli("create", name, "--dim", 2)
    line = json.dumps({"id": "a\x1b[2J", "vector": [1, 2], "label": "[red]\r\n"})
    cli("ingest", name, "-", "--wait", stdin=line.encode())
    text = cli("query", name, "--id", "a\x1b[2J").out
    assert "\x1b" not in text
    assert "a\\x1b[2J" in text
    assert "[red]\\r\\n" in text


def test_an_index_without_items_answers_with_none(cli: Cli, name: str) -> None:
    cli("create", name, "--dim", 2)
    answer = cli("query", name, "-", "--json", stdin=b'{"vector": [1, 2]}').json
    assert (answer["generation"], answer["results"]) == (0, [])
    assert cli("query", name, "-", "--exact", "--json", stdin=b'{"vector": [1, 2]}').json["results"] == []


def test_queries_on_stdin_are_answered_as_they_come(spawn: Spawn, index: str, working: Path) -> None:
    process = spawn("query", index, "-", "-k", 1, "--json", env={"STREAM_HASH_DATA_DIR": str(working)})
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(3):
        process.stdin.write(json.dumps({"id": f"q{number}", "vector": [1.0] * 8}) + "\n")
        process.stdin.flush()
        # stdin is still open: without flushing on both sides this would wait for ever
        assert json.loads(process.stdout.readline())["query"] == f"q{number}"
    process.stdin.close()
    assert process.wait(10) == 0


def test_a_query_that_cannot_be_ranked_does_not_take_those_before_it_along(cli: Cli, index: str) -> None:
    lines = [json.dumps({"id": f"q{number}", "vector": [1.0] * 8}) for number in range(3)]
    lines += [json.dumps({"id": "zero", "vector": [0.0] * 8}), lines[0]]
    outcome = cli("query", index, "-", "--json", stdin="\n".join(lines).encode())
    assert outcome.code == 2
    assert [json.loads(line)["query"] for line in outcome.out.splitlines()] == ["q0", "q1", "q2"]
    assert "query 'zero' cannot be answered" in outcome.err


def test_many_queries_are_answered_in_order_and_as_each_alone(
    cli: Cli, index: str, vectors: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    np.save(tmp_path / "many.npy", vectors[:150])
    answers = cli("query", index, "--vectors", tmp_path / "many.npy", "--json", "--fetch", 0).lines
    assert [answer["query"] for answer in answers] == [str(row) for row in range(150)]
    for row in (0, 70, 149):
        assert [result["id"] for result in answers[row]["results"]] == nearest(vectors, vectors[row], 10)


def test_fetch_bounds_what_is_ranked(cli: Cli, index: str, questions: Path) -> None:
    def ranked(*plan: object) -> list[int]:
        lines = cli("query", index, "--vectors", questions, "--limit", 1, *plan, "--json").lines
        return [answer["reranked"] for answer in lines]

    assert ranked("--fetch", 20) == [20]
    assert ranked("--fetch", 0) == [300]
    assert ranked("--radius", 10) == [300]


@pytest.mark.parametrize(
    ("args", "stdin", "code", "message"),
    [
        (["--id", "nobody"], None, 1, "has no item 'nobody'"),
        (["-"], b'{"vector": [1, 2, 3]}', 1, "its vector has 3 coordinates and 8 are wanted"),
        (["-"], b'{"vector": [1, 2, 3, 4, 5, 6, 7, Infinity]}', 1, "line 1 of standard input is no query"),
        (["-"], b'{"id": "z", "vector": [0, 0, 0, 0, 0, 0, 0, 0]}', 2, "query 'z' cannot be answered"),
        (["-", "--radius", "1", "--exact"], b'{"vector": [1, 1, 1, 1, 1, 1, 1, 1]}', 2, "more than one of radius"),
        (["--vectors", "missing.npy"], None, 1, "missing.npy does not exist"),
    ],
)
def test_what_cannot_be_answered(
    cli: Cli, index: str, args: list[str], stdin: bytes | None, code: int, message: str
) -> None:
    outcome = cli("query", index, *args, "--json", stdin=stdin)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err
    assert "  fix: " in outcome.err
