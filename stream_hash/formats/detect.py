"""Which format a file has: by its suffix, else by its first bytes."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final, Literal, TypeAlias, cast, get_args

from stream_hash.errors import FormatError, UsageError

Format: TypeAlias = Literal["npy", "npz", "mat", "fvecs", "jsonl", "csv"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

HEAD_BYTES: Final = 10
"""How many first bytes `detect` wants: no more, because a stream may take its time to send them."""

_SUFFIXES: Final[dict[str, Format]] = {f".{name}": name for name in FORMATS} | {".ndjson": "jsonl"}


def check_format(format: str) -> Format | Literal["auto"]:  # noqa: A002 - the word of the command line
    """`format` itself when it is known. Raises UsageError otherwise."""
    if format != "auto" and format not in FORMATS:
        raise UsageError(
            f"the format is {format!r}",
            why=f"the formats are {', '.join(FORMATS)}",
            remedy="name one of them, or auto",
        )
    return cast("Format", format)


def detect(name: str, head: bytes) -> Format:
    """The format of a file called `name` that begins with `head` (HEAD_BYTES bytes, or all there are).

    A known suffix decides; csv and fvecs have no signature, so they are only found by their suffix.
    Raises UsageError when neither tells, FormatError when there is nothing to read.
    """
    by_suffix = _SUFFIXES.get(PurePath(name).suffix.lower())
    if by_suffix:
        return by_suffix
    if not head:
        raise FormatError(f"{name} is empty", why="it holds no vector", remedy="check what writes it")
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "npz"
    if head.startswith((b"MATLAB 5.0", b"MATLAB 7.3")):
        return "mat"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "jsonl"
    raise UsageError(
        f"the format of {name} cannot be told",
        why="neither its name nor its first bytes say which",
        remedy=f"name the format: {', '.join(FORMATS)}",
    )
