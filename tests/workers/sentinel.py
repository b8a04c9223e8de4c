"""What the attacks try to reach: whoever gets this module's function called has broken in."""

from __future__ import annotations

from typing import Any

RUNG: list[tuple[Any, ...]] = []


def ring(*arguments: Any, **_: Any) -> None:
    """Leave a trace."""
    RUNG.append(arguments)


class Pickled:
    """An object whose unpickling rings."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ring, ("unpickled",)
