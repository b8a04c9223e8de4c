"""What callers hand us, turned into the types that the rest works with, or refused in a sentence.

The Python API checks here; the command line and the readers of files hand over what already fits.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import InvalidItemError, UsageError
from stream_hash.service.ingest import item_faults
from stream_hash.settings import IndexSettings, label_text, metadata_text
from stream_hash.storage.codec import Batch


def whole_number(value: object, what: str) -> int:
    """`value` as an int. Raises UsageError for anything that is not exactly one, be it 3.0 or True."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # what it refuses is what we look for
    except TypeError as error:
        raise UsageError(
            f"{what} is {reprlib.repr(value)}", why="it is a whole number", remedy="give an int"
        ) from error


def real_array(values: object, what: str, *, error: type[UsageError] = UsageError) -> NDArray[Any]:
    """`values` as an array of integers or floats, of whatever shape. Raises `error`."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as cause:
        raise error(f"{what} cannot be made an array", why=str(cause), remedy="give rows of equal length") from cause
    if array.dtype.kind not in "fiu":
        raise error(f"{what} have dtype {array.dtype}", why="coordinates are real numbers", remedy="convert them")
    return array


def float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """`array` as C-contiguous float32; what is too large becomes infinite, and is refused as such later."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def id_list(ids: Iterable[str]) -> list[str]:
    """`ids` as a list; each of them is still to be checked. Raises UsageError for one text."""
    return _listed(ids, "ids")


def equal_lengths(ids: Sequence[object], **others: Sized | None) -> None:
    """Raise UsageError unless there is one of each for every id."""
    for name, values in others.items():
        if values is not None and len(values) != len(ids):
            raise UsageError(
                f"there are {len(ids)} ids and {len(values)} {name}",
                why="each item has one",
                remedy="give lists of equal length",
            )


def label_list(labels: Iterable[Any] | None) -> list[Any] | None:
    """`labels` as a list, None for none; each is still to be checked. Raises UsageError for one text."""
    return None if labels is None else _listed(labels, "labels")


def checked_upsert(
    settings: IndexSettings,
    ids: Iterable[str],
    vectors: object,
    labels: Iterable[Any] | None,
    metadata: Iterable[Mapping[str, Any] | None] | None,
) -> tuple[Batch, dict[int, str]]:
    """A batch of items, and what is wrong with which positions of it.

    Raises InvalidItemError when `vectors` is no array of real numbers with a row for each item, UsageError when
    the lists differ in length or one of them is a single text.
    """
    wanted = id_list(ids)
    array = real_array(vectors, "the vectors", error=InvalidItemError)
    if array.ndim != 2:
        raise InvalidItemError(
            f"the vectors have shape {array.shape}",
            why=f"the index holds vectors of {settings.dimension} coordinates",
            remedy="give an array with one of them in each row",
        )
    label_values = label_list(labels)
    metadata_values = None if metadata is None else _listed(metadata, "metadata")
    equal_lengths(wanted, vectors=array, labels=label_values, metadata=metadata_values)
    faults: dict[int, str] = {}
    label_texts = _texts(label_text, label_values, len(wanted), faults)
    metadata_texts = _texts(metadata_text, metadata_values, len(wanted), faults)
    rows = float32(array)
    stored = rows
    if settings.dtype == "float16":
        with np.errstate(over="ignore"):
            stored = rows.astype(np.float16).astype(np.float32)
    checked = Batch("upsert", wanted, stored)  # the texts are our own
    return Batch("upsert", wanted, rows, label_texts, metadata_texts), item_faults(checked, settings) | faults


def _listed(values: Iterable[Any], what: str) -> list[Any]:
    """`values` as a list. Refused: one text, and whatever has no order or would lose half of it."""
    if isinstance(values, (str, bytes)):
        raise UsageError(
            f"the {what} are the one text {reprlib.repr(values)}",
            why="it would be taken apart into letters",
            remedy=f"give a list: [{reprlib.repr(values)}]",
        )
    try:
        if isinstance(values, (Mapping, Set)):
            raise TypeError(f"a {type(values).__name__} is no list")
        return list(values)
    except TypeError as error:
        raise UsageError(f"the {what} are {reprlib.repr(values)}", why=str(error), remedy="give a list") from error


def _texts(
    convert: Callable[[object], str], values: Sequence[object] | None, count: int, faults: dict[int, str]
) -> list[str]:
    """Labels or metadata as JSON text; what cannot be converted is noted by position."""
    texts = [""] * count
    for position, value in enumerate(values or ()):
        try:
            texts[position] = convert(value)
        except InvalidItemError as error:
            faults[position] = f"{error}; {error.why}"
    return texts
