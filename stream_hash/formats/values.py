"""From stored values to an item's parts: float32 coordinates, ids and labels."""

from __future__ import annotations

import math
import re
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from stream_hash.errors import FormatError, InvalidItemError
from stream_hash.formats.records import shown
from stream_hash.settings import MAX_DIMENSION, Label, check_id, label_text

_WHOLE: Final = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?")


def check_vectors(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Raises FormatError unless an array of this shape and dtype holds n > 0 vectors of real numbers."""
    if dtype.kind not in "fiu":
        raise FormatError(
            f"the vectors in {name} are {dtype_name(dtype)}",
            why="a vector has floating-point or whole numbers",
            remedy="convert the array with .astype('float32') and save it again",
        )
    if len(shape) != 2:
        raise FormatError(
            f"the vectors in {name} have shape {shown(shape)}",
            why="vectors are the rows of an array with two axes",
            remedy="reshape the array to (vectors, coordinates) and save it again",
        )
    if 0 in shape:
        raise FormatError(f"{name} holds no vectors", why=f"its shape is {shape}", remedy="check what writes the file")
    if shape[1] > MAX_DIMENSION:
        raise FormatError(
            f"the vectors in {name} have {shape[1]:,} coordinates",
            why=f"the limit is {MAX_DIMENSION:,}",
            remedy="transpose the array if its columns are the vectors, else reduce the dimension",
        )


def dtype_name(dtype: np.dtype[Any]) -> str:
    """What messages call a dtype: `object`, `bool`, `complex128`, `text` for any width of text."""
    return {"U": "text", "S": "bytes"}.get(dtype.kind, shown(dtype.name).strip("'"))


def to_float32(block: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
    """Vectors as float32, and why a row cannot be used.

    block: (n, D) of any float or integer dtype. Returns a new C-contiguous (n, D) float32 array and,
    for each row that is not finite in float32, its number in the block with a sentence naming the
    first such coordinate (counted from 0) and its value.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = block.astype(np.float32, order="C")
    finite = np.isfinite(single)
    reasons = {}
    if not finite.all():
        for row in np.flatnonzero(~finite.all(axis=1)).tolist():
            coordinate = int(np.argmin(finite[row]))
            value = block[row, coordinate]
            what = "beyond the range of float32" if np.isfinite(value) else "not a finite number"
            reasons[row] = f"coordinate {coordinate} is {value:g}, {what}"
    return single, reasons


def scalars(column: npt.NDArray[Any], name: str) -> list[object]:
    """The values of an array of shape (n,) or (n, 1) as Python's own. Raises FormatError on broken text."""
    column = column.reshape(-1)
    if column.dtype.kind == "U":
        codes = np.ascontiguousarray(column.astype(column.dtype.newbyteorder("="))).view(np.uint32)
        if codes.size and int(codes.max()) > 0x10FFFF:  # numpy would raise SystemError
            raise FormatError(
                f"{name} holds text that is not Unicode",
                why=f"a character has the number {int(codes.max()):#x}",
                remedy="write the file again",
            )
    if column.dtype.kind == "f":
        column = column.astype(np.float64)  # a long double has no Python form of its own
    return cast("list[object]", column.tolist())


def label_of(value: object) -> Label | None:
    """The label that a stored value means: None and NaN are none, 3.0 is 3.

    Raises InvalidItemError on what is no label, or a too long one.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list):
        # A list inside the list is left as it is, for label_text to refuse.
        label: Any = [_plain(member) for member in value]
    else:
        label = _plain(value)
        if type(label) is int and label.bit_length() < 64:
            return label  # the usual label, and within every limit: a fifth of the time to read a file
    label_text(label)
    return cast("Label", label)


def label_of_text(text: str) -> Label | None:
    """The label that a text means: a whole number where it is written as one (`3`, `3.0`, not `007`).

    Empty and `nan` are none. Raises InvalidItemError on a too long one.
    """
    if not text or text.casefold() == "nan":
        return None
    whole = _WHOLE.fullmatch(text)
    return label_of(int(whole[1]) if whole else text)


def id_of(value: object) -> str:
    """The id that a stored value means: whole numbers become text. Raises InvalidItemError otherwise."""
    plain = _plain(value)
    if isinstance(plain, int) and not isinstance(plain, bool):
        plain = str(plain)
    return check_id(plain)


def _plain(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InvalidItemError(f"{shown(value)} is not UTF-8", why=error.reason) from error
    return value
