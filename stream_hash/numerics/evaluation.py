"""How good answers are: the measures of the tutorial, on lists of results."""

from __future__ import annotations

from collections.abc import Sequence

from stream_hash.settings import Label


def precision_at_k(found: Sequence[Label | None], wanted: Label, k: int) -> float:
    """The share of the first k results that carry the query's label; missing results count as wrong."""
    return sum(label == wanted for label in found[:k]) / k


def recall_at_k(found: Sequence[str], truth: Sequence[str], k: int) -> float:
    """The share of the true k nearest that were found among the first k."""
    return len(set(found[:k]) & set(truth[:k])) / max(1, min(k, len(truth)))
