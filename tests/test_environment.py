from __future__ import annotations

from pathlib import Path

import pytest

from stream_hash.environment import read_environment
from stream_hash.errors import UsageError


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "config.toml"
    config.write_text('url = "redis://from-file"\ndata_dir = "/from/file"\n')
    return {
        "STREAM_HASH_URL": "redis://from-variable",
        "REDIS_URL": "redis://from-redis-variable",
        "STREAM_HASH_CONFIG": str(config),
    }


def test_the_server_is_taken_from_the_first_place_that_names_one(variables: dict[str, str]) -> None:
    assert read_environment(url="redis://given", variables=variables).url == "redis://given"
    for expected in ("redis://from-variable", "redis://from-redis-variable", "redis://from-file"):
        assert read_environment(variables=variables).url == expected
        next_one = {"redis://from-variable": "STREAM_HASH_URL", "redis://from-redis-variable": "REDIS_URL"}
        variables.pop(next_one.get(expected, "STREAM_HASH_CONFIG"))
    assert read_environment(variables=variables | {"XDG_CONFIG_HOME": "/nowhere"}).url is None


def test_the_data_directory_is_taken_from_the_first_place_that_names_one(variables: dict[str, str]) -> None:
    assert read_environment(data_dir=Path("/given"), variables=variables).data_dir == Path("/given")
    named = variables | {"STREAM_HASH_DATA_DIR": "/variable"}
    assert read_environment(variables=named).data_dir == Path("/variable")
    assert read_environment(variables=variables).data_dir == Path("/from/file")
    home = {"XDG_DATA_HOME": "/home", "XDG_CONFIG_HOME": "/nowhere"}
    assert read_environment(variables=home).data_dir == Path("/home/stream-hash")


@pytest.mark.parametrize("text", ["url = 7", "urll = 'redis://x'", "url = ", "\x00"])
def test_a_configuration_file_that_is_wrong_is_refused_by_name(text: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(UsageError, match=r"config\.toml"):
        read_environment(variables={"STREAM_HASH_CONFIG": str(config)})


def test_a_configuration_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_environment(variables={"STREAM_HASH_CONFIG": str(tmp_path / "missing.toml")})


def test_what_named_each_server_is_kept_for_messages(variables: dict[str, str]) -> None:
    found = read_environment(variables=variables)
    assert (found.url_source, found.broker_url_source, found.data_dir_given) == ("STREAM_HASH_URL", "", False)
    found = read_environment(url="redis://a", broker_url="redis://b", data_dir=Path("/c"), variables=variables)
    assert (found.url_source, found.broker_url_source, found.data_dir_given) == ("--url", "--broker-url", True)
    found = read_environment(variables=variables | {"STREAM_HASH_BROKER_URL": "redis://b"})
    assert (found.broker_url, found.broker_url_source) == ("redis://b", "STREAM_HASH_BROKER_URL")
