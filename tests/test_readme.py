"""Every command and every program that the README shows is run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

VARYING = re.compile(
    r"pid \d+|unix://\S+|\d+(\.\d+)? ms|\d+ (items )?in \d+ buckets|\d+ not empty|from \d+ items|[+-]?\b0\.\d{3}\b"
    r"|\b[01]{16}\b|probes +\d+|candidates +3\d\d\b"
)
"""What differs from machine to machine and from run to run: generation 1 takes its mean from whichever batch of the
first ones is hashed first, and with it the buckets differ a little."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def transcript() -> list[tuple[str, str]]:
    """(command, what it prints) of each command of the console block."""
    (console,) = blocks("console")
    commands = re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    return [(first, rest) for first, _, rest in (command.partition("\n") for command in commands)]


@pytest.fixture
def environment(server_directory: Path) -> dict[str, str]:
    """The README's own: this interpreter's programs first on PATH, a data directory of its own, no server."""
    scripts = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if name not in {"STREAM_HASH_URL", "REDIS_URL"}}
    return kept | {
        "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
        "STREAM_HASH_DATA_DIR": str(server_directory / "readme"),
        "COLUMNS": "200",
    }


def run(command: str, environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", command], env=environment, cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def shape(text: str) -> list[str]:
    """The lines of an output that are there on every machine; blank lines and spacing aside."""
    lines = (" ".join(VARYING.sub("~", line).split()) for line in text.splitlines())
    return [line for line in lines if line]


@pytest.mark.timeout(300)
def test_the_transcript_and_the_program_do_what_the_readme_shows(environment: dict[str, str], tmp_path: Path) -> None:
    commands = transcript()
    assert len(commands) >= 8
    try:
        for command, printed in commands:
            if command == "stream-hash down":
                (program,) = blocks("python")
                (tmp_path / "program.py").write_text(program)
                assert run("python program.py", environment, tmp_path).startswith("photo-7 ")
            assert shape(run(command, environment, tmp_path)) == shape(printed), command
    finally:
        run("stream-hash down", environment, tmp_path)


def test_the_two_commands_are_those_that_ci_runs() -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 2
    assert commands[0].endswith("stream-hash demo")
    assert commands[1].endswith("-m pytest")
    assert "grep '^python3 -m venv' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_file_that_the_documents_point_to_exists() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} points to {target}"
