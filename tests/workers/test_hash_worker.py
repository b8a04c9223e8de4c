"""The command that starts hash workers."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stream_hash.errors import ServerUnreachableError
from stream_hash.queue import HASH_QUEUE, SafeQueue, enqueue_batch, live_workers
from tests.servers import wait_until
from workers import hash_worker


def test_a_password_on_the_command_line_is_refused() -> None:
    urls = ("redis://me:secret@host:6379", "redis://host:6379?password=secret", "redis://host?PASSWORD=secret")
    for option, url in itertools.product(("--url", "--broker-url"), urls):
        outcome = CliRunner().invoke(hash_worker.main, [option, url])
        assert outcome.exit_code == 2
        assert "secret" not in outcome.output
        assert "fix: set STREAM_HASH_" in outcome.output


def test_an_error_is_told_with_its_cause_and_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise ServerUnreachableError("no server answers", why="it is away", remedy="start it")

    monkeypatch.setattr(hash_worker, "run", fail)
    outcome = CliRunner().invoke(hash_worker.main, ["--url", "redis://host"])
    assert outcome.exit_code == 4
    assert outcome.output == "Error: no server answers\n  why: it is away\n  fix: start it\n"


def test_help_says_how_to_give_a_password() -> None:
    outcome = CliRunner().invoke(hash_worker.main, ["--help"])
    assert outcome.exit_code == 0
    assert "STREAM_HASH_URL=" in outcome.output


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_come_up_do_what_waits_and_leave_with_0(server: Any, url: str, tmp_path: Path, processes: int) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_", "REDIS_"))}
    environment["PYTHONPATH"] = str(Path(hash_worker.__file__).parent.parent)
    command = [sys.executable, "-P", "-m", "workers.hash_worker", "--url", url, "--processes", str(processes)]
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "hash_worker.py").write_text("raise SystemExit('another package')")
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as fleet:
        try:
            wait_until(lambda: len(live_workers(server, HASH_QUEUE)) == processes, what="the workers to come up")
            for worker in live_workers(server, HASH_QUEUE):
                arguments = Path(f"/proc/{worker.pid}/cmdline")
                if processes > 1 and arguments.exists():
                    assert url not in arguments.read_text()
            # No index of that name exists: the job fails, or finds nothing to do, and the workers stay up.
            queue = SafeQueue(HASH_QUEUE, server)
            enqueue_batch(queue, "nowhere", "b1")
            wait_until(lambda: not server.exists(queue.key, queue.started_job_registry.key), what="the job to end")
            assert len(live_workers(server, HASH_QUEUE)) == processes
            fleet.send_signal(signal.SIGTERM)
            assert fleet.wait(timeout=10) == 0
        finally:
            fleet.kill()
    assert live_workers(server, HASH_QUEUE) == []
