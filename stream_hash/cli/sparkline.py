"""A series in one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

HEIGHTS: Final = "▁▂▃▄▅▆▇█"
WIDTH: Final = 40


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Values from 0 to 1, oldest first, as at most `width` bars: neighbours are joined. 0 is the lowest bar, 1 the
    highest, so that two lines can be compared.
    """
    count = min(len(values), width)
    cuts = [at * len(values) // count for at in range(count + 1)] if count else []
    parts = [values[start:stop] for start, stop in pairwise(cuts)]
    return "".join(HEIGHTS[min(len(HEIGHTS) - 1, int(len(HEIGHTS) * sum(part) / len(part)))] for part in parts)
