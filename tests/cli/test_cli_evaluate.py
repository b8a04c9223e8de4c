"""evaluate: its rows on every face, over an index as in memory, and what it says when it cannot go on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import scipy.io

from stream_hash.cli import curves
from tests.cli.support import DIMENSION, Cli
from tests.servers import bundled_binary, running_server

FACTS = ["file", "dimension", "classes", "queries", "training", "database", "k", "splits"]
ROW = [
    *("method", "bits", "plan", "radius", "budget"),
    *("precision_at_k", "semantic_accuracy", "recall_at_k", "mean_average_precision", "candidates", "milliseconds"),
    *("precision_at_k_standard_error", "semantic_accuracy_standard_error", "recall_at_k_standard_error"),
    "mean_average_precision_standard_error",
]
SMALL = ("--queries", 60, "--train", 80, "--methods", "lsh", "--bits", 8, "--radius", "0,2", "--budget", 20)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz of 500 vectors in ten clusters that overlap, (500, 8) float32, with their clusters as labels."""
    random = np.random.default_rng(3)
    y = np.arange(500) % 10
    x = random.normal(size=(10, DIMENSION))[y] + 0.7 * random.normal(size=(500, DIMENSION))
    path = tmp_path_factory.mktemp("evaluate") / "clusters.npz"
    np.savez(path, X=x.astype(np.float32), y=y)
    return path


def figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what differs from run to run."""
    return [{name: value for name, value in row.items() if name != "milliseconds"} for row in rows]


def test_json_is_a_line_of_facts_and_a_line_for_each_plan(invoke: Cli, labelled: Path) -> None:
    outcome = invoke("evaluate", labelled, *SMALL, "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    facts, *rows = outcome.lines
    assert list(facts) == [*FACTS, "standard_errors_over", "index"]
    assert [facts[name] for name in FACTS] == [str(labelled), DIMENSION, 10, 60, 80, 360, 10, 1]
    assert (facts["standard_errors_over"], facts["index"]) == ("queries", False)
    assert all(list(row) == ROW for row in rows)
    assert [[row[name] for name in ROW[:5]] for row in rows] == [
        ["exact", None, "exact", None, None],
        ["lsh", 8, "radius", 0, None],
        ["lsh", 8, "radius", 2, None],
        ["lsh", 8, "budget", None, 20],
        ["lsh", 8, "ranking", None, None],
    ]
    exact, narrow, wide, budget, ranking = rows
    assert (exact["recall_at_k"], exact["candidates"], exact["mean_average_precision"]) == (1.0, 360.0, None)
    assert 0 < narrow["precision_at_k"] < wide["precision_at_k"] <= exact["precision_at_k"] + 0.05
    assert narrow["candidates"] < wide["candidates"]
    assert budget["candidates"] >= 20
    assert ranking["precision_at_k"] is None
    assert 0.1 < ranking["mean_average_precision"] < 1
    assert all(row["milliseconds"] > 0 for row in rows[:-1])
    assert 0 < exact["precision_at_k_standard_error"] < 0.1


def test_the_same_seeds_give_the_same_figures_and_more_seeds_their_spread(invoke: Cli, labelled: Path) -> None:
    once, again = (invoke("evaluate", labelled, *SMALL, "--json").lines for _ in range(2))
    assert figures(once) == figures(again)
    facts, *rows = invoke("evaluate", labelled, *SMALL, "--seeds", 2, "--json").lines
    assert (facts["splits"], facts["standard_errors_over"]) == (2, "splits")
    assert [row["plan"] for row in rows] == [row["plan"] for row in once[1:]]
    assert rows[1]["precision_at_k"] != once[2]["precision_at_k"]


def test_the_table_names_the_data_and_the_columns(invoke: Cli, labelled: Path) -> None:
    outcome = invoke("evaluate", labelled, *SMALL, "-k", 5, "--seeds", 2)
    assert outcome.code == 0
    title, header, *rows = outcome.out.splitlines()
    assert title == (
        f"{labelled}: 360 items of 8 coordinates in memory, 10 classes; 80 training items, 60 queries, mean of 2 splits"
    )
    assert header.split() == ["method", "bits", "plan", "P@5", "1st", "recall@5", "mAP", "±", "candidates", "ms"]
    assert [row.split()[:3] for row in rows] == [
        ["exact", "-", "exact"],
        *(["lsh", "8", plan] for plan in ("radius", "radius", "budget", "ranking")),
    ]


def test_every_method_is_compared_by_default(invoke: Cli, labelled: Path) -> None:
    outcome = invoke("evaluate", labelled, "--queries", 60, "--train", 200, "--radius", "1..2", "--json")
    assert outcome.code == 0
    rows = outcome.lines[1:]
    assert list(dict.fromkeys(row["method"] for row in rows)) == ["exact", "lsh", "itq", "tutorial", "grh"]
    ranking = {row["method"]: row["mean_average_precision"] for row in rows if row["plan"] == "ranking"}
    assert ranking["lsh"] < ranking["grh"]
    assert [row["radius"] for row in rows if (row["method"], row["plan"]) == ("itq", "radius")] == [1, 2]


def test_csv_holds_the_rows_of_json(invoke: Cli, labelled: Path, tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    outcome = invoke("evaluate", labelled, *SMALL, "--json", "--csv", target)
    with target.open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert written == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in outcome.lines[1:]
    ]


def test_a_plot_is_drawn_as_png_or_svg(invoke: Cli, labelled: Path, tmp_path: Path) -> None:
    for name, start in (("curves.png", b"\x89PNG"), ("curves.svg", b"<?xml")):
        target = tmp_path / name
        outcome = invoke("evaluate", labelled, *SMALL, "--bits", "4,8", "--plot", target)
        assert (outcome.code, outcome.err) == (0, "")
        assert target.read_bytes().startswith(start)
    drawn = target.read_text(encoding="utf-8")
    for text in ("Hamming radius", "mean query time, ms", "precision@10", "lsh, 4 bits", "lsh, 8 bits", "exact search"):
        assert text in drawn


def test_a_plot_without_matplotlib_is_refused_before_anything_is_read(
    invoke: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves.importlib.util, "find_spec", lambda *_: None)
    outcome = invoke("evaluate", tmp_path / "missing.npz", "--plot", tmp_path / "curves.png")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "Error: --plot needs matplotlib",
        "  why: it is an extra, and not installed",
        "  fix: pip install 'stream-hash[plot]'",
    ]


# ---- over an index


def test_an_index_finds_what_is_found_in_memory(invoke: Cli, labelled: Path, home: Path, name: str) -> None:
    directory = home / name
    directory.mkdir()
    methods = ("--methods", "lsh,itq,tutorial")
    memory = invoke("evaluate", labelled, *SMALL, *methods, "--json").lines
    outcome = invoke("evaluate", labelled, *SMALL, *methods, "--index", "--json", env={"TMPDIR": str(directory)})
    assert outcome.code == 0
    facts, *rows = outcome.lines
    assert facts == memory[0] | {"index": True}
    wanted = [row for row in memory[1:] if row["plan"] != "ranking"]
    assert [[row[key] for key in ROW[:5]] for row in rows] == [[row[key] for key in ROW[:5]] for row in wanted]
    assert [row["candidates"] for row in rows] == [row["candidates"] for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        # An index ranks by the cosine of the vectors as they are, not about their mean.
        assert row["precision_at_k"] == pytest.approx(other["precision_at_k"], abs=0.1)
    assert list(directory.iterdir()) == []


def test_a_server_of_one_s_own_is_left_as_it_was(invoke: Cli, labelled: Path, home: Path, name: str) -> None:
    directory = home / name
    directory.mkdir()
    with running_server(bundled_binary(), directory) as url, redis.Redis.from_url(url) as client:
        client.set("own", 1)
        assert invoke("evaluate", labelled, *SMALL, "--index", "--url", url).code == 0
        left = [key.decode() for key in client.scan_iter()]
        assert [key for key in left if ":receipt:" not in key] == ["own"]
        assert all(client.ttl(key) > 0 for key in left if ":receipt:" in key)


def test_a_method_with_a_feature_map_is_refused_by_an_index(invoke: Cli, labelled: Path, home: Path) -> None:
    outcome = invoke("evaluate", labelled, "--methods", "grh", "--queries", 60, "--train", 200, "--index")
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.splitlines()[0] == "Error: grh with 16 bits cannot be put into an index"


# ---- what is read


def test_the_mat_of_the_tutorial_and_jsonl_with_several_labels_are_read(invoke: Cli, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    y = np.arange(300) % 3
    x = (random.normal(size=(3, 4))[y] + 0.3 * random.normal(size=(300, 4))).astype(np.float32)
    matlab, lines = tmp_path / "gist.mat", tmp_path / "items.jsonl"
    scipy.io.savemat(matlab, {"X": x, "X_class": y[None].astype(np.uint8)})
    objects = [{"id": f"i{row}", "vector": x[row].tolist(), "label": [int(y[row]), "any"]} for row in range(300)]
    lines.write_text("".join(json.dumps(value) + "\n" for value in objects))
    first, exact, *_ = invoke("evaluate", matlab, *SMALL, "--json").lines
    assert (first["classes"], first["database"]) == (3, 160)
    assert exact["precision_at_k"] > 0.8
    several = invoke("evaluate", lines, *SMALL, "--json").lines
    assert several[0]["classes"] == 4
    assert several[1]["precision_at_k"] == 1.0
    assert invoke("evaluate", "-", *SMALL, "--json", stdin=lines.read_bytes()).lines[0]["file"] == "standard input"


def test_the_tutorial_s_split_is_the_default_and_few_queries_are_remarked_on(invoke: Cli, labelled: Path) -> None:
    outcome = invoke("evaluate", labelled, "--methods", "lsh", "--radius", 1, "--json")
    assert [outcome.lines[0][name] for name in ("queries", "training", "database")] == [1, 10, 489]
    assert outcome.err == "fewer than 100 queries tell little: 1; take more with --queries\n"


def test_rows_without_use_are_left_out_and_counted(invoke: Cli, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    objects: list[dict[str, Any]] = [
        {"id": str(row), "vector": random.normal(size=3).tolist(), "label": row % 2} for row in range(200)
    ]
    objects += [{"id": "none", "vector": [1, 2, 3]}, {"id": "zero", "vector": [0, 0, 0], "label": 1}]
    objects += [{"id": "short", "vector": [1, 2], "label": 1}]
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in objects))
    outcome = invoke("evaluate", path, *SMALL, "--json")
    assert outcome.code == 3
    assert outcome.lines[0]["database"] == 60
    rejected, unlabelled = outcome.err.splitlines()
    assert rejected.startswith("rows left out: 2; the first: line 203: its vector has 2 coordinates")
    assert unlabelled == "items left out because they have no label: 1"


def test_a_file_without_labels_is_refused(invoke: Cli, tmp_path: Path) -> None:
    path = tmp_path / "bare.npy"
    np.save(path, np.ones((20, 3), dtype=np.float32))
    outcome = invoke("evaluate", path)
    assert outcome.code == 2
    assert f"Error: {path} holds no labelled item" in outcome.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--methods", "lsh,magic"], "'magic' is not one of lsh, itq, tutorial, grh"),
        (["--bits", "8..x"], "'8..x' is neither a whole number nor a range such as 0..10"),
        (["--bits", "0"], "'0' is not in the range 1 to 64"),
        (["--radius", "4..2"], "'4..2' is not in the range"),
        (["--url", "redis://elsewhere.invalid"], "--url goes with --index"),
        (["--bits", "64", "--index"], "an index has at most 62"),
        (["--plot", "curves.pdf"], "the name must end in .png or .svg"),
        (["--csv", "nowhere/rows.csv"], "there is no directory nowhere"),
        (["--queries", "400", "--train", "100"], "there are 500 labelled items"),
    ],
)
def test_bad_usage_ends_with_2_before_anything_is_measured(
    invoke: Cli, labelled: Path, args: list[str], message: str
) -> None:
    outcome = invoke("evaluate", labelled, *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
