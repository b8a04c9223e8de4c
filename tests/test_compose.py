"""docker-compose.yml, as far as it can be checked without Docker."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from stream_hash.cli import COMMANDS
from stream_hash.cli.doctor import doctor
from stream_hash.queue.safe_job import JOB_TIMEOUT_SECONDS

ROOT = Path(__file__).parents[1]
COMPOSE = (ROOT / "docker-compose.yml").read_text()


def test_the_server_without_a_password_is_published_to_this_machine_only() -> None:
    assert re.findall(r"^ +ports:\n((?: +- .*\n)+)", COMPOSE, re.MULTILINE) == ['      - "127.0.0.1:6379:6379"\n']


def test_every_service_of_ours_runs_a_command_that_there_is_and_as_it_is_meant_to() -> None:
    services = dict(
        re.findall(r"^  ([a-z-]+):\n    <<: \*stream-hash\n    command: (\[.*\])\n    deploy:\n", COMPOSE, re.MULTILINE)
    )
    commands = {name: json.loads(command) for name, command in services.items()}
    assert commands == {"hash-worker": ["stream-hash", "worker"], "trainer": ["stream-hash", "trainer"]}
    assert {command[1] for command in commands.values()} <= set(COMMANDS)
    assert re.findall(r"replicas: (\d+)", COMPOSE) == ["2", "1"]


def test_a_container_is_healthy_while_its_own_process_gives_signs_of_life() -> None:
    checks = [json.loads(words) for words in re.findall(r"test: (\[.*\])", COMPOSE)]
    assert checks[1:] == [["CMD", "stream-hash", "doctor", "--quiet", "--here", kind] for kind in ("worker", "trainer")]
    assert checks[1][2] in COMMANDS
    here = next(option for option in doctor.params if option.name == "here")
    assert isinstance(here.type, click.Choice)
    assert [check[-1] for check in checks[1:]] == list(here.type.choices)


def test_a_worker_has_the_time_to_end_what_it_is_doing() -> None:
    (seconds,) = set(re.findall(r"stop_grace_period: (\d+)s", COMPOSE.partition("services:")[0]))
    assert int(seconds) > JOB_TIMEOUT_SECONDS


def test_the_builder_is_sent_what_the_image_copies_and_nothing_else() -> None:
    copied = {word for line in re.findall(r"COPY (.+) \S+\n", COMPOSE) for word in line.split()}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
