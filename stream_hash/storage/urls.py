"""What a URL of a server may say, and showing one without its password. Imports no client library.

redis-py reads options with `parse_qs`, and before 8.0 decodes their values once more. What is checked here is
therefore decoded until nothing changes: an option hidden behind percent signs is found whoever reads it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from stream_hash.errors import ServerRefusedError, UsageError

REFUSED: Final = {
    "decode_responses": "vectors and batches are bytes, and replies would come as text",
    "encoding": "ids are stored as UTF-8",
    "encoding_errors": "ids are stored as UTF-8, and what is not must not be changed in silence",
    "protocol": "replies are read as the client's own protocol gives them",
    "legacy_responses": "replies are read as the client's own protocol gives them",
    "retry": "how often a command is sent again is settled by stream_hash",
    "retry_on_error": "how often a command is sent again is settled by stream_hash",
    "retry_on_timeout": "how often a command is sent again is settled by stream_hash",
}
"""Options of redis-py that break what we read or send, each with the reason."""

_ON: Final = {"ssl_cert_reqs": {"required"}, "ssl_check_hostname": {"true", "yes", "1", "t", "y"}}
_FILES: Final = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_SECRETS: Final = {"password", "ssl_password"}


def check_url(url: str) -> None:
    """Refuse a URL whose options no index is safe with.

    Raises ServerRefusedError when it switches certificate checks off, UsageError on an option of REFUSED and when a
    file of certificates is not there.
    """
    for name, value in _options(url):
        if name in _ON and value.lower() not in _ON[name]:
            raise ServerRefusedError(
                f"the URL {redacted(url)} switches certificate checks off",
                why="anybody on the path could then read and change the index",
                remedy="name the authority instead: ?ssl_ca_certs=FILE",
            )
        if name in _FILES and (Path(value).is_dir() or not os.access(value, os.R_OK)):
            raise UsageError(
                f"the URL {redacted(url)} names the file {value!r:.200}",
                why=f"{name} is a file in PEM, and there is none that this process can read",
                remedy="mend the path, or the rights of the file",
            )
        if name in REFUSED:
            raise UsageError(
                f"the URL {redacted(url)} sets {name}", why=REFUSED[name], remedy=f"leave {name} out of the URL"
            )


def redacted(url: str) -> str:
    """`url` without its password, for messages."""
    place, mark, query = url.partition("?")
    if "@" in query:  # a password with a ? in it, or an @ in an option: nobody can tell where which of them ends
        return re.sub(r"^(\w+://)?.*", r"\1***", url, count=1, flags=re.DOTALL)
    place = re.sub(r"(://[^:@/]*):.*@", r"\1:***@", place)
    return place + mark + "&".join(map(_redacted_option, query.split("&")))


def refuse_password(url: str | None, variable: str) -> None:
    """Raise UsageError when `url`, from the command line of a process that stays, holds a password."""
    if url and redacted(url) != url:
        raise UsageError(
            "a URL on the command line holds a password",
            why="everybody on this machine can read it in the list of processes",
            remedy=f"set {variable} instead",
        )


def _options(url: str) -> list[tuple[str, str]]:
    """The options of a URL; none of one that does not parse, which the client refuses."""
    try:
        query = urlsplit(url).query
    except ValueError:
        return []
    return [(_decoded(name).lower(), _decoded(value)) for name, value in parse_qsl(query)]


def _decoded(text: str) -> str:
    while (decoded := unquote(text)) != text:
        text = decoded
    return text


def _redacted_option(option: str) -> str:
    name, mark, _ = option.partition("=")
    return f"{name}=***" if mark and _decoded(unquote_plus(name)).lower() in _SECRETS else option
