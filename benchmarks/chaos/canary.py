"""What malformed jobs try to have called: it sings by making a file where the environment says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

CANARY = "STREAM_HASH_CANARY"
NAME = f"{__name__}.sing"


def sing(*_: Any, **__: Any) -> None:
    """Leave a trace."""
    Path(os.environ[CANARY]).touch()


class Pickled:
    """An object whose unpickling sings."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sing, ()
