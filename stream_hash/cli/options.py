"""The options that commands share, and opening the server they name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stream_hash import logs
from stream_hash.cli.output import note
from stream_hash.environment import LOG_FORMATS, LOG_LEVELS, Environment, read_environment, read_logging
from stream_hash.errors import UsageError
from stream_hash.storage.urls import redacted

if TYPE_CHECKING:
    from stream_hash.service.connections import Connections

Function = TypeVar("Function", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the embedded server. [default: STREAM_HASH_DATA_DIR, else ~/.local/share/stream-hash]",
)

format_option = click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    metavar="FORMAT",
    help="npy, npz, mat, fvecs, jsonl or csv; auto goes by the name, else by the first bytes.",
)

throttle_option = click.option(
    "--throttle",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the time in which a re-index is worked on.",
)


def log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--log-format and --log-level, which hold from before the command runs."""

    @functools.wraps(function)
    def call(*args: Any, log_format: str | None, log_level: str | None, **others: Any) -> Any:
        chosen = read_logging(format_=log_format, level=log_level)
        logs.configure(chosen.format, chosen.level)
        return function(*args, **others)

    format_help = "How to log. [default: STREAM_HASH_LOG_FORMAT, else text on a terminal and json elsewhere]"
    level_help = "What to log at the least. [default: STREAM_HASH_LOG_LEVEL, else info]"
    call = click.option("--log-level", type=click.Choice(LOG_LEVELS), help=level_help)(call)
    return click.option("--log-format", type=click.Choice(LOG_FORMATS), help=format_help)(call)


def server_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--url, --broker-url and --data-dir, handed to the command as one `environment`."""

    @functools.wraps(function)
    def call(*args: Any, url: str | None, broker_url: str | None, data_dir: Path | None, **others: Any) -> Any:
        environment = read_environment(url=url, broker_url=broker_url, data_dir=data_dir)
        if data_dir is not None and environment.url is not None:
            raise UsageError(
                f"--data-dir is given, but {environment.url_source} names a server",
                why="a data directory has a server of its own, and one of the two would be ignored",
                remedy=f"leave out --data-dir, or {environment.url_source}",
            )
        return function(*args, environment=environment, **others)

    options = [
        click.option("--url", help="Server or cluster. [default: STREAM_HASH_URL, else REDIS_URL, else embedded]"),
        click.option("--broker-url", help="Server of the queue, if it is another one."),
        data_dir_option,
    ]
    for option in reversed(options):
        call = option(call)
    return call


def opened(environment: Environment, *, checked: bool = True) -> Connections:
    """Connections to the server of `environment`. Raises ServerUnreachableError; if `checked`, ServerRefusedError."""
    from stream_hash.service.connections import Connections

    for option, source, url, variable in (
        ("--url", environment.url_source, environment.url, "STREAM_HASH_URL"),
        ("--broker-url", environment.broker_url_source, environment.broker_url, "STREAM_HASH_BROKER_URL"),
    ):
        if source == option and url and redacted(url) != url:
            note(f"Warning: everybody on this machine can read the password in {option}; set {variable} instead")
    return Connections.of(environment, checked=checked)
