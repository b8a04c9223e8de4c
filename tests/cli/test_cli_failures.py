"""Failures: the exit code, the three lines on stderr, and nothing on stdout."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.cli.support import Cli, Outcome
from tests.servers import bundled_binary, running_server, wait_until

Spawn = Callable[..., subprocess.Popen[str]]

EVERY = [
    ["create", "a", "--dim", "8"],
    ["ingest", "a", "-"],
    ["query", "a", "--id", "b"],
    ["get", "a", "b"],
    ["delete", "a", "b"],
    ["label", "a", "b", "c"],
    ["status"],
    ["status", "a"],
    ["verify", "a"],
    ["doctor"],
    ["dead", "list", "a"],
    ["dead", "retry", "a", "1"],
    ["drop", "a", "--yes"],
    ["worker"],
]
"""Each command that needs a server."""


@pytest.fixture
def url(home: Path, name: str) -> Iterator[str]:
    """A server of this test's own."""
    directory = home / name
    directory.mkdir()
    with running_server(bundled_binary(), directory) as found:
        yield found


def three_lines(outcome: Outcome) -> tuple[str, str, str]:
    """What failed, why, and what mends it."""
    what, why, fix = outcome.err.splitlines()
    assert what.startswith("Error: ")
    assert why.startswith("  why: ")
    assert fix.startswith("  fix: ")
    return what[7:], why[7:], fix[7:]


@pytest.mark.parametrize("args", EVERY, ids=" ".join)
def test_without_a_server_each_command_ends_with_4_and_says_up(invoke: Cli, args: list[str], home: Path) -> None:
    outcome = invoke(*args)
    assert (outcome.code, outcome.out) == (4, "")
    what, _, fix = three_lines(outcome)
    assert what == f"no server runs in {home / 'idle'}"
    assert fix == "stream-hash up"


def test_without_a_server_the_remedy_names_the_directory_that_was_given(invoke: Cli, tmp_path: Path) -> None:
    directory = tmp_path / "with space"
    outcome = invoke("status", "--data-dir", directory)
    assert outcome.code == 4
    assert three_lines(outcome)[2] == f"stream-hash up --data-dir '{directory}'"


def test_an_id_without_a_utf_8_form_is_a_usage_error(cli: Cli, index: str) -> None:
    for args in (["get", index, "\udcff"], ["query", index, "--id", "\udcff"], ["delete", index, "\udcff"]):
        outcome = cli(*args)
        assert (outcome.code, outcome.out) == (2, "")
        assert "has no UTF-8 form" in three_lines(outcome)[1]


@pytest.mark.parametrize("args", [["status", "--json"], ["demo"], ["worker"]], ids=lambda args: args[0])
def test_a_server_that_is_away_ends_with_4(invoke: Cli, args: list[str], tmp_path: Path) -> None:
    outcome = invoke(*args, "--url", f"unix://{tmp_path}/nobody.sock")
    assert (outcome.code, outcome.out) == (4, "")
    assert three_lines(outcome)[0].startswith("no server answers at unix://")


