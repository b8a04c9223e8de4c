"""The header of an npy file, read by a grammar: a dtype, an order and a shape, and nothing evaluated.

numpy's own reader takes the header's declared length, up to 4 GiB, before it looks at it, and parses
it as Python. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, versions
1.0 to 3.0. Departure: a structured dtype is refused here, since neither vectors, ids nor labels have one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from stream_hash.errors import FormatError
from stream_hash.formats.opening import Readable, read_exactly
from stream_hash.formats.records import shown

MAX_HEADER_BYTES: Final = 10_000
"""numpy's own limit."""

_ENTRY: Final = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>\w+)(?P=quote)\s*:\s*
    (?: ['"](?P<text>[^'"]*)['"] | (?P<flag>True|False) | \((?P<shape>[\d\sL,]*)\) | (?P<list>\[) )\s*,?""",
    re.VERBOSE,
)
_DTYPE: Final = re.compile(r"[<>|=]?([?bBO]|[biufcmMSUVO]\d{1,9}(\[\w{1,9}\])?)")
_GROUPS: Final = (("descr", "text"), ("fortran_order", "flag"), ("shape", "shape"))
_MAX_DIGITS: Final = 18


@dataclass(frozen=True)
class Header:
    """shape, order and dtype of an array, and `length`: how many bytes stand before its values."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    length: int

    @property
    def total_bytes(self) -> int:
        """What a file that holds this array and nothing else is long."""
        return self.length + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: Readable, name: str) -> Header:
    """The header at the start of `file`, which is left at the first value. Raises FormatError."""
    magic = read_exactly(file, 8, name)
    if magic[:6] != b"\x93NUMPY":
        raise _broken(name, f"it begins with {magic[:6]!r}, not with the npy signature")
    if magic[6] not in (1, 2, 3):
        raise _broken(name, f"its npy version is {magic[6]}; 1 to 3 are known")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(read_exactly(file, width, name), "little")
    if length > MAX_HEADER_BYTES:
        raise _broken(name, f"its header claims {length:,} bytes; the limit is {MAX_HEADER_BYTES:,}")
    text = read_exactly(file, length, name).decode("latin-1")
    return _parsed(text, 8 + width + length, name)


def _parsed(text: str, length: int, name: str) -> Header:
    body = text.strip()
    entries: dict[str, re.Match[str]] = {}
    at, end = 1, len(body) - 1
    if body[:1] != "{" or body[-1:] != "}":
        raise _broken(name, f"its header is {shown(body)}")
    while body[at:end].strip():
        entry = _ENTRY.match(body, at, end)
        if entry is None or entry["key"] in entries:
            raise _broken(name, f"its header is {shown(body)}")
        if entry["list"]:
            raise FormatError(
                f"{name} holds a structured array",
                why="vectors, ids and labels are plain arrays",
                remedy="save each field as an array of its own",
            )
        entries[entry["key"]] = entry
        at = entry.end()
    if entries.keys() != {"descr", "fortran_order", "shape"}:
        raise _broken(name, f"its header has the keys {shown(sorted(entries))}")
    descr, order, shape = (entries[key][group] for key, group in _GROUPS)
    if descr is None or order is None or shape is None:
        raise _broken(name, f"its header is {shown(body)}")
    return Header(_shape(shape, name), order == "True", _dtype(descr, name), length)


def _shape(text: str, name: str) -> tuple[int, ...]:
    axes = [axis.strip().removesuffix("L") for axis in text.split(",")]
    if axes[-1] == "":
        axes.pop()
    if not all(axis.isascii() and axis.isdigit() and len(axis) <= _MAX_DIGITS for axis in axes):
        raise _broken(name, f"its shape is {shown('(' + text + ')')}")
    return tuple(map(int, axes))


def _dtype(descr: str, name: str) -> np.dtype[Any]:
    if not _DTYPE.fullmatch(descr):
        raise _broken(name, f"its dtype is {shown(descr)}")
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError) as error:
        raise _broken(name, f"its dtype is {shown(descr)}") from error
    if dtype.hasobject:
        raise FormatError(
            f"{name} holds an array of dtype object",
            why="its values are pickled, and reading pickles would run whatever they say",
            remedy="convert it with .astype('float32'), .astype(int) or .astype(str), and save it again",
        )
    return dtype


def _broken(name: str, why: str) -> FormatError:
    return FormatError(f"{name} is no npy array", why=why, remedy="write it again with numpy.save")
