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
   server, which keeps it until it ends, however it ends, together with the children it forks to rewrite its
   files. So a free lock means that nothing touches the data, without asking any pid. Nobody may ever call
   LOCK_UN: the lock is shared with the server, which would lose it too. Closing our descriptor gives up
   our share only.
2. Only the holder of the lock starts a server. This is the one race: many start at once. All poll for the
   lock, one wins, the others see the winner's server answer. A pid file could not close it: two starters may
   both find the same stale pid.
3. The lock alone does not suffice: a deleted and re-created `server.lock` is free. The socket alone does not
   either: cleaners of temporary files delete sockets of running servers. A server is started only when the
   lock is free *and* nobody listens.
4. Only the process that the kernel names as the listener on `server.sock` is ever sent a signal, asked again
   just before. Neither `server.pid` nor the server's own word would do: pids are reused, and the same
   number is another process in another container.
5. The directory is 0700 and ours, since the socket has no password. An existing one with looser rights is
   tightened while it is empty and refused otherwise: others may have changed what is in it, or it was never
   meant for us.
6. `engine.json` is written before the engine starts: data are never newer than what it says.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stream_hash.errors import EmbeddedServerError
from stream_hash.storage.engine import Release

LONGEST_SOCKET_PATH: Final = 103
"""Bytes: macOS keeps 104 for a socket's path and its closing zero, Linux 108. One limit for both."""

CONNECT_SECONDS: Final = 5.0


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
        """Make the directory if it is missing; tighten the rights of an empty one (rule 5)."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.stat().st_uid == os.geteuid() and not any(self.path.iterdir()):
            self.path.chmod(0o700)
        self.exists()

    def exists(self) -> bool:
        """Whether it is there; one that others own or can enter is refused (rule 5)."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        if found.st_uid != os.geteuid():
            raise EmbeddedServerError(
                f"the data directory {self.path} belongs to another user",
                why=f"its owner is user {found.st_uid}, and this process runs as user {os.geteuid()}",
                remedy="run as its owner, or choose another --data-dir",
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            raise EmbeddedServerError(
                f"the data directory {self.path} is open to other users",
                why=f"its rights are {mode:04o}, and its server asks for no password",
                remedy=f"if it is meant for this server: chmod 700 {shlex.quote(str(self.path))}",
            )
        return True

    # Who is using it

    @contextlib.contextmanager
    def try_lock(self) -> Iterator[int | None]:
        """The descriptor of the lock, or None when a server or another starter holds it (rule 1)."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                held = False
            yield descriptor if held else None
        finally:
            os.close(descriptor)

    def is_free(self) -> bool:
        """Whether no server, child of a server or starter holds the lock."""
        if not self.lock.exists():
            return True  # and leave no lock in a directory that never had a server
        with self.try_lock() as lock:
            return lock is not None

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