def test_a_broker_that_is_away_ends_with_4(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("status", "--broker-url", f"unix://{tmp_path}/nobody.sock")
    assert outcome.code == 4
    assert three_lines(outcome)[0] == f"no server answers at unix://{tmp_path}/nobody.sock"


def test_a_wrong_password_ends_with_4_and_no_password_is_shown(invoke: Cli, url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "right")
    for wrong in ("unix://:hunter2@", "unix://user:hunter2@", "unix://"):
        outcome = invoke("status", env={"STREAM_HASH_URL": url.replace("unix://", wrong)})
        assert (outcome.code, outcome.out) == (4, "")
        assert "hunter2" not in outcome.err
        assert three_lines(outcome)[0].endswith(" refuses the user or password")
    outcome = invoke("status", "--url", url.replace("unix://", "unix://:right@"))
    assert outcome.code == 0
    assert "right" not in outcome.out + outcome.err
    assert "everybody on this machine can read the password in --url; set STREAM_HASH_URL instead" in outcome.err
    unsaid = {"STREAM_HASH_URL": url.replace("unix://", "unix://:right@")}
    outcome = invoke("status", "--broker-url", unsaid["STREAM_HASH_URL"], env=unsaid)
    assert "the password in --broker-url; set STREAM_HASH_BROKER_URL instead" in outcome.err
    assert (outcome.code, outcome.err.count("Warning")) == (0, 1)
    assert invoke("status", env=unsaid).err == ""


def test_a_server_that_evicts_is_refused_with_1_and_the_command_that_mends_it(invoke: Cli, url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    outcome = invoke("create", "a", "--dim", 8, "--url", url)
    assert (outcome.code, outcome.out) == (1, "")
    what, _, fix = three_lines(outcome)
    assert "evicts keys: its maxmemory-policy is allkeys-lru" in what
    assert fix == "redis-cli CONFIG SET maxmemory-policy noeviction"


def test_a_read_only_replica_is_refused_with_1_and_its_primary_named(invoke: Cli, url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.replicaof("primary.invalid", 6399)
    outcome = invoke("status", "--url", url)
    assert (outcome.code, outcome.out) == (1, "")
    what, _, fix = three_lines(outcome)
    assert what.endswith("is a read-only replica")
    assert fix == "use its primary: primary.invalid:6399"


def test_a_server_out_of_memory_ends_with_1_and_nothing_accepted_is_lost(invoke: Cli, url: str) -> None:
    assert invoke("create", "a", "--dim", 2, "--url", url).code == 0
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", 1)
        outcome = invoke("ingest", "a", "-", "--timeout", 0.1, "--url", url, stdin=b'{"vector": [1, 2]}')
        assert (outcome.code, outcome.out) == (1, "")
        assert three_lines(outcome)[2] == "raise maxmemory, or delete items"
        client.config_set("maxmemory", 0)
    assert invoke("status", "a", "--json", "--url", url).json["accepted"] == 0


def test_an_error_of_the_server_s_own_is_told_without_a_traceback(invoke: Cli, url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.lpush("sh:indexes", "not a set")
    outcome = invoke("status", "--url", url)
    assert (outcome.code, outcome.out) == (1, "")
    assert "WRONGTYPE" in three_lines(outcome)[1]


@pytest.mark.parametrize(
    "url", ["nonsense", "valkey://host", "redis://host:port", "redis://host:99999", "redis://localhost?unknown=1"]
)
def test_what_is_no_url_is_a_usage_error(invoke: Cli, url: str) -> None:
    outcome = invoke("status", "--url", url)
    assert (outcome.code, outcome.out) == (2, "")
    assert three_lines(outcome)[0] == f"the URL {url} cannot be used"


def test_a_piece_of_a_password_is_not_shown_either(invoke: Cli) -> None:
    outcome = invoke("status", "--url", "redis://user:hun/ter2@host:6379")
    assert outcome.code == 2
    assert "hun" not in outcome.err
    assert "ter2" not in outcome.err


def test_a_data_directory_and_a_url_are_not_both_taken(invoke: Cli, url: str, tmp_path: Path) -> None:
    outcome = invoke("status", "--data-dir", tmp_path, env={"REDIS_URL": url})
    assert outcome.code == 2
    what, _, fix = three_lines(outcome)
    assert what == "--data-dir is given, but REDIS_URL names a server"
    assert fix == "leave out --data-dir, or REDIS_URL"


def test_a_configuration_file_that_cannot_be_read_is_a_usage_error(invoke: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("url = 3")
    outcome = invoke("status", env={"STREAM_HASH_CONFIG": str(tmp_path / "config.toml")})
    assert (outcome.code, outcome.out) == (2, "")
    assert "sets 'url' to 3" in three_lines(outcome)[0]


def test_ctrl_c_ends_with_130_and_tells_what_was_accepted(spawn: Spawn, cli: Cli, name: str, working: Path) -> None:
    cli("create", name, "--dim", 2)
    env = {"STREAM_HASH_DATA_DIR": str(working)}
    process = spawn("ingest", name, "-", "--batch-items", 1, env=env)
    assert process.stdin is not None
    process.stdin.write(json.dumps({"id": "a", "vector": [1, 2]}) + "\n")
    process.stdin.flush()
    wait_until(lambda: cli("status", name, "--json").json["accepted"] == 1, what="the item to be accepted")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "")
    assert err == "1 items had been accepted by then\n\n"


def test_a_reader_that_goes_away_ends_a_query_quietly(spawn: Spawn, index: str, working: Path) -> None:
    process = spawn("query", index, "-", "--json", env={"STREAM_HASH_DATA_DIR": str(working)})
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    question = json.dumps({"vector": [1.0] * 8}) + "\n"
    process.stdin.write(question)
    process.stdin.flush()
    assert process.stdout.readline().startswith('{"query"')
    process.stdout.close()
    process.stdin.write(question)
    process.stdin.flush()
    assert process.wait(10) == 1
    assert process.stderr.read() == ""


def test_standard_output_and_error_are_kept_apart(spawn: Spawn, index: str, working: Path) -> None:
    process = spawn("get", index, "item-0", "lost", env={"STREAM_HASH_DATA_DIR": str(working)})
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["item-0"]
    assert err.startswith("Error: ")
