"""A file that takes the place of another one when it is complete, and can be gone on with when it was not.

1. It is written beside its place, as `.NAME.part`, and renamed when it has reached the disk: whoever opens the place
   finds what was there before, or all of the new.
2. Whatever ends the writing, what was written stays for whoever goes on with it; the next one who does not begins
   there anew. So there is one such file at the most.
3. One process writes it at a time: it holds the file's lock until it ends. Who gets the lock looks whether the file
   still has its name: else it would write into what has just taken its place.
4. In a folder where others may write, somebody may have put something there under that name. A link is not followed,
   and nothing is written to what has another owner, or another name besides.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stream_hash.errors import FormatError


def part_of(path: Path) -> Path:
    """The file that is written until it takes the place of `path`."""
    return path.with_name(f".{path.name}.part")


@contextmanager
def replaced(path: Path, *, resume: bool = False) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends, and stays beside it when that ends by an error.

    resume : it has what an earlier attempt left, to be read from its front; else it is empty. Only its owner may read
    it. Raises FormatError when it cannot be written, or another process is writing it.
    """
    part = part_of(path)
    try:
        with os.fdopen(_locked(part), "r+b") as file:
            if not resume:
                file.truncate()
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)  # rule 3: while the lock is held
        _synchronise(path.parent)
    except OSError as error:
        raise FormatError(
            f"{path} cannot be written", why=str(error), remedy="check the folder, the disk and its free space"
        ) from error


def _locked(part: Path) -> int:
    """The descriptor of the file, made if it is missing, with its lock."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, part)
            if _is_named(descriptor, part):
                _check_own(descriptor, part)
                os.fchmod(descriptor, 0o600)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, part: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FormatError(
            f"{part} is being written by another process", why=str(error), remedy="wait for it, or choose another name"
        ) from error


def _is_named(descriptor: int, part: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), part.lstat())
    except FileNotFoundError:
        return False


def _check_own(descriptor: int, part: Path) -> None:
    """Rule 4."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        raise FormatError(
            f"{part} is in the way",
            why="it is no plain file of yours with this name alone",
            remedy="remove it, or choose a folder where nobody else may write",
        )


def _synchronise(folder: Path) -> None:
    """Let a folder's names reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
