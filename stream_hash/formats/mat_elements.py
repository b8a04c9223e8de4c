"""The data elements of a MATLAB 5.0 file: what each variable is and where its values lie.

A file is a row of elements: a tag (type, length) and a body. A variable is a `miMATRIX` element, or a
`miCOMPRESSED` one with a `miMATRIX` inside; its body begins with flags, dimensions and name, which are
elements too, and for a numeric or character array goes on with the values, in Fortran order.
Source: MathWorks, "MAT-File Format", chapter 1.

Why this is not `scipy.io.loadmat`: that takes lengths at their word (a file of 177 bytes allocates 4 GB)
and follows cells within cells in C until the stack ends (a file of 10 MB ends the process). Here nothing
is read before it was compared with the file, and what is nested is refused by its class.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal, TypeAlias

import numpy as np

from stream_hash.errors import FormatError
from stream_hash.formats.inflated import MAX_RATIO, Inflated
from stream_hash.formats.opening import Readable, read_exactly
from stream_hash.formats.records import shown

FILE_HEADER_BYTES: Final = 128
TAG_BYTES: Final = 8
MATRIX: Final = 14
COMPRESSED: Final = 15
OPAQUE_CLASS: Final = 17
CHARACTER_CLASS: Final = 4
NUMERIC_CLASSES: Final = range(6, 16)
NESTED_CLASSES: Final = {
    1: ("a cell array", "char"),
    2: ("a struct", "single"),
    3: ("an object", "single"),
    5: ("sparse", "full"),
    16: ("a function", "single"),
    OPAQUE_CLASS: ("an object", "char"),
}
"""What is not read, and the MATLAB function that makes an array of it."""

VALUE_TYPES: Final = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
TEXT_TYPES: Final = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}

Order: TypeAlias = Literal["<", ">"]

MAX_AXES: Final = 32
MAX_NAME_BYTES: Final = 256


@dataclass(frozen=True)
class Variable:
    """One array as its head declares it.

    class_, complex_, logical: its flags. stored: the type of the values as they lie in the file, which
    MATLAB chooses as small as they allow. value_bytes: their length. offset: where they begin, in the file
    or, when `compressed` says where that lies in the file, in the expanded element.
    """

    name: str
    shape: tuple[int, ...]
    class_: int
    complex_: bool
    logical: bool
    stored: int
    value_bytes: int
    offset: int
    compressed: tuple[int, int] | None


def byte_order(head: bytes, name: str) -> Order:
    """The byte order of a file with this head of 128 bytes. Raises FormatError when it is no MATLAB 5.0."""
    if head.startswith(b"MATLAB 7.3") or head.startswith(b"\x89HDF"):
        raise FormatError(
            f"{name} is a MATLAB 7.3 file",
            why="those are HDF5, which is not read",
            remedy="save it with save(..., '-v7'), or as npz",
        )
    if len(head) < FILE_HEADER_BYTES or not head.startswith(b"MATLAB 5.0"):
        raise broken(name, f"it begins with {shown(head[:10])}, not with MATLAB 5.0")
    if head[126:128] not in (b"IM", b"MI"):
        raise broken(name, f"its byte order is {head[126:128]!r}")
    return "<" if head[126:128] == b"IM" else ">"


def variables(file: BinaryIO, size: int, order: Order, name: str) -> Iterator[Variable]:
    """The variables of a file, in order; of each only its head is read.

    Raises FormatError when an element is longer than the file or a head is not whole.
    """
    position = FILE_HEADER_BYTES
    while position < size:
        file.seek(position)
        kind, length = _words(read_exactly(file, TAG_BYTES, name), order)
        body = position + TAG_BYTES
        if kind not in (MATRIX, COMPRESSED):
            raise broken(name, f"an element has the type {kind}, which is no variable")
        if body + length > size:
            raise broken(name, f"an element claims {length:,} bytes where {size - body:,} are left")
        if kind == COMPRESSED:
            inside = Inflated(file, body, length, name)
            kind, expanded = _words(read_exactly(inside, TAG_BYTES, name), order)
            if kind != MATRIX:
                raise broken(name, f"a compressed element holds the type {kind}, which is no variable")
            if expanded > MAX_RATIO * length:
                raise broken(name, f"{length:,} compressed bytes claim to hold {expanded:,}")
            yield _Head(inside, TAG_BYTES, expanded, order, name).variable((body, length))
        else:
            yield _Head(file, body, length, order, name).variable(None)
        position = body + length


class _Head:
    """Reads flags, dimensions, name and the tag of the values, keeping count of where it stands."""

    def __init__(self, file: Readable, start: int, length: int, order: Order, name: str) -> None:
        self._file = file
        self._at = start
        self._end = start + length
        self._order = order
        self._name = name
        self._small = False

    def variable(self, compressed: tuple[int, int] | None) -> Variable:
        flags, _ = _words(self._element(at_most=8, exactly=8), self._order)
        class_ = flags & 0xFF
        # An object of MATLAB's own (also its `string`) has no dimensions: its name comes at once.
        shape = () if class_ == OPAQUE_CLASS else self._shape()
        name = self._element(at_most=MAX_NAME_BYTES).decode("latin-1")
        stored, value_bytes = 0, 0
        if class_ in NUMERIC_CLASSES or class_ == CHARACTER_CLASS:
            stored, value_bytes = self._tag()
            if self._at + value_bytes > self._end:
                raise broken(self._name, f"{shown(name)} claims {value_bytes:,} bytes of values")
        return Variable(
            name=name,
            shape=shape,
            class_=class_,
            complex_=bool(flags & 0x800),
            logical=bool(flags & 0x200),
            stored=stored,
            value_bytes=value_bytes,
            offset=self._at,
            compressed=compressed,
        )

    def _shape(self) -> tuple[int, ...]:
        axes = self._element(at_most=4 * MAX_AXES)
        if len(axes) < 8 or len(axes) % 4:
            raise broken(self._name, f"an array has {len(axes)} bytes of dimensions")
        shape = tuple(np.frombuffer(axes, f"{self._order}i4").tolist())
        if min(shape) < 0:
            raise broken(self._name, f"an array has the shape {shape}")
        return shape

    def _element(self, *, at_most: int, exactly: int | None = None) -> bytes:
        _, length = self._tag()
        if length > at_most or (exactly is not None and length != exactly):
            raise broken(self._name, f"the head of an array has an element of {length:,} bytes")
        padding = -length % 8 if not self._small else 4 - length
        return self._take(length + padding)[:length]

    def _tag(self) -> tuple[int, int]:
        """Type and length; the file then stands at the body."""
        # An element of up to four bytes stands in its tag's second word, its length in the type's upper half.
        kind = self._word()
        self._small = kind > 0xFFFF
        if not self._small:
            return kind, self._word()
        if kind >> 16 > 4:
            raise broken(self._name, f"a small element claims {kind >> 16:,} bytes")
        return kind & 0xFFFF, kind >> 16

    def _word(self) -> int:
        return int.from_bytes(self._take(4), "little" if self._order == "<" else "big")

    def _take(self, count: int) -> bytes:
        if self._at + count > self._end:
            raise broken(self._name, "the head of an array ends early")
        self._at += count
        return read_exactly(self._file, count, self._name)


def value_type(variable: Variable, order: Order, name: str) -> np.dtype[Any]:
    """The dtype of a numeric array's values as stored. Raises FormatError unless they fill its shape."""
    code = VALUE_TYPES.get(variable.stored)
    if code is None:
        raise broken(name, f"the values of {shown(variable.name)} have the type {variable.stored}")
    dtype = np.dtype(order + code)
    if math.prod(variable.shape) * dtype.itemsize != variable.value_bytes:
        raise broken(name, f"{variable.value_bytes:,} bytes do not fill {variable.name} of shape {variable.shape}")
    return dtype


def broken(name: str, why: str) -> FormatError:
    """The error for a file that is not what the format says."""
    return FormatError(f"{name} is no readable MATLAB file", why=why, remedy="save it again with -v7, or as npz")


def _words(data: bytes, order: Order) -> tuple[int, int]:
    first, second = struct.unpack(f"{order}II", data)
    return first, second
