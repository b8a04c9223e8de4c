"""The data directory of an embedded server: what is in it, who may enter it, and who is using it.

It holds::

    server.lock   locked by the server (rule 1); empty, never deleted
    server.sock   where it listens; there is no TCP port
    server.pid    written by the server, for people; no code of ours believes it (rule 4)
    server.log    of the server running now or last; server.log.previous is of the one before
    engine.json   {"kind": "valkey", "version": "9.1.2"}: the engine that last wrote the data
    aof/          the append-only files, in names of our own: another server's are never touched

Rules
1. *The lock is the server.* A starter takes `flock` on `server.lock` and hands the open descriptor to the
   server, which keeps it together with the children it forks to rewrite its files (lock.py). So a free lock
   means that nothing touches the data.
2. Only the holder of the lock starts a server. This is the one race: many start at once. All poll for the
   lock, one wins, the others see the winner's server answer. A pid file could not close it: two starters may
   both find the same stale pid.
3. The lock alone does not suffice: a deleted and re-created `server.lock` is free. The socket alone does not
   either: cleaners of temporary files delete sockets of running servers. A server is started only when the
   lock is free *and* nobody listens.
4. Only the process that the kernel names as the listener on `server.sock` is ever sent a signal, asked again
   just before. Neither `server.pid` nor the server's own word would do: pids are reused, and the same
   number is another process in another container.
5. A directory is ours once it holds `server.lock` or `engine.json`; the lock is the first file of all. One
   that holds other files was never meant for us: nothing in it is read, changed or made stricter, and no
   server starts in it.
6. Ours is 0700 and belongs to us, since the socket has no password. With looser rights it is tightened while
   it is empty and refused otherwise: others may have changed what is in it.
7. `engine.json` is written before the engine starts: data are never newer than what it says.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import stat
import struct
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from stream_hash.errors import EmbeddedServerError
from stream_hash.storage.engine import Release
from stream_hash.storage.lock import is_free, try_lock

LONGEST_SOCKET_PATH: Final = 103
"""Bytes: macOS keeps 104 for a socket's path and its closing zero, Linux 108. One limit for both."""

CONNECT_SECONDS: Final = 5.0

LEFTOVER: Final = re.compile(r"temp-rewriteaof-(bg-)?[0-9]+\.aof|temp-[0-9]+(\.[0-9]+)?\.rdb")
"""What an engine calls the files it has not finished, which hold a process id; they stand beside `aof/`."""


class DataDirectory:
    """The directory at `path`, which need not exist yet.

    Raises EmbeddedServerError: the constructor when the path of its socket is too long for the system, the
    methods when the directory belongs to another user or is open to others. OSError is left to the caller.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.socket = self.path / "server.sock"
        self.lock = self.path / "server.lock"
        self.pid = self.path / "server.pid"
        self.log = self.path / "server.log"
        self.record = self.path / "engine.json"
        self.aof = self.path / "aof"
        length = len(os.fsencode(self.socket))
        if length > LONGEST_SOCKET_PATH:
            raise EmbeddedServerError(
                f"the path of the server's socket is too long: {self.socket}",
                why=f"it has {length} bytes and may have {LONGEST_SOCKET_PATH}",
                remedy="choose a shorter --data-dir",
            )

    # Who may enter it

    def create(self) -> None:
        """Make the directory if it is missing; tighten the rights of an empty one (rules 5 and 6)."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_owner()
        if not self._is_ours():
            if any(self.path.iterdir()) and not self._is_ours():  # somebody else may just have begun
                raise EmbeddedServerError(
                    f"the directory {self.path} holds files and no server of ours",
                    why="a data directory is a server's alone, and these files are somebody's",
                    remedy="choose a new or empty --data-dir",
                )
            self.path.chmod(0o700)
        self._check_rights()

    def exists(self) -> bool:
        """Whether it is there and ours; one of ours that others own or can enter is refused (rules 5 and 6)."""
        try:
            self._check_owner()
        except FileNotFoundError:
            return False
        if not self._is_ours():
            return False
        self._check_rights()
        return True

    def _is_ours(self) -> bool:
        return self.lock.exists() or self.record.exists()

    def _check_owner(self) -> None:
        owner = self.path.stat().st_uid
        if owner != os.geteuid():
            raise EmbeddedServerError(
                f"the data directory {self.path} belongs to another user",
                why=f"its owner is user {owner}, and this process runs as user {os.geteuid()}",
                remedy="choose a new or empty --data-dir; if it holds your server, run as its owner",
            )

    def _check_rights(self) -> None:
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & 0o077:
            raise EmbeddedServerError(
                f"the data directory {self.path} is open to other users",
                why=f"its rights are {mode:04o}, and its server asks for no password",
                remedy=f"if nobody else has changed what is in it: chmod 700 {shlex.quote(str(self.path))}",
            )

    def remove_leftovers(self) -> None:
        """Delete the half-written copies of the data that a killed engine leaves; only the lock's holder may."""
        for path in self.path.iterdir():
            if LEFTOVER.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                path.unlink()

    # Who is using it

    def try_lock(self) -> AbstractContextManager[int | None]:
        """The descriptor of the lock, or None when a server or another starter holds it (rule 1)."""
        return try_lock(self.lock)

    def is_free(self) -> bool:
        """Whether no server, child of a server or starter holds the lock."""
        return is_free(self.lock)

    def listener(self) -> int | None:
        """The pid of the process that listens on the socket, from the kernel; None when there is none.

        0 when it runs in another container, where pids count differently.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_SECONDS)
            try:
                probe.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            except BlockingIOError as error:
                raise EmbeddedServerError(
                    f"the server of {self.path} hangs",
                    why="as many connections wait for it as the system allows",
                    remedy=self.find_and_kill_remedy(),
                ) from error
            if sys.platform == "darwin":
                sol_local, local_peerpid = 0, 2  # from sys/un.h: Python has no names for them
                return probe.getsockopt(sol_local, local_peerpid)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", credentials)[0])

    def find_and_kill_remedy(self) -> str:
        """What a person can do about a holder of the lock that no code may safely end."""
        return f"find it with: lsof {shlex.quote(str(self.lock))} and end it with: kill -9 PID"

    # Who wrote it

    def writer(self) -> Release | None:
        """The release that last wrote the data; None while there are none.

        Raises EmbeddedServerError when there are data and `engine.json` is missing or damaged.
        """
        if not self.aof.exists():
            return None
        try:
            record = json.loads(self.record.read_bytes())
            major, minor, patch = map(int, record["version"].split("."))
            if record["kind"] not in {"valkey", "redis"}:
                raise ValueError(f"unknown kind {record['kind']!r}")
            return Release(record["kind"], (major, minor, patch))
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EmbeddedServerError(
                f"{self.record} does not say which engine wrote the data",
                why=f"{type(error).__name__}: {error}",
                remedy=f"find the engine's version in {self.log} and write it back, for example: "
                '{"kind": "valkey", "version": "9.1.2"}',
            ) from error

    def set_writer(self, release: Release) -> None:
        """Record `release`, at once or not at all; only the holder of the lock may."""
        new = self.record.with_suffix(".json.new")
        with new.open("w") as file:
            json.dump({"kind": release.kind, "version": ".".join(map(str, release.version))}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.record)
