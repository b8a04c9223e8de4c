"""Where the server is: the one reader of the environment and of the configuration file.

Order: an explicit URL, then STREAM_HASH_URL, then REDIS_URL, then the configuration file, then the embedded
server of the data directory. Never a fake one.

The file is TOML, `$STREAM_HASH_CONFIG` or `~/.config/stream-hash/config.toml`, with the keys `url`,
`broker_url` and `data_dir`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from stream_hash.errors import UsageError

_KEYS = frozenset({"url", "broker_url", "data_dir"})

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

    url: str | None
    broker_url: str | None
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

    Raises UsageError when the file cannot be read, is not TOML, or has a key that is not known.
    """
    env = os.environ if variables is None else variables
    stored = _read_file(env)
    home = Path(env.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser())
    directory = data_dir or _path(env.get("STREAM_HASH_DATA_DIR") or stored.get("data_dir")) or home / "stream-hash"
    url_source, url = _first(
        {
            "--url": url,
            "STREAM_HASH_URL": env.get("STREAM_HASH_URL"),
            "REDIS_URL": env.get("REDIS_URL"),
            "the configuration file": stored.get("url"),
        }
    )
    broker_url_source, broker_url = _first(
        {
            "--broker-url": broker_url,
            "STREAM_HASH_BROKER_URL": env.get("STREAM_HASH_BROKER_URL"),
            "the configuration file": stored.get("broker_url"),
        }
    )
    return Environment(
        url=url,
        broker_url=broker_url,
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
