"""Every command that docs/operations.md shows is run as it stands, and prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")

VARYING = re.compile(r"pid \d+|unix://\S+|valkey [\d.]+|[\d.]+ MB|[0-9a-f]{32}-\d+|\d+ keys|-{2,}")
"""What differs from machine to machine and from run to run."""


def transcript() -> list[tuple[str, str]]:
    """(command, what it prints) of each command of the page."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    commands = re.split(r"^\$ ", "".join(blocks), flags=re.MULTILINE)[1:]
    return [(first, rest) for first, _, rest in (command.partition("\n") for command in commands)]


def shape(text: str) -> list[str]:
    lines = (" ".join(VARYING.sub("~", line).split()) for line in text.splitlines())
    return [line for line in lines if line]


@pytest.mark.timeout(300)
def test_the_commands_print_what_the_page_shows(server_directory: Path, tmp_path: Path) -> None:
    commands = transcript()
    assert len(commands) >= 12
    kept = {name: value for name, value in os.environ.items() if name not in {"STREAM_HASH_URL", "REDIS_URL"}}
    environment = kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "STREAM_HASH_DATA_DIR": str(server_directory / "operations"),
        "COLUMNS": "200",
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    try:
        for command, printed in commands:
            assert shape(run(command)) == shape(printed), command
    finally:
        run("stream-hash down")


def test_the_page_has_a_row_for_each_check() -> None:
    rows = set(re.findall(r"^\| ([a-z ]+?) +\|", PAGE, re.MULTILINE)) - {"check"}
    doctor = Path(__file__).parent.parent / "stream_hash" / "service" / "doctor"
    sources = "".join(path.read_text(encoding="utf-8") for path in doctor.glob("*.py"))
    said = set(re.findall(r'(?:_say\(\w+|Finding\(\w+), "([a-z ]+)"', sources))
    assert rows == said
