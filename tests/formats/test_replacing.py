"""A file that takes the place of another: complete or not at all, by one process at a time, and through no trap."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream_hash.errors import FormatError
from stream_hash.formats.replacing import part_of, replaced


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An older file."""
    old = tmp_path / "a.shx"
    old.write_bytes(b"old")
    return old


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


def interrupted(path: Path, text: bytes = b"half") -> None:
    with pytest.raises(KeyError), replaced(path) as file:
        file.write(text)
        raise KeyError


def test_it_takes_the_place_of_the_old_one_only_when_it_is_complete(path: Path) -> None:
    interrupted(path)
    assert path.read_bytes() == b"old"
    with replaced(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path) == ["a.shx"]


def test_what_was_written_stays_for_who_goes_on_and_for_nobody_else(path: Path) -> None:
    interrupted(path)
    assert names(path) == [".a.shx.part", "a.shx"]
    part_of(path).chmod(0o644)
    with replaced(path, resume=True) as file:
        assert file.read() == b"half"
        assert stat.S_IMODE(part_of(path).stat().st_mode) == 0o600
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    interrupted(path)
    with replaced(path) as file:
        assert file.read() == b""
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_two_do_not_write_it_at_once(path: Path) -> None:
    with replaced(path) as file:
        file.write(b"one")
        for resume in (False, True):
            with pytest.raises(FormatError, match="is being written by another"), replaced(path, resume=resume):
                pass
    assert path.read_bytes() == b"one"


@pytest.mark.parametrize("gone", [False, True])
def test_who_waited_for_the_lock_does_not_write_into_the_complete_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """Between opening it and locking it the other one has finished; or has, and yet another one is at work."""
    interrupted(path)
    lock = fcntl.flock

    def late(descriptor: int, kind: int) -> Any:
        monkeypatch.setattr(fcntl, "flock", lock)
        part_of(path).replace(path)
        if not gone:
            part_of(path).write_bytes(b"of a third")
        return lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(KeyError), replaced(path) as file:
        file.write(b"other")
        raise KeyError
    assert path.read_bytes() == b"half"
    assert part_of(path).read_bytes() == b"other"


def test_what_somebody_else_has_put_there_is_not_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = path.with_name("other")
    other.write_bytes(b"precious")
    part = part_of(path)
    puts: list[tuple[Callable[[], object], str]] = [
        (lambda: part.symlink_to(other), "cannot be written"),
        (lambda: part.hardlink_to(other), "in the way"),
        (lambda: os.mkfifo(part), "in the way"),
        (part.mkdir, "cannot be written"),
    ]
    for put, told in puts:
        put()
        with pytest.raises(FormatError, match=told), replaced(path):
            pass
        part.rmdir() if part.is_dir() else part.unlink()
    part.write_bytes(b"theirs")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(FormatError, match="in the way"), replaced(path):
        pass
    assert part.read_bytes() == b"theirs"
    assert other.read_bytes() == b"precious"
    assert path.read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be written"), replaced(tmp_path / "none" / "a.shx"):
        pass
