"""Trials of several splits put together: a row for each thing tried, with means and how sure they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from stream_hash.numerics.comparison import Trial, What

MEASURES: Final = (
    "precision_at_k",
    "semantic_accuracy",
    "recall_at_k",
    "mean_average_precision",
    "candidates",
    "milliseconds",
)
"""In the order in which they are shown. A plan need not have all of them."""


@dataclass(frozen=True)
class Row:
    """means : by measure, over splits and queries. errors : the standard error of each mean."""

    what: What
    means: dict[str, float]
    errors: dict[str, float]


def spread_over(splits: int) -> Literal["queries", "splits"]:
    """What standard errors are taken over: the splits, which also differ in their hashers, unless there is but one."""
    return "queries" if splits == 1 else "splits"


def summarise(splits: Sequence[Iterable[Trial]]) -> list[Row]:
    """The rows of all splits, each of which tried the same things, in their order."""
    gathered: dict[What, dict[str, list[np.ndarray]]] = {}
    for trials in splits:
        for trial in trials:
            measures = gathered.setdefault(trial.what, {})
            for name, values in trial.measures.items():
                measures.setdefault(name, []).append(values)
    return [
        Row(
            what,
            {name: float(np.mean([part.mean() for part in parts])) for name, parts in measures.items()},
            {name: _standard_error(parts) for name, parts in measures.items()},
        )
        for what, measures in gathered.items()
    ]


def _standard_error(parts: Sequence[np.ndarray]) -> float:
    """Of the mean of the splits' means; with one split, of the mean of its queries. 0 where it cannot be told."""
    values = parts[0] if len(parts) == 1 else np.array([part.mean() for part in parts])
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
