"""metrics: once, as a server, and when there is nobody to ask."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import Cli

Spawn = Callable[..., subprocess.Popen[str]]


def test_once_prints_the_metrics_and_leaves(cli: Cli, spawn: Spawn, working: Path, index: str) -> None:
    # a process of its own: it tells of its queries when it ends
    query = spawn("query", index, "--id", "item-3", "-k", 3, "--data-dir", working)
    assert query.wait(timeout=60) == 0
    outcome = cli("metrics", "--once")
    assert (outcome.code, outcome.err) == (0, "")
    for line in (
        'stream_hash_items{index="%s"} 300.0',
        'stream_hash_items_applied_total{index="%s"} 300.0',
        'stream_hash_queries_total{index="%s"} 1.0',
    ):
        assert line % index in outcome.out.splitlines()


def test_it_serves_until_it_is_told_to_stop(spawn: Spawn, serving: Path) -> None:
    process = spawn(
        "metrics", "--listen", "127.0.0.1:0", "--log-format", "json", env={"STREAM_HASH_DATA_DIR": str(serving)}
    )
    assert process.stderr is not None
    url = process.stderr.readline().removeprefix("metrics at ").strip()
    with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310 - of the process started here
        assert "stream_hash_up 1.0" in response.read().decode()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.communicate()[0] == ""


@pytest.mark.parametrize("args", [["--once"], []])
def test_without_a_server_it_ends_with_4(invoke: Cli, tmp_path: Path, args: list[str]) -> None:
    outcome = invoke("metrics", *args, "--url", f"unix://{tmp_path}/nobody.sock")
    assert (outcome.code, outcome.out) == (4, "")
    assert "Error: no server answers at" in outcome.err


def test_an_address_in_use_or_none_at_all_is_a_usage_error(idle: Cli) -> None:
    outcome = idle("metrics", "--listen", "9464")
    assert outcome.code == 2
    assert "the address to listen at is '9464'" in outcome.err
    assert idle("metrics", "--listen", "192.0.2.1:0").code == 2
