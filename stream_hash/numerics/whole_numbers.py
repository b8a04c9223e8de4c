"""Whether a parameter that counts something is a count."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from stream_hash.errors import UnlearnableError


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raises UnlearnableError, naming parameter and value, unless it is a whole number from `least` up."""
    if not isinstance(value, numbers.Integral) or value < least:
        plain = value.item() if isinstance(value, np.generic) else value
        raise UnlearnableError(f"{name} is {plain!r}", remedy=f"take a whole number of {least} or more")
