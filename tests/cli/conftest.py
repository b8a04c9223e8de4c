"""The command line in this process (`cli`), and as a process of its own (`spawn`), on real embedded servers.

Nothing of the machine's own configuration is seen: the environment is emptied of it.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from stream_hash.cli import main
from stream_hash.storage.server import EmbeddedServer
from tests.cli.support import DIMENSION, ROOT, Cli, Outcome
from workers.detached import Fleet


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A short path: sockets have no room for pytest's."""
    with tempfile.TemporaryDirectory(prefix="sh-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def variables(home: Path) -> dict[str, str]:
    """An environment in which nothing is configured but a data directory that has no server."""
    kept = {name: value for name, value in os.environ.items() if "REDIS" not in name and "STREAM_HASH" not in name}
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "STREAM_HASH_DATA_DIR": str(home / "idle")}
    return {**kept, **own, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


@pytest.fixture(scope="session")
def invoke(variables: dict[str, str]) -> Cli:
    """Run a command in this process: invoke("status", "--json", env={...}, stdin=b"...")."""

    def run(*args: object, env: dict[str, str] | None = None, stdin: bytes | None = None) -> Outcome:
        # Before Click 8.2 the two streams had to be asked for.
        apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
        unset = dict.fromkeys(set(os.environ) - set(variables))
        runner = CliRunner(env={**unset, **variables, **(env or {})}, **apart)
        result = runner.invoke(main, [str(arg) for arg in args], input=stdin, prog_name="stream-hash")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def working(home: Path) -> Iterator[Path]:
    """A data directory whose server and two workers run as long as the tests do."""
    directory = home / "working"
    server, fleet = EmbeddedServer(directory), Fleet(directory)
    try:
        fleet.start(2, server.start().url)
        yield directory
    finally:
        fleet.stop()
        server.stop()


@pytest.fixture(scope="session")
def serving(home: Path) -> Iterator[Path]:
    """A data directory whose server runs, and no worker."""
    directory = home / "serving"
    server = EmbeddedServer(directory)
    try:
        server.start()
        yield directory
    finally:
        server.stop()


@pytest.fixture
def cli(invoke: Cli, working: Path) -> Cli:
    """Commands for the server that has workers."""

    def run(*args: object, **others: Any) -> Outcome:
        return invoke(*args, env={"STREAM_HASH_DATA_DIR": str(working)}, **others)

    return run


@pytest.fixture
def idle(invoke: Cli, serving: Path) -> Cli:
    """Commands for the server that has no workers."""

    def run(*args: object, **others: Any) -> Outcome:
        return invoke(*args, env={"STREAM_HASH_DATA_DIR": str(serving)}, **others)

    return run


@pytest.fixture
def spawn(variables: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command as a process, somewhere else than in the source tree; it is killed if it is left over."""
    started: list[subprocess.Popen[str]] = []

    program = (sys.executable, "-m", "stream_hash.cli")

    def run(
        *args: object, env: dict[str, str] | None = None, command: Sequence[str] = program, **others: Any
    ) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(
            subprocess.Popen(
                [*command, *map(str, args)],
                env={**variables, **(env or {})},
                cwd=tmp_path,
                text=True,
                start_new_session=True,
                **{**pipes, **others},
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for an index of this test's own."""
    return f"t{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def vectors() -> np.ndarray[Any, np.dtype[np.float32]]:
    """300 vectors in ten clusters, (300, 8) float32."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(10, DIMENSION))
    return (centres[np.arange(300) % 10] + 0.2 * random.normal(size=(300, DIMENSION))).astype(np.float32)


@pytest.fixture
def archive(vectors: np.ndarray[Any, np.dtype[np.float32]], tmp_path: Path) -> Path:
    """An npz of the vectors with ids `item-0`, … and labels 0 to 9."""
    path = tmp_path / "items.npz"
    ids = np.array([f"item-{row}" for row in range(len(vectors))])
    np.savez(path, vectors=vectors, labels=np.arange(len(vectors)) % 10, ids=ids)
    return path


@pytest.fixture
def index(cli: Cli, name: str, archive: Path) -> str:
    """An index that holds the archive."""
    assert cli("create", name, "--dim", DIMENSION, "--bits", 10).code == 0
    assert cli("ingest", name, archive, "--wait").code == 0
    return name
