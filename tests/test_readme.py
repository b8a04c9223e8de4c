"""Every command and every program that the README shows is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import environment, run, shape, transcript

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


@pytest.mark.timeout(300)
def test_the_transcript_and_the_program_do_what_the_readme_shows(server_directory: Path, tmp_path: Path) -> None:
    commands = transcript(README)
    assert len(commands) >= 8
    variables = environment(server_directory / "readme")
    try:
        for command, printed in commands:
            if command == "stream-hash down":
                (program,) = blocks("python")
                (tmp_path / "program.py").write_text(program)
                assert run("python program.py", variables, tmp_path).startswith("photo-7 ")
            assert shape(run(command, variables, tmp_path), VARYING) == shape(printed, VARYING), command
    finally:
        run("stream-hash down", variables, tmp_path)


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
