"""demo: its table, and that it leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream_hash.cli import rising
from stream_hash.cli.digits import Digits
from stream_hash.storage.server import EmbeddedServer
from tests.cli.support import Cli, processes
from tests.servers import bundled_binary, running_server, wait_until
from workers.detached import Fleet

pytestmark = pytest.mark.timeout(240)

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def temporary(home: Path, name: str) -> Iterator[Path]:
    """Where the demo makes its directories; none of them may be left."""
    path = home / name
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []
    assert not [process for process in processes() if str(path) in process.command]


def test_demo_shows_how_precision_rises_and_leaves_nothing(
    spawn: Spawn, temporary: Path, home: Path, name: str
) -> None:
    # A server in the environment is not what a demo should write to.
    env = {"TMPDIR": str(temporary), "STREAM_HASH_URL": "redis://elsewhere.invalid"}
    picture = home / f"{name}.svg"
    process = spawn("demo", "--plot", picture, env=env)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    title, columns, *course, speed, queries, header, _, _, _, exact, verdict = out.splitlines()
    assert title == "10 nearest by radius 1, while labels stream in:"
    assert columns.split() == ["items", "generation", "precision@10", "untrained", "exact", "training"]
    portions = [199, 399, 598, 798, 798, 998, 1197, 1197, 1397, 1597, 1597]
    assert [int(row.split()[0]) for row in course] == portions
    assert any(row.endswith("◀ generation 2 goes live, learned from 655 items") for row in course)
    assert all(bar.count("│") == 1 for bar in course)
    assert speed.startswith("1597 items through the queue and 2 workers in ")
    assert speed.endswith(" items/s")
    assert queries.startswith("200 queries, held out, generation ")
    assert header.split() == ["plan", "precision@10", "found", "candidates", "probes", "p50", "ms"]
    assert exact.split()[0] == "exact"
    drawn = picture.read_text(encoding="utf-8")
    for words in ("the live index", "without learning", "exact search", "generation 2"):
        assert words in drawn
    assert verdict.startswith("verify: 1597 items in ")
    assert verdict.endswith(" 0 violations")


def test_demo_in_json_on_a_given_server(invoke: Cli, home: Path, name: str, temporary: Path) -> None:
    directory = home / f"{name}-server"
    directory.mkdir()
    with running_server(bundled_binary(), directory) as url:
        outcome = invoke("demo", "--url", url, "--json", env={"TMPDIR": str(temporary)})
        assert outcome.code == 0
        lines = outcome.lines
        course, (speed, *rows, verdict) = lines[:11], lines[11:]
        for point in course:
            assert list(point) == [
                *("items", "generation", "radius", "precision_at_10"),
                *("untrained_precision_at_10", "exact_precision_at_10", "training"),
            ]
            if point["generation"] == 1:  # measured in the index, and computed
                assert point["precision_at_10"] == pytest.approx(point["untrained_precision_at_10"], abs=1e-3)
        assert course[-1]["generation"] >= 2
        assert course[-1]["precision_at_10"] > 1.5 * course[-1]["untrained_precision_at_10"]
        assert course[-1]["exact_precision_at_10"] == rows[-1]["precision_at_10"]
        assert [point["items"] for point in course if point["training"]] == [798, 1197, 1597]
        assert list(speed) == ["index", "items", "queries", "seconds", "items_per_second"]
        assert (speed["items"], speed["queries"]) == (1597, 200)
        assert [row["radius"] for row in rows] == [0, 1, 2, None]
        assert {row["plan"] for row in rows[:-1]} == {"radius"}
        for row in rows:
            assert list(row) == [
                *("plan", "radius", "precision_at_10", "found", "candidates", "probes", "p50_milliseconds")
            ]
        assert rows[-1]["precision_at_10"] > 0.95
        assert rows[1]["precision_at_10"] == course[-1]["precision_at_10"]
        assert rows[0]["probes"] == 1  # and not widened
        assert rows[-1]["plan"] == "exact"
        assert rows[-1]["candidates"] == 1597
        assert verdict["violations"] == []
        assert outcome.err == f"the index stays on the server: {speed['index']}\n"
        assert invoke("status", speed["index"], "--url", url, "--json").json["items"] == 1597
        assert invoke("status", "--url", url, "--json").json["workers"] == []


def test_demo_keep_leaves_all_running_and_says_how_to_go_on(
    invoke: Cli, home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a few digits, and without training: what the demo shows is the same as above."""
    some, directory = Digits.load(), home / name
    few = Digits(some.ids[:200], some.vectors[:200], some.labels[:200], some.queries[:20], some.wanted[:20])
    monkeypatch.setattr(Digits, "load", lambda: few)
    monkeypatch.setattr(rising, "TRAIN_AFTER", ())
    try:
        outcome = invoke("demo", "--keep", "--data-dir", directory, "--json")
        assert outcome.code == 0
        commands = [line.split()[1:] for line in outcome.err.splitlines() if line.startswith("  stream-hash ")]
        assert [command[0] for command in commands] == ["query", "status", "down"]
        query, status, down = (invoke(*command) for command in commands)
        assert query.code == 0
        assert query.out.startswith("query digit-")
        assert (status.code, down.code) == (0, 0)
        assert down.out == "stopped workers and server\n"
    finally:
        Fleet(directory).stop()
        EmbeddedServer(directory).stop()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_demo_cleans_up_when_it_is_stopped(spawn: Spawn, temporary: Path, number: int, code: int) -> None:
    process = spawn("demo", env={"TMPDIR": str(temporary)})
    wait_until(lambda: list(temporary.glob("sh-demo-*/worker.sock")), what="the workers' supervisor")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err


def test_demo_refuses_a_picture_that_it_cannot_draw_before_it_begins(invoke: Cli) -> None:
    assert invoke("demo", "--plot", "demo.pdf").code == 2


@pytest.mark.parametrize("args", [["--keep", "--url", "redis://x"], ["--data-dir", "x"]])
def test_demo_refuses_options_that_do_not_go_together(invoke: Cli, args: list[str]) -> None:
    outcome = invoke("demo", *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.endswith("  fix: stream-hash demo --keep\n")
