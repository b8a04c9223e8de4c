"""up, down, worker: who starts what, who ends it, and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_hash.environment import Environment
from stream_hash.errors import StreamHashError
from stream_hash.service.asking import trainers
from stream_hash.service.connections import Connections
from stream_hash.service.status import hash_workers
from stream_hash.storage.server import EmbeddedServer
from tests.cli.support import Cli, children_of, is_gone, processes
from tests.servers import bundled_binary, running_server, wait_until
from workers.detached import Fleet

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def directory(home: Path, name: str) -> Iterator[Path]:
    """A data directory of this test's own; whatever runs in it is ended."""
    path = home / name
    yield path
    Fleet(path).stop()
    EmbeddedServer(path).stop()


def workers_at_work(url: str) -> int:
    return len(hash_workers(Connections.open(url)))


def test_up_starts_a_server_and_workers_and_down_ends_both(invoke: Cli, directory: Path) -> None:
    started = invoke("up", "--data-dir", directory, "--json")
    assert started.code == 0
    assert list(started.json) == ["url", "pid", "engine", "version", "directory", "workers", "trainers", "supervisor"]
    assert (started.json["workers"], started.json["trainers"]) == (2, 1)
    assert started.json["directory"] == str(directory)
    assert len(children_of(started.json["supervisor"])) == 3
    found = invoke("status", "--data-dir", directory, "--json").json
    assert (len(found["workers"]), len(found["trainers"])) == (2, 1)
    assert found["indexes"] == []

    stopped = invoke("down", "--data-dir", directory, "--json")
    assert (stopped.code, stopped.json) == (0, {"server": True, "workers": True})
    assert is_gone(started.json["pid"])
    assert is_gone(started.json["supervisor"])
    again = invoke("down", "--data-dir", directory)
    assert (again.code, again.out) == (0, f"nothing runs in {directory}\n")


def test_what_was_accepted_survives_down_and_up(invoke: Cli, directory: Path) -> None:
    def run(*args: object, **others: Any) -> Any:
        outcome = invoke(*args, "--data-dir", directory, **others)
        assert outcome.code == 0, outcome.err
        return outcome

    run("up", "--workers", 0)
    run("create", "a", "--dim", 2)
    run("ingest", "a", "-", stdin=b'{"id": "x", "vector": [1, 2]}')
    assert run("down", "--json").json == {"server": True, "workers": False}
    assert run("up", "--workers", 1, "--json").json["workers"] == 1
    wait_until(lambda: run("status", "a", "--json").json["items"] == 1, what="the item to be hashed")
    run("verify", "a")


def test_eight_that_race_start_one_server_and_one_fleet(spawn: Spawn, directory: Path) -> None:
    racing = [spawn("up", "--data-dir", directory, "--workers", 2, "--no-trainer", "--json") for _ in range(8)]
    outcomes = [process.communicate(timeout=60) for process in racing]
    assert [process.returncode for process in racing] == [0] * 8, outcomes
    assert len({out for out, _ in outcomes}) == 1
    supervisor = json.loads(outcomes[0][0])["supervisor"]
    assert len(children_of(supervisor)) == 2
    mine = [process.pid for process in processes() if f"workers.detached {directory}" in process.command]
    assert mine == [supervisor]


def test_a_trainer_that_is_killed_is_started_again_and_down_ends_it(invoke: Cli, directory: Path) -> None:
    up = invoke("up", "--data-dir", directory, "--workers", 1, "--json").json
    connections = Connections.open(up["url"])
    (trainer,) = trainers(connections)
    os.kill(trainer.pid, signal.SIGKILL)
    wait_until(lambda: {other.pid for other in trainers(connections)} - {trainer.pid}, what="another trainer")
    (pid,) = {other.pid for other in trainers(connections)} - {trainer.pid}
    invoke("down", "--data-dir", directory)
    assert is_gone(pid)


def test_up_again_leaves_what_runs_and_says_when_another_number_was_asked_for(invoke: Cli, directory: Path) -> None:
    first = invoke("up", "--data-dir", directory, "--workers", 1, "--json").json
    assert invoke("up", "--data-dir", directory, "--json").json == first
    other = invoke("up", "--data-dir", directory, "--workers", 3, "--json")
    assert (other.code, other.json) == (0, first)
    where = f"--data-dir {directory}"
    told = f"1 workers run already; to have 3: stream-hash down {where} && stream-hash up {where} --workers 3\n"
    assert other.err == told


def test_up_starts_what_is_missing(invoke: Cli, directory: Path) -> None:
    first = invoke("up", "--data-dir", directory, "--workers", 1, "--no-trainer", "--json").json
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: is_gone(first["pid"]), what="the killed server to go")
    second = invoke("up", "--data-dir", directory, "--json").json
    assert second["pid"] != first["pid"]
    assert second["supervisor"] == first["supervisor"]

    (worker,) = children_of(second["supervisor"])  # and no trainer: what runs is left as it is
    os.kill(second["supervisor"], signal.SIGKILL)
    wait_until(lambda: is_gone(worker), what="the worker to leave with its supervisor")
    third = invoke("up", "--data-dir", directory, "--workers", 1, "--json").json
    assert third["pid"] == second["pid"]
    assert third["supervisor"] != second["supervisor"]


