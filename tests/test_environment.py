from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from stream_hash.environment import handed_over, read_environment, role_password
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


def secret(path: Path, text: str = "p@ss/word%1\n") -> str:
    path.write_text(text)
    return str(path)


def test_a_url_may_stand_in_a_file_that_the_environment_names(tmp_path: Path) -> None:
    named = {"XDG_CONFIG_HOME": "/nowhere", "STREAM_HASH_URL_FILE": secret(tmp_path / "a", "redis://:x@a\n")}
    named["STREAM_HASH_BROKER_URL_FILE"] = secret(tmp_path / "b", "redis://:x@b")
    found = read_environment(variables=named)
    assert (found.url, found.broker_url) == ("redis://:x@a", "redis://:x@b")
    assert (found.url_source, found.broker_url_source) == ("STREAM_HASH_URL", "STREAM_HASH_BROKER_URL")
    with pytest.raises(UsageError, match="STREAM_HASH_URL and STREAM_HASH_URL_FILE are both set"):
        read_environment(variables={**named, "STREAM_HASH_URL": "redis://c"})


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://host:1/0", "redis://:p%40ss%2Fword%251@host:1/0"),
        ("rediss://me@host?ssl_ca_certs=/a@b", "rediss://me:p%40ss%2Fword%251@host?ssl_ca_certs=/a@b"),
        ("unix:///run/s.sock?db=1", "unix://:p%40ss%2Fword%251@/run/s.sock?db=1"),
        ("nonsense", "nonsense"),
    ],
)
def test_the_password_of_a_url_may_stand_in_a_file(url: str, whole: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'url = "{url}"\n')
    for place in ({"STREAM_HASH_URL": url}, {"STREAM_HASH_CONFIG": str(config)}):
        variables = {"XDG_CONFIG_HOME": "/nowhere", **place, "STREAM_HASH_PASSWORD_FILE": secret(tmp_path / "p")}
        assert read_environment(variables=variables).url == whole
    variables = {"XDG_CONFIG_HOME": "/nowhere", "STREAM_HASH_BROKER_URL": url}
    variables["STREAM_HASH_BROKER_PASSWORD_FILE"] = secret(tmp_path / "p")
    assert read_environment(variables=variables).broker_url == whole


def test_the_password_goes_to_no_server_that_it_is_not_for(variables: dict[str, str], tmp_path: Path) -> None:
    variables["STREAM_HASH_PASSWORD_FILE"] = secret(tmp_path / "p")
    assert read_environment(url="redis://given", variables=variables).url == "redis://given"
    del variables["STREAM_HASH_URL"]
    assert read_environment(variables=variables).url == "redis://from-redis-variable"


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "a\x00b", "x" * 4_097])
def test_a_file_that_holds_no_secret_is_refused_without_a_word_of_it(text: str, tmp_path: Path) -> None:
    named = {"STREAM_HASH_URL": "redis://h", "STREAM_HASH_PASSWORD_FILE": secret(tmp_path / "file", text)}
    with pytest.raises(UsageError, match="holds no secret") as caught:
        read_environment(variables=named)
    assert "two" not in f"{caught.value} {caught.value.why}"
    assert "STREAM_HASH_PASSWORD_FILE" in caught.value.why


def test_secrets_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    for url in ("redis://me:hunter2@host", "redis://host?password=hunter2"):
        named = {"STREAM_HASH_URL": url, "STREAM_HASH_PASSWORD_FILE": secret(tmp_path / "p")}
        with pytest.raises(UsageError, match="STREAM_HASH_PASSWORD_FILE names another") as caught:
            read_environment(variables=named)
        assert "hunter2" not in f"{caught.value} {caught.value.why}"
    with pytest.raises(UsageError, match="cannot be read"):
        read_environment(variables={"STREAM_HASH_URL_FILE": str(tmp_path / "missing")})


def test_a_secret_that_is_no_text_is_refused_without_a_word_of_it(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"hunter2\xff\n")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        role_password("reader", {"STREAM_HASH_READER_PASSWORD_FILE": str(tmp_path / "p")})
    assert ("it is not UTF-8" in caught.value.why, caught.value.__cause__) == (True, None)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_file_of_another_system_s_line_ends_holds_the_same_secret(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"hunter2\r\n")
    assert role_password("reader", {"STREAM_HASH_READER_PASSWORD_FILE": str(tmp_path / "p")}) == "hunter2"


def test_paths_are_of_the_home_directory_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given in ("~/data", "data"):
        named = {"XDG_CONFIG_HOME": "/nowhere", "STREAM_HASH_DATA_DIR": given}
        assert read_environment(variables=named).data_dir == tmp_path / "data"


def test_no_secret_is_shown_of_an_environment() -> None:
    shown = repr(read_environment(url="redis://:hunter2@a", broker_url="redis://:hunter2@b", variables={}))
    assert "hunter2" not in shown
    assert "--url" in shown


def test_a_child_process_is_told_what_its_parent_has_read(variables: dict[str, str], tmp_path: Path) -> None:
    variables["STREAM_HASH_PASSWORD_FILE"] = secret(tmp_path / "p")
    of_a_file = {"STREAM_HASH_URL_FILE": secret(tmp_path / "u", variables.pop("STREAM_HASH_URL"))}
    for named in (variables | {"STREAM_HASH_URL": "redis://from-variable"}, variables | of_a_file):
        found = read_environment(variables=named)
        assert found.url == "redis://:p%40ss%2Fword%251@from-variable"
        assert read_environment(variables={**named, **handed_over(found.url, None)}).url == found.url


def test_the_password_of_a_role_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    assert role_password("reader", {}) is None
    assert role_password("reader", {"STREAM_HASH_READER_PASSWORD": "x"}) == "x"
    assert role_password("reader", {"STREAM_HASH_READER_PASSWORD_FILE": secret(tmp_path / "p", "y\n")}) == "y"
