"""doctor: what it prints, and the exit codes that a health check rests on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from stream_hash.storage.server import EmbeddedServer
from tests.cli.support import Cli
from tests.servers import bundled_binary, running_server, wait_until


@pytest.fixture
def url(home: Path, name: str) -> Iterator[str]:
    """A server of this test's own."""
    directory = home / name
    directory.mkdir()
    with running_server(bundled_binary(), directory) as found:
        yield found


def test_findings_are_printed_with_what_mends_them_and_errors_end_with_1(invoke: Cli, url: str) -> None:
    assert invoke("create", "a", "--dim", 2, "--url", url).code == 0
    sound = invoke("doctor", "--url", url)
    assert sound.code == 0
    assert "ok       index a: consistency: counts agree" in sound.out.splitlines()
    assert "warning  server: persistence: nothing is kept: a restart begins empty" in sound.out.splitlines()
    assert sound.out.splitlines()[-1].startswith("0 errors, 2 warnings, ")
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    broken = invoke("doctor", "--quiet", "--url", url)
    assert (broken.code, broken.err) == (1, "")
    lines = broken.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("error    server: eviction: "))
    assert lines[at + 1].startswith(
        f"         fix: redis-cli -s {url.removeprefix('unix://')} CONFIG SET maxmemory-policy"
    )
    assert not [line for line in lines if line.startswith("ok")]
    found = invoke("doctor", "a", "--json", "--quiet", "--url", url).lines
    assert {"error", "warning"} == {finding["level"] for finding in found}
    assert list(found[0]) == ["level", "check", "subject", "finding", "fix"]


def test_the_queue_s_own_server_is_looked_at_too(invoke: Cli, url: str, serving: Path) -> None:
    args = ["--url", EmbeddedServer(serving).url, "--broker-url", url, "--json"]
    subjects = {finding["subject"] for finding in invoke("doctor", *args).lines}
    assert {"server", "broker"} <= subjects


def test_an_index_that_is_not_there_ends_with_5(idle: Cli) -> None:
    outcome = idle("doctor", "nowhere")
    assert (outcome.code, outcome.out) == (5, "")


def test_a_health_check_asks_for_processes_of_this_host_only(cli: Cli, idle: Cli) -> None:
    wait_until(lambda: "2 alive" in cli("doctor", "--here", "worker").out, what="the workers to begin")
    well = cli("doctor", "--quiet", "--here", "worker")
    assert (well.code, well.out, well.err) == (0, "", "")
    assert cli("doctor", "--here", "worker", "--json").json["finding"] == "2 alive"
    assert cli("doctor", "--here", "worker").out.splitlines()[-1] == "0 errors, 0 warnings, 1 ok"
    for commands, kind in ((cli, "trainer"), (idle, "worker")):
        ill = commands("doctor", "--quiet", "--here", kind)
        assert ill.code == 1
        assert "none is alive" in ill.out