@pytest.mark.parametrize("variable", ["STREAM_HASH_URL", "REDIS_URL"])
def test_up_is_a_usage_error_when_a_server_is_configured(invoke: Cli, directory: Path, variable: str) -> None:
    for args in (["up"], ["demo", "--keep"]):
        outcome = invoke(*args, env={variable: "redis://elsewhere", "STREAM_HASH_DATA_DIR": str(directory)})
        assert (outcome.code, outcome.out) == (2, "")
        what, _, fix = outcome.err.splitlines()
        assert what == f"Error: a server is configured by {variable}"
        assert "stream-hash worker" in fix
    assert not directory.exists()


@pytest.mark.parametrize("option", ["--url", "--broker-url"])
@pytest.mark.parametrize("url", ["redis://:hunter2@host:1", "redis://host:1?PassWord=hunter2"])
@pytest.mark.parametrize("command", ["worker", "trainer"])
def test_a_worker_is_not_given_a_password_that_everybody_can_read(
    invoke: Cli, command: str, option: str, url: str
) -> None:
    outcome = invoke(command, option, url)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: a URL on the command line holds a password")
    assert f"set STREAM_HASH_{option[2:].upper().replace('-', '_')} instead" in outcome.err
    assert "hunter2" not in outcome.err


def test_workers_that_cannot_start_are_told_with_the_end_of_their_log(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    fleet = Fleet(directory)
    fleet.start(1, f"unix://{directory}/nobody.sock")
    with (
        running_server(bundled_binary(), directory) as url,
        pytest.raises(Exception, match="not at work after") as told,
    ):
        fleet.wait_until_working(Connections.open(url).broker, 1, timeout_seconds=2)
    assert "its log ends with:" in told.value.why
    fleet.stop()


@pytest.mark.parametrize("command", ["worker", "trainer"])
def test_workers_of_a_server_that_is_not_there_are_not_started(invoke: Cli, command: str, tmp_path: Path) -> None:
    outcome = invoke(command, "--processes", 2, "--url", f"unix://{tmp_path}/nobody.sock")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.startswith("Error: no server answers at unix://")


def test_up_with_a_broker_that_is_not_there_starts_nothing(invoke: Cli, directory: Path, tmp_path: Path) -> None:
    outcome = invoke("up", "--data-dir", directory, "--broker-url", f"unix://{tmp_path}/nobody.sock")
    assert (outcome.code, outcome.out) == (4, "")
    assert not directory.exists()


def test_a_fleet_that_gives_up_is_told_at_once_with_its_last_words(
    invoke: Cli, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("up", "--data-dir", directory, "--workers", 0)
    monkeypatch.setenv("STREAM_HASH_LOG_LEVEL", "loud")  # read by the fleet alone, and refused
    fleet = Fleet(directory)
    with pytest.raises(StreamHashError, match=r"ended as soon as it was started|given up") as told:
        fleet.start(1, EmbeddedServer(directory).url)
        fleet.wait_until_working(Connections.open(EmbeddedServer(directory).url).broker, 1)
    assert "STREAM_HASH_LOG_LEVEL is 'loud'" in told.value.why


def test_a_foreign_workers_package_is_not_run(spawn: Spawn, directory: Path, tmp_path: Path) -> None:
    EmbeddedServer(directory).start()
    for place in (directory, tmp_path):  # where the supervisor works, and where the user stands
        (place / "workers").mkdir()
        (place / "workers" / "__init__.py").write_text("raise SystemExit('foreign code was run')")
    code = "import sys; sys.path.remove(''); from stream_hash.cli import main; main()"
    up = spawn("up", "--workers", 1, "--data-dir", directory, command=[sys.executable, "-c", code])
    _, err = up.communicate(timeout=60)
    assert up.returncode == 0, err


@pytest.mark.parametrize("count", [1, 2])
def test_worker_runs_in_the_foreground_until_it_is_told_to_stop(
    spawn: Spawn, home: Path, name: str, count: int
) -> None:
    directory = home / name
    directory.mkdir()
    with running_server(bundled_binary(), directory) as url:
        secret = url.replace("unix://", "unix://:hunter2@")
        with Connections.open(url).client as client:
            client.config_set("requirepass", "hunter2")
        (directory / "secret").write_text("hunter2\n")
        in_file = {"STREAM_HASH_URL": url, "STREAM_HASH_PASSWORD_FILE": str(directory / "secret")}
        process = spawn("worker", "--processes", count, env=in_file if count > 1 else {"STREAM_HASH_URL": secret})
        wait_until(lambda: workers_at_work(secret) == count, what="the workers to be at work")
        assert len(children_of(process.pid)) == (count if count > 1 else 0)
        assert not [other.command for other in processes() if "hunter2" in other.command]
        process.terminate()
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "")
        assert "hunter2" not in err
        assert workers_at_work(secret) == 0


def test_a_worker_of_a_data_directory_finds_its_server(spawn: Spawn, invoke: Cli, directory: Path) -> None:
    invoke("up", "--workers", 0, "--data-dir", directory)
    process = spawn("worker", "--data-dir", directory)
    connections = Connections.of(Environment(None, None, directory))
    wait_until(lambda: len(hash_workers(connections)) == 1, what="the worker to be at work")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
