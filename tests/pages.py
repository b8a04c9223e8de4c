"""Pages that show commands and what these print: each is run as it stands, like somebody who follows the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def transcript(page: str) -> list[tuple[str, str]]:
    """(command, what it prints) of each command of a page's console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = re.split(r"^\$ ", "".join(blocks), flags=re.MULTILINE)[1:]
    return [(first, rest) for first, _, rest in (command.partition("\n") for command in commands)]


def environment(data_dir: Path) -> dict[str, str]:
    """This interpreter's programs first on PATH, a data directory, and no server that somebody has set."""
    kept = {name: value for name, value in os.environ.items() if name not in {"STREAM_HASH_URL", "REDIS_URL"}}
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "STREAM_HASH_DATA_DIR": str(data_dir),
        "COLUMNS": "200",
    }


def run(command: str, environment: dict[str, str], directory: Path, *, timeout_seconds: float = 120) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run(
        ["sh", "-c", command],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def shape(text: str, varying: re.Pattern[str]) -> list[str]:
    """The lines of an output that are there on every machine; blank lines and spacing aside."""
    lines = (" ".join(varying.sub("~", line).split()) for line in text.splitlines())
    return [line for line in lines if line]
