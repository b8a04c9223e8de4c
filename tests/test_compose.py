"""docker-compose.yml, as far as it can be checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPOSE = (ROOT / "docker-compose.yml").read_text()


def test_the_server_without_a_password_is_published_to_this_machine_only() -> None:
    assert re.findall(r"^ +ports:\n((?: +- .*\n)+)", COMPOSE, re.MULTILINE) == ['      - "127.0.0.1:6379:6379"\n']


def test_the_builder_is_sent_what_the_image_copies_and_nothing_else() -> None:
    copied = {word for line in re.findall(r"COPY (.+) \S+\n", COMPOSE) for word in line.split()}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
