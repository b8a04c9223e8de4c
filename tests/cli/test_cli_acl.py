"""acl: the accounts it prints are those of service/roles.py; here is how they are asked for."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import redis

from stream_hash import Producer
from stream_hash.cli import COMMANDS
from stream_hash.environment import read_environment
from stream_hash.jobs import FUNCTIONS
from stream_hash.queue import HASH_QUEUE, live_workers
from stream_hash.service.connections import Connections
from stream_hash.service.context import open_context
from stream_hash.service.roles import ROLES
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.imports import Imports
from tests.cli.support import DIMENSION, ROOT, Cli, Outcome, processes
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


def of_the_page() -> dict[str, set[str]]:
    """By role, what docs/security.md says that it runs."""
    rows = re.findall(r"^\| (\w+) +\| (`.*?) +\|", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE)
    return {role: set(re.findall(r"`(.*?)`", runs)) for role, runs in rows}


PROCESSES = {"worker", "trainer", "Producer"}
"""Run with their accounts in tests/service/test_roles.py."""


@dataclass
class Deployment:
    """An index from its creation to its end, each step with the account of its role, or all with one."""

    invoke: Cli
    guarded: dict[str, dict[str, str]]
    archive: Path
    role: str = ""
    done: set[str] = field(default_factory=set)

    def run(self, role: str, *args: object, code: int = 0, **others: Any) -> Outcome:
        outcome = self.invoke(*args, env=self.variables(role), **others)
        assert outcome.code == code, (args, outcome)
        named = [command for command in of_the_page()[role] if set(command.split()) <= set(map(str, args))]
        self.done.add(max(named, key=len))
        return outcome

    def variables(self, role: str) -> dict[str, str]:
        return self.guarded[self.role or role]

    def work(self) -> None:
        with patch.dict(os.environ, self.variables("worker")):
            context = open_context(None, None)
        worker = StreamWorker(HASH_QUEUE, context.broker, functions=FUNCTIONS, context=context, signals=False)
        worker.work(burst=True)

    def live(self, directory: Path) -> None:
        run, exported = self.run, directory / f"exported-{self.role}"
        run("owner", "create", "a", "--dim", DIMENSION, "--bits", 6)
        run("producer", "ingest", "a", self.archive)
        with patch.dict(os.environ, self.variables("producer")), Producer("a") as producer:
            producer.submit(Batch("upsert", ["bad"], np.full((1, DIMENSION), np.nan, np.float32)))
        self.work()
        line = json.dumps({"vector": [1.0] * DIMENSION}).encode()
        assert len(run("reader", "query", "a", "-", "-k", 3, "--json", stdin=line).json["results"]) == 3
        run("owner", "label", "a", "item-1", "7")
        run("owner", "delete", "a", "item-2")
        for command in (("status",), ("status", "a"), ("verify", "a"), ("get", "a", "item-1"), ("generations", "a")):
            run("reader", *command)
        run("reader", "tune", "a", "--queries", 10)
        assert "stream_hash_up 1.0" in run("reader", "metrics", "--once").out
        run("reader", "export", "a", exported)
        (letter,) = run("reader", "dead", "list", "a", "--json").lines
        run("reader", "dead", "show", "a", letter["first"])
        run("owner", "dead", "retry", "a", letter["first"])
        self.work()
        run("owner", "dead", "drop", "a", "--all", "--yes")
        run("trainer", "train", "a", "--learner", "ridge", "--force")
        run("trainer", "rollback", "a", 1)
        run("trainer", "reindex", "a", "--resume")
        run("trainer", "tune", "a", "--queries", 10, "--target-recall", 0.1, "--save")
        for said in run("reader", "doctor", "--verify").out.splitlines():
            assert "not permitted" not in said or "(CONFIG GET)" in said
        for kind in ("worker", "trainer"):
            assert "none is alive" in run(kind, "doctor", "--here", kind, code=1).out
        run("owner", "import", exported, "b")
        connections = Connections.of(read_environment(variables=self.variables("owner")))
        settings = IndexSettings(DIMENSION)
        assert Imports(connections.client, "c").begin("0" * 64, settings, sequence=0, now=0.0) is not None
        run("owner", "import", "--abandon", "c")
        for name in ("a", "b"):
            run("owner", "drop", name, "--yes")


def test_a_role_runs_every_command_that_it_is_for_and_an_owner_all(
    invoke: Cli, guarded: dict[str, dict[str, str]], archive: Path, tmp_path: Path
) -> None:
    url = guarded["owner"]["STREAM_HASH_URL"].replace("owner@", "")
    each = Deployment(invoke, guarded, archive)
    each.live(tmp_path)
    Deployment(invoke, guarded, archive, "owner").live(tmp_path)
    with redis.Redis.from_url(url) as admin:
        refused = {(entry["username"], entry["object"]) for entry in admin.acl_log(128)}
        # what the doctor says it may not see, and a reader's figures of its queries, which stay in its process
        told = {("reader", "config|get"), ("owner", "config|get"), ("reader", "evalsha")}
        assert {(who, what) for who, what in refused if what != "client|setinfo"} == told
        assert [key for key in admin.keys("sh:*") if b":dropped:" not in key] == []
    everything = set().union(*of_the_page().values())
    assert each.done == everything - PROCESSES
    in_no_need = {"acl", "evaluate", "demo", "up", "down"}  # of a server, or of one that is not embedded
    assert {command.split()[0] for command in everything} - {"Producer"} == set(COMMANDS) - in_no_need


def test_a_command_of_another_role_is_refused_with_the_remedy_and_changes_nothing(
    invoke: Cli, guarded: dict[str, dict[str, str]], archive: Path
) -> None:
    create = ("create", "a", "--dim", DIMENSION)
    assert invoke(*create, env=guarded["owner"]).code == 0
    for role, command in (
        ("reader", ("delete", "a", "item-1")),
        ("reader", ("ingest", "a", archive)),
        ("producer", create),
        ("producer", ("query", "a", "--id", "item-1")),
        ("worker", ("rollback", "a", "1")),
        *((role, ("drop", "a", "--yes")) for role in ROLES if role != "owner"),
    ):
        outcome = invoke(*command, env=guarded[role])
        assert (outcome.code, outcome.out) == (1, ""), command
        assert "does not let this user do that" in outcome.err, command
        assert PASSWORD not in outcome.err
    assert invoke("status", "a", env=guarded["reader"]).code == 0


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
