"""Where the server is: the one reader of the environment and of the configuration file.

Order: an explicit URL, then STREAM_HASH_URL, then REDIS_URL, then the configuration file, then the embedded
server of the data directory. Never a fake one.

The file is TOML, `$STREAM_HASH_CONFIG` or `~/.config/stream-hash/config.toml`, with the keys `url`,
`broker_url` and `data_dir`.

Secrets come from the environment, or from files that it names, as an orchestrator mounts them: STREAM_HASH_URL_FILE
for a whole URL in place of STREAM_HASH_URL, STREAM_HASH_PASSWORD_FILE for the password of the URL in STREAM_HASH_URL
or in the configuration file; the same with BROKER_ before URL and PASSWORD. The password is not put into a URL from
elsewhere: it would be sent to a server it was not meant for.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast
from urllib.parse import quote

from stream_hash.errors import UsageError

_KEYS = frozenset({"url", "broker_url", "data_dir"})
_CONFIGURATION: Final = "the configuration file"
MOST_SECRET_BYTES: Final = 4_096

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Logging:
    """How a process logs. format : text, json, or None for what its stderr suits."""

    format: Literal["text", "json"] | None
    level: str


@dataclass(frozen=True)
class Environment:
    """url : of the server, None for the embedded one. broker_url : of the queue's, None for the same server.

    data_dir : the directory of the embedded server. url_source, broker_url_source : what named each, for
    messages. data_dir_given : whether the directory was given, and neither configured nor the default.
    """

    url: str | None = field(repr=False)
    broker_url: str | None = field(repr=False)
    data_dir: Path
    url_source: str = ""
    broker_url_source: str = ""
    data_dir_given: bool = False


def read_environment(
    *,
    url: str | None = None,
    broker_url: str | None = None,
    data_dir: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Environment:
    """Settings given, then those of the environment, then those of the file, then the defaults.

    Raises UsageError when the file cannot be read, is not TOML, or has a key that is not known; also for a file of a
    secret that cannot be read, or a secret that is given twice.
    """
    env = os.environ if variables is None else variables
    stored = _read_file(env)
    home = Path(env.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser())
    directory = data_dir or _path(env.get("STREAM_HASH_DATA_DIR") or stored.get("data_dir")) or home / "stream-hash"
    url_source, url = _first(
        {
            "--url": url,
            "STREAM_HASH_URL": _secret(env, "STREAM_HASH_URL"),
            "REDIS_URL": env.get("REDIS_URL"),
            _CONFIGURATION: stored.get("url"),
        }
    )
    broker_url_source, broker_url = _first(
        {
            "--broker-url": broker_url,
            "STREAM_HASH_BROKER_URL": _secret(env, "STREAM_HASH_BROKER_URL"),
            _CONFIGURATION: stored.get("broker_url"),
        }
    )
    return Environment(
        url=_with_password(url, url_source, env, "STREAM_HASH_PASSWORD_FILE"),
        broker_url=_with_password(broker_url, broker_url_source, env, "STREAM_HASH_BROKER_PASSWORD_FILE"),
        data_dir=directory.absolute(),
        url_source=url_source,
        broker_url_source=broker_url_source,
        data_dir_given=data_dir is not None,
    )


def read_logging(
    *, format_: str | None = None, level: str | None = None, variables: Mapping[str, str] | None = None
) -> Logging:
    """What is given, then STREAM_HASH_LOG_FORMAT and STREAM_HASH_LOG_LEVEL. Raises UsageError for what is neither."""
    env = os.environ if variables is None else variables
    chosen = []
    for name, given, choices in (
        ("STREAM_HASH_LOG_FORMAT", format_, LOG_FORMATS),
        ("STREAM_HASH_LOG_LEVEL", level, LOG_LEVELS),
    ):
        value = given or env.get(name) or None
        if value is not None and value not in choices:
            raise UsageError(f"{name} is {value!r}", why=f"it is one of {', '.join(choices)}", remedy="choose one")
        chosen.append(value)
    return Logging(cast('Literal["text", "json"] | None', chosen[0]), chosen[1] or "info")


def handed_over(url: str | None, broker_url: str | None) -> dict[str, str]:
    """The variables that tell a child process of these servers; those it has already, where one is None.

    A child has its parent's environment besides: files that are read already are blotted out.
    """
    told = {"STREAM_HASH_URL": url, "STREAM_HASH_BROKER_URL": broker_url}
    files = {
        "STREAM_HASH_URL": "STREAM_HASH_PASSWORD_FILE",
        "STREAM_HASH_BROKER_URL": "STREAM_HASH_BROKER_PASSWORD_FILE",
    }
    variables: dict[str, str] = {}
    for name, value in told.items():
        if value:
            variables |= {name: value, f"{name}_FILE": "", files[name]: ""}
    return variables


def role_password(role: str, variables: Mapping[str, str] | None = None) -> str | None:
    """The password of an account: STREAM_HASH_ROLE_PASSWORD, or the file that STREAM_HASH_ROLE_PASSWORD_FILE names.

    None when neither is set. Raises UsageError when both are, or the file cannot be read.
    """
    return _secret(os.environ if variables is None else variables, f"STREAM_HASH_{role.upper()}_PASSWORD")


def _secret(env: Mapping[str, str], variable: str) -> str | None:
    """What a variable holds, or the file that it names with _FILE."""
    given, path = env.get(variable) or None, _path(env.get(f"{variable}_FILE"))
    if path is None:
        return given
    if given is not None:
        raise UsageError(
            f"{variable} and {variable}_FILE are both set", why="they may say different things", remedy="unset one"
        )
    return _read_secret(path, f"{variable}_FILE")


def _read_secret(path: Path, variable: str) -> str:
    """A file's one line. Errors never hold any of it."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_SECRET_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"the file {path} cannot be read", why=f"{why}; {variable} names it", remedy="mend the file, or its rights"
        ) from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret or len(text) > MOST_SECRET_BYTES or not secret.isprintable():
        raise UsageError(
            f"the file {path} holds no secret",
            why=f"{variable} names it, so it is to be one line of at most {MOST_SECRET_BYTES} bytes",
            remedy="mend the file",
        )
    return secret


