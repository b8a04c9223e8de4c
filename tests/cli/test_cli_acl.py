"""acl: the accounts it prints are those of service/roles.py; here is how they are asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stream_hash.service.roles import ROLES
from tests.cli.support import Cli

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
