"""Every command that docs/operations.md shows is run as it stands, and prints what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import environment, run, shape, transcript

PAGE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")

VARYING = re.compile(r"pid \d+|unix://\S+|valkey [\d.]+|[\d.]+ MB|[0-9a-f]{32}-\d+|\d+ keys|-{2,}")
"""What differs from machine to machine and from run to run."""


@pytest.mark.timeout(300)
def test_the_commands_print_what_the_page_shows(server_directory: Path, tmp_path: Path) -> None:
    commands = transcript(PAGE)
    assert len(commands) >= 12
    variables = environment(server_directory / "operations")
    try:
        for command, printed in commands:
            assert shape(run(command, variables, tmp_path), VARYING) == shape(printed, VARYING), command
    finally:
        run("stream-hash down", variables, tmp_path)


def test_the_page_has_a_row_for_each_check() -> None:
    rows = set(re.findall(r"^\| ([a-z ]+?) +\|", PAGE, re.MULTILINE)) - {"check"}
    doctor = Path(__file__).parent.parent / "stream_hash" / "service" / "doctor"
    sources = "".join(path.read_text(encoding="utf-8") for path in doctor.glob("*.py"))
    said = set(re.findall(r'(?:_say\(\w+|Finding\(\w+), "([a-z ]+)"', sources))
    assert rows == said
