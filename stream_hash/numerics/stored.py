"""Arrays that come back from storage: what was stored, or IntegrityError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError


def stored_array(arrays: Mapping[str, NDArray[Any]], name: str, kinds: str, ndim: int) -> NDArray[Any]:
    """The array of that name. kinds : the codes of numpy's kinds allowed, such as "f". ndim : how many axes.

    Raises IntegrityError when there is none, when it is of another kind or shape, or holds NaN or infinity.
    """
    if name not in arrays:
        raise IntegrityError("a model's arrays are not those of a model", why=f"there is no {name!r}")
    value = np.asarray(arrays[name])
    if value.dtype.kind not in kinds or value.ndim != ndim:
        raise IntegrityError(
            f"a model's {name!r} is {value.dtype} of shape {value.shape}",
            why=f"expected {ndim} axes, and one of numpy's kinds {kinds!r}",
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise IntegrityError(f"a model's {name!r} holds NaN or infinity", why="every number of a model is finite")
    return value


def stored_float32(arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A float32 array of that name and shape; −1 stands for any length. Raises as `stored_array`."""
    value = stored_array(arrays, name, "f", len(shape))
    fits = all(wanted in (-1, found) for wanted, found in zip(shape, value.shape, strict=True))
    if value.dtype != np.float32 or not fits:
        raise IntegrityError(
            f"a model's {name!r} is {value.dtype} of shape {value.shape}", why=f"expected float32 of shape {shape}"
        )
    return value


def stored_number(arrays: Mapping[str, NDArray[Any]], name: str) -> float:
    """A float64 of that name. Raises as `stored_array`."""
    return float(stored_array(arrays, name, "f", 0))
