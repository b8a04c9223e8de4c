"""train, generations, rollback, reindex, and what status says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_hash.numerics.model import lsh_model
from stream_hash.service.asking import trainers
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.lease import leading
from stream_hash.settings import IndexSettings
from stream_hash.storage.server import EmbeddedServer
from tests.cli.support import Cli
from tests.servers import wait_until
from workers.detached import Fleet

RUN = ["id", "started", "seconds", "learner", "parent", "generation", "trained", "held_out", "classes", "decision"]
CLASSES = 8
DIMENSION = 32


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """An npz of 1,500 labelled vectors in overlapping clusters, (1500, 32) float32."""
    random = np.random.default_rng(3)
    y = np.arange(1_500) % CLASSES
    x = random.normal(size=(CLASSES, DIMENSION))[y] + 1.5 * random.normal(size=(len(y), DIMENSION))
    path = tmp_path / "many.npz"
    np.savez(path, X=x.astype(np.float32), y=y)
    return path


@pytest.fixture
def labelled(cli: Cli, name: str, many: Path) -> str:
    """An index that holds them."""
    assert cli("create", name, "--dim", DIMENSION, "--bits", 12).code == 0
    assert cli("ingest", name, many, "--wait").code == 0
    return name


def handle_of(directory: Path, name: str) -> IndexHandle:
    return IndexHandle(Connections.open(EmbeddedServer(directory).url).client, name)


def begin(handle: IndexHandle) -> int:
    """Publish another generation and begin to build it, as a trainer does that dies then."""
    settings = IndexSettings(DIMENSION, bits=12, seed=5)
    with leading(handle) as lease:
        arrays = lsh_model(settings, np.eye(DIMENSION, dtype=np.float32)).to_arrays()
        generation = handle.trainer.publish(lease.token, arrays, kind="lsh", created=1.0, parent=1).generation
        handle.generations.begin(0, generation, lease.token)
    return generation


def test_train_learns_re_indexes_and_says_what_it_gained(cli: Cli, labelled: str) -> None:
    outcome = cli("train", labelled, "--json")
    assert outcome.code == 0, outcome.err
    run = outcome.json
    assert next(iter(run)) == "index"
    assert set(RUN) < set(run)
    assert (run["decision"], run["parent"], run["generation"]) == ("live", 1, 2)
    assert run["figures"]["challenger_precision"] > run["figures"]["live_precision"]
    status = cli("status", labelled, "--json").json
    assert (status["generation"], status["building"], status["retiring"]) == (2, [], [])
    assert status["training"]["decision"] == "live"
    assert status["labels_since"] == 0
    assert f"live: {run['reason']}" in cli("status", labelled).out
    assert cli("verify", labelled).code == 0
    assert cli("query", labelled, "--id", "7", "--json").json["generation"] == 2


def test_train_without_labels_goes_the_same_way(cli: Cli, name: str, many: Path) -> None:
    assert cli("create", name, "--dim", DIMENSION, "--bits", 12).code == 0
    assert cli("ingest", name, many, "--no-labels", "--wait").code == 0
    dry = cli("train", name, "--unlabelled", "--dry-run", "--json").json
    assert (dry["decision"], dry["learner"]) == ("dry run", "itq")
    run = cli("train", name, "--unlabelled", "--force", "--window", 1_000, "--json").json
    assert (run["learner"], run["generation"]) == ("itq", 2)
    assert run["figures"]["challenger_recall"] > run["figures"]["live_recall"]
    assert cli("status", name, "--json").json["generation"] == 2
    rows = cli("generations", name, "--json").lines
    assert [(row["kind"], row["state"]) for row in rows] == [("lsh", "kept"), ("itq", "live")]
    assert rows[1]["run"]["reason"] in cli("generations", name).out
    both = cli("train", name, "--unlabelled", "--learner", "svm")
    assert both.code == 2
    assert "--learner is for labels" in both.err


def test_what_the_gate_refuses_is_no_failure_and_is_kept_with_its_reason(cli: Cli, labelled: str) -> None:
    assert cli("train", labelled).code == 0
    refused = cli("train", labelled, "--learner", "svm")
    assert refused.code == 0
    assert refused.out.startswith("refused: ")
    rows = cli("generations", labelled, "--json").lines
    assert [(row["generation"], row["state"]) for row in rows] == [(1, "kept"), (2, "live"), (None, "refused")]
    assert [row["kind"] for row in rows] == ["lsh", "grh-pa", "svm"]
    assert (rows[1]["parent"], rows[1]["run"]["decision"]) == (1, "live")
    assert rows[2]["run"]["figures"]["challenger_precision"] > 0
    text = cli("generations", labelled).out
    assert rows[2]["run"]["reason"] in text
    assert text.splitlines()[0].split()[:4] == ["generation", "kind", "created", "state"]


def test_a_dry_run_changes_nothing(cli: Cli, labelled: str) -> None:
    run = cli("train", labelled, "--dry-run", "--json").json
    assert (run["decision"], run["generation"]) == ("dry run", None)
    assert len(cli("generations", labelled, "--json").lines) == 1
    assert cli("train", labelled, "--dry-run").out.startswith("dry run: would go live: ")


def test_force_lets_a_model_go_live_that_gains_nothing(cli: Cli, labelled: str) -> None:
    cli("train", labelled)
    run = cli("train", labelled, "--learner", "svm", "--force", "--json").json
    assert (run["decision"], run["generation"]) == ("forced", 3)
    assert cli("status", labelled, "--json").json["generation"] == 3


def test_too_few_labels_are_told_and_no_failure(cli: Cli, index: str) -> None:
    outcome = cli("train", index, "--window", 50)
    assert outcome.code == 0
    assert outcome.out.startswith("skipped: ")


def test_rollback_brings_an_earlier_model_back_under_a_new_number(cli: Cli, labelled: str) -> None:
    cli("train", labelled)
    outcome = cli("rollback", labelled, 1)
    assert (outcome.code, outcome.out) == (0, "generation 3, the model of 1, is live\n")
    rows = cli("generations", labelled, "--json").lines
    assert [row["state"] for row in rows] == ["kept", "kept", "live"]
    assert (rows[2]["origin"], rows[2]["sha256"]) == (1, rows[0]["sha256"])
    assert "model of 1" in cli("generations", labelled).out
    assert cli("verify", labelled).code == 0


def test_rollback_to_what_is_not_kept_names_what_is(cli: Cli, labelled: str) -> None:
    outcome = cli("rollback", labelled, 9)
    assert outcome.code == 1
    what, why, fix = outcome.err.splitlines()
    assert what == f"Error: generation 9 of index {labelled!r} is not kept"
    assert why == "  why: those that are: 1"
    assert fix == f"  fix: stream-hash generations {labelled}"


def test_rollback_gives_up_what_is_being_built(cli: Cli, labelled: str, working: Path) -> None:
    handle = handle_of(working, labelled)
    assert begin(handle) == 2
    assert cli("rollback", labelled, 1, "--json").json == {
        **{"index": labelled, "generation": 3, "origin": 1, "live": True}
    }
    assert [row["state"] for row in cli("generations", labelled, "--json").lines] == ["kept", "kept", "live"]
    assert cli("verify", labelled).code == 0


def test_reindex_goes_on_with_what_was_interrupted(cli: Cli, labelled: str, working: Path) -> None:
    assert cli("reindex", labelled, "--resume").out == "nothing is unfinished\n"
    begin(handle_of(working, labelled))
    status = cli("status", labelled, "--json").json
    assert status["building"] == [2]
    assert status["reindex"] == {"generation": 2, "done": 0, "items": 1_500, "rate": None}
    assert "generation 2: 0 of 1500 items" in cli("status", labelled).out
    told = cli("reindex", labelled, "--resume", "--no-wait")
    assert told.out == "generation 2 is to go live\n"
    assert told.err == "no trainer is running; start one: stream-hash trainer\n"
    done = cli("reindex", labelled, "--resume", "--throttle", 0.5, "--json")
    assert done.json == {"index": labelled, "generation": 2, "live": True}
    assert cli("verify", labelled).code == 0


def test_reindex_without_workers_is_done_by_the_command_itself(idle: Cli, name: str, many: Path, serving: Path) -> None:
    assert idle("create", name, "--dim", DIMENSION, "--bits", 12, "--sample", many).code == 0
    begin(handle_of(serving, name))
    assert idle("reindex", name, "--resume").out == "generation 2 is live\n"
    assert idle("verify", name).code == 0


def test_who_is_at_work_is_named_when_the_wait_is_over(cli: Cli, labelled: str, working: Path) -> None:
    with leading(handle_of(working, labelled)):
        outcome = cli("train", labelled, "--timeout", 0)
        status = cli("status", labelled, "--json").json
    assert outcome.code == 1
    what, why, fix = outcome.err.splitlines()
    assert what == f"Error: index {labelled!r} has another trainer: {status['trainer']['holder']}"
    assert "its lease runs for" in why
    assert f"stream-hash status {labelled}" in fix
    assert cli("train", labelled, "--dry-run").code == 0  # the lease is free again


@pytest.fixture
def trained(invoke: Cli, home: Path, name: str) -> Any:
    """Commands for a data directory of its own, whose fleet has a trainer too."""
    directory = home / f"{name}-t"

    def run(*args: object, **others: Any) -> Any:
        outcome = invoke(*args, env={"STREAM_HASH_DATA_DIR": str(directory)}, **others)
        assert outcome.code == 0, outcome.err
        return outcome

    yield run
    Fleet(directory).stop()
    EmbeddedServer(directory).stop()


def test_with_up_a_trainer_learns_by_itself_and_does_what_it_is_asked(trained: Any, name: str, many: Path) -> None:
    up = trained("up", "--workers", 1, "--json").json
    connections = Connections.open(up["url"])
    assert len(trainers(connections)) == 1
    trained("create", name, "--dim", DIMENSION, "--bits", 12)
    trained("ingest", name, many, "--wait")
    wait_until(
        lambda: trained("status", name, "--json").json["generation"] == 2,
        what="the trainer to learn from 1,500 labels",
        timeout_seconds=60,
    )
    run = trained("train", name, "--learner", "svm", "--dry-run", "--json").json
    assert (run["learner"], run["decision"], run["asked"]) == ("svm", "dry run", "asked for")
    asked = trained("train", name, "--learner", "ridge", "--force", "--no-wait", "--json").json
    assert list(asked) == ["index", "request"]
    wait_until(
        lambda: trained("status", name, "--json").json["generation"] == 3,
        what="what was asked for to be live",
        timeout_seconds=60,
    )
    trained("verify", name)
    assert trained("down", "--json").json == {"server": True, "workers": True}
