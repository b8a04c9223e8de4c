"""acl: the accounts it prints are those of service/roles.py; here is how they are asked for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import redis

from stream_hash.jobs import FUNCTIONS
from stream_hash.queue import HASH_QUEUE, live_workers
from stream_hash.service.context import open_context
from stream_hash.service.roles import ROLES
from tests.cli.support import DIMENSION, Cli, processes
from tests.servers import bundled_binary, running_server
from workers.base import StreamWorker

PASSWORD = "correct-horse-battery-staple"  # noqa: S105 - of nobody
HASH = hashlib.sha256(PASSWORD.encode()).hexdigest()


def test_a_whole_file_lets_nobody_in_by_default(invoke: Cli) -> None:
    outcome = invoke("acl")
    assert outcome.code == 0
    assert [line.split()[:4] for line in outcome.out.splitlines()] == [
        ["user", name, "reset", "off"] for name in ("default", *ROLES)
    ]
    assert "off, for want of a password: default, reader" in outcome.err


def test_passwords_come_from_the_environment_and_are_printed_as_hashes(invoke: Cli, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    variables = {"STREAM_HASH_READER_PASSWORD": PASSWORD, "STREAM_HASH_OWNER_PASSWORD_FILE": str(tmp_path / "secret")}
    outcome = invoke("acl", "reader", "owner", "--index", "photos", "--prefix", "photos-", env=variables)
    assert (outcome.code, outcome.err) == (0, "")
    reader, owner = outcome.out.splitlines()
    assert reader.startswith(f"user photos-reader reset on #{HASH} resetchannels +hello")
    assert owner.startswith(f"user photos-owner reset on #{HASH} ")
    assert "%R~sh:{photos}:*" in reader
    assert PASSWORD not in outcome.out


def test_the_same_may_be_sent_to_a_running_server(invoke: Cli) -> None:
    outcome = invoke("acl", "reader", "--setuser", env={"STREAM_HASH_READER_PASSWORD": PASSWORD})
    assert outcome.out.startswith(f"ACL SETUSER reader reset on #{HASH} ")


def test_what_cannot_be_an_account_is_a_usage_error(invoke: Cli) -> None:
    for args, variables in (
        (("root",), {}),
        (("reader", "--index", "a b"), {}),
        (("reader", "--prefix", "x +@all "), {}),
        (("reader",), {"STREAM_HASH_READER_PASSWORD": "short"}),
    ):
        outcome = invoke("acl", *args, env=variables)
        assert (outcome.code, outcome.out) == (2, "")
        assert "Error: " in outcome.err
        assert "short'" not in outcome.err


@pytest.fixture
def guarded(invoke: Cli, tmp_path: Path, home: Path, name: str) -> Iterator[dict[str, dict[str, str]]]:
    """By role, the variables of a process that has its account on one server."""
    (tmp_path / "secret").write_text(PASSWORD)
    passwords = {f"STREAM_HASH_{role.upper()}_PASSWORD_FILE": str(tmp_path / "secret") for role in ROLES}
    directory = home / name
    directory.mkdir()
    with running_server(bundled_binary(), directory) as url, redis.Redis.from_url(url) as admin:
        for line in invoke("acl", *ROLES, "--setuser", env=passwords).out.splitlines():
            admin.execute_command(*line.split(" "))
        secret = {"STREAM_HASH_PASSWORD_FILE": str(tmp_path / "secret")}
        yield {role: {"STREAM_HASH_URL": url.replace("//", f"//{role}@"), **secret} for role in ROLES}


def test_commands_run_with_the_account_of_their_role_alone(
    invoke: Cli, guarded: dict[str, dict[str, str]], archive: Path
) -> None:
    create = ("create", "a", "--dim", DIMENSION)
    assert invoke(*create, env=guarded["owner"]).code == 0
    assert invoke("ingest", "a", archive, env=guarded["producer"]).code == 0
    with patch.dict(os.environ, guarded["worker"]):
        context = open_context(None, None)
        worker = StreamWorker(HASH_QUEUE, context.broker, functions=FUNCTIONS, context=context, signals=False)
        worker.work(burst=True)
    line = json.dumps({"vector": [1.0] * DIMENSION}).encode()
    answer = invoke("query", "a", "-", "-k", 3, "--json", env=guarded["reader"], stdin=line)
    assert len(answer.json["results"]) == 3
    for command in (("status",), ("status", "a"), ("verify", "a"), ("get", "a", "item-1"), ("generations", "a")):
        assert invoke(*command, env=guarded["reader"]).code == 0, command
    asked = invoke("train", "a", "--no-wait", env=guarded["trainer"])
    assert (asked.code, asked.out[:9]) == (0, "asked for")
    for role, command in (
        ("reader", ("delete", "a", "item-1")),
        ("reader", ("ingest", "a", archive)),
        ("producer", create),
        ("producer", ("query", "a", "--id", "item-1")),
        ("worker", ("rollback", "a", "1")),
    ):
        outcome = invoke(*command, env=guarded[role])
        assert (outcome.code, outcome.out) == (1, ""), command
        assert "does not let this user do that" in outcome.err, command
        assert PASSWORD not in outcome.err


def test_up_shows_the_password_of_its_broker_to_nobody(invoke: Cli, home: Path, name: str) -> None:
    (home / name).mkdir()
    with running_server(bundled_binary(), home / name) as url, redis.Redis.from_url(url) as admin:
        admin.config_set("requirepass", PASSWORD)
        admin.execute_command("AUTH", PASSWORD)
        directory = home / f"{name}-data"
        variables = {
            "STREAM_HASH_BROKER_URL": url.replace("//", f"//:{PASSWORD}@"),
            "STREAM_HASH_DATA_DIR": str(directory),
        }
        shown = []
        try:
            shown.append(invoke("up", "--workers", 2, env=variables))
            shown += [invoke("status", env=variables), invoke("status", "missing", env=variables)]
            assert [outcome.code for outcome in shown] == [0, 0, 5]
            assert len(live_workers(admin, HASH_QUEUE)) == 2
            assert not [process.command for process in processes() if PASSWORD in process.command]
            kept = [admin.hgetall(key) for key in admin.keys("rq:worker:*") if admin.type(key) == b"hash"]
        finally:
            shown.append(invoke("down", env=variables))
        logs = [path.read_text() for path in directory.iterdir() if "log" in path.name]
        assert any("works queue" in text for text in logs)
        for text in (*logs, repr(kept), *(outcome.out + outcome.err for outcome in shown)):
            assert PASSWORD not in text