def _with_password(url: str | None, source: str, env: Mapping[str, str], variable: str) -> str | None:
    """A URL of ours with the password that a file holds."""
    path = _path(env.get(variable))
    if (
        path is None
        or url is None
        or "://" not in url
        or not (source.startswith("STREAM_HASH_") or source == _CONFIGURATION)
    ):
        return url
    place, at, _ = url.partition("://")[2].partition("?")[0].rpartition("@")
    if ":" in place or "password=" in url:
        raise UsageError(
            f"{source} holds a password, and {variable} names another", why="one is used", remedy=f"unset {variable}"
        )
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{place}:{quote(_read_secret(path, variable), safe='')}@{rest[len(place + at) :]}"


def _first(named: Mapping[str, str | None]) -> tuple[str, str | None]:
    """The first source that names something, and what it names."""
    return next(((source, value) for source, value in named.items() if value), ("", None))


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _read_file(env: Mapping[str, str]) -> dict[str, str]:
    named = _path(env.get("STREAM_HASH_CONFIG"))
    home = Path(env.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    path = named or home / "stream-hash" / "config.toml"
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if named is None:
            return {}
        raise UsageError(f"there is no file {path}", why="STREAM_HASH_CONFIG names it", remedy="unset it") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"the configuration file {path} cannot be read", why=str(error), remedy="mend the file"
        ) from error
    for key, value in stored.items():
        if key not in _KEYS or not isinstance(value, str):
            raise UsageError(
                f"the configuration file {path} sets {key!r} to {value!r}",
                why=f"it may set {', '.join(sorted(_KEYS))}, each to text",
                remedy="mend the file",
            )
    return stored
