"""What GRH's parameters may be, and what None stands for."""

from __future__ import annotations

import math
from typing import Any

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.whole_numbers import check_whole

CHOICES: dict[str, tuple[Any, ...]] = {
    "learner": ("ridge", "svm", "pa", "mlp"),
    "targets": ("auto", "code_words", "smoothed", "frames"),
    "feature_map": ("auto", None, "rbf", "posterior"),
}
ONLINE = ("ridge", "pa")
C = {"ridge": 3.0, "svm": 1.0, "pa": 0.5, "mlp": 10.0}
TEMPERATURE = {"code_words": 4.0, "frames": 8.0}

LEARNED_SHARE = 0.75
"""Of the bits, under "frames"."""


def check_parameters(parameters: dict[str, Any]) -> None:
    """Raises UnlearnableError, naming the first value that cannot be."""
    for name, allowed in CHOICES.items():
        if parameters[name] not in allowed:
            raise UnlearnableError(f"{name} is {parameters[name]!r}", remedy=f"choose one of {allowed}")
    for name in ("n_bits", "n_components", "n_iter", "n_neighbors", "n_hidden"):
        check_whole(name, parameters[name])
    for name in ("alpha", "graph_weight"):
        if not 0 <= parameters[name] <= 1:
            raise UnlearnableError(f"{name} is {parameters[name]}", remedy="take a weight from 0 to 1")
    for name in ("C", "gamma", "temperature", "power"):
        if parameters[name] is not None and not parameters[name] > 0:
            raise UnlearnableError(f"{name} is {parameters[name]}", remedy="take more than 0")
    init = parameters["init"]
    if not hasattr(init, "decision_function") and not (isinstance(init, str) and init in ("lsh", "itq")):
        raise UnlearnableError(f"init is {init!r}", remedy="take 'lsh', 'itq' or a fitted model")
    n_learned, n_bits = parameters["n_learned"], parameters["n_bits"]
    if n_learned is not None:
        check_whole("n_learned", n_learned)
    if n_learned is not None and n_learned > n_bits:
        raise UnlearnableError(f"n_learned is {n_learned}", remedy=f"take 1 to n_bits, which is {n_bits}")
    if parameters["targets"] == "frames" and parameters["feature_map"] not in ("auto", "posterior"):
        raise UnlearnableError("targets is 'frames', directions of posteriors", remedy="take feature_map='posterior'")
    if parameters["targets"] == "smoothed" and parameters["feature_map"] == "posterior":
        raise UnlearnableError(
            "targets is 'smoothed', and feature_map='posterior' learns classes", remedy="take feature_map='rbf'"
        )


def resolved(feature_map: str | None, targets: str, labelled: bool) -> tuple[str | None, str]:
    """The feature map and the targets that "auto" stands for. labelled : whether any class is known."""
    if targets == "auto" and not labelled:
        targets = "smoothed"
    if feature_map == "auto":
        feature_map = "posterior" if targets in ("auto", "frames") else "rbf"
    if targets == "auto":
        targets = "frames" if feature_map == "posterior" else "code_words"
    return feature_map, targets


def learned_bits(n_bits: int, n_learned: int | None, targets: str, n_classes: int) -> int:
    """How many bits are learned from classes.

    Pairs of classes bound them: of two classes one bit can tell, and the others would repeat it. One at least: to a
    stream's first class others may come.
    """
    if n_learned is not None:
        return n_learned
    if targets != "frames":
        return n_bits
    return max(1, min(math.ceil(LEARNED_SHARE * n_bits), n_classes * (n_classes - 1) // 2))
