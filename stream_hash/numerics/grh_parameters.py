"""What GRH's parameters may be, and what None stands for."""

from __future__ import annotations

from typing import Any

from stream_hash.numerics.unlearnable import UnlearnableError

CHOICES: dict[str, tuple[Any, ...]] = {
    "learner": ("ridge", "svm", "pa", "mlp"),
    "targets": ("code_words", "smoothed", "frames"),
    "feature_map": (None, "rbf", "posterior"),
}
ONLINE = ("ridge", "pa")
C = {"ridge": 3.0, "svm": 1.0, "pa": 0.5, "mlp": 10.0}
TEMPERATURE = {"code_words": 4.0, "frames": 8.0}


def check_parameters(parameters: dict[str, Any]) -> None:
    """Raises UnlearnableError, naming the first value that cannot be."""
    for name, allowed in CHOICES.items():
        if parameters[name] not in allowed:
            raise UnlearnableError(f"{name} is {parameters[name]!r}", remedy=f"choose one of {allowed}")
    for name in ("n_bits", "n_components", "n_iter", "n_neighbors", "n_hidden"):
        if parameters[name] < 1:
            raise UnlearnableError(f"{name} is {parameters[name]}", remedy="take 1 or more")
    for name in ("alpha", "graph_weight"):
        if not 0 <= parameters[name] <= 1:
            raise UnlearnableError(f"{name} is {parameters[name]}", remedy="take a weight from 0 to 1")
    for name in ("C", "gamma", "temperature", "power"):
        if parameters[name] is not None and not parameters[name] > 0:
            raise UnlearnableError(f"{name} is {parameters[name]}", remedy="take more than 0")
    n_directions, n_bits = parameters["n_directions"], parameters["n_bits"]
    if n_directions is not None and not 1 <= n_directions <= n_bits:
        raise UnlearnableError(f"n_directions is {n_directions}", remedy=f"take 1 to n_bits, which is {n_bits}")
    if parameters["targets"] == "frames" and parameters["feature_map"] != "posterior":
        raise UnlearnableError("targets is 'frames', directions of posteriors", remedy="take feature_map='posterior'")
    if parameters["targets"] == "smoothed" and parameters["feature_map"] == "posterior":
        raise UnlearnableError(
            "targets is 'smoothed', and feature_map='posterior' learns classes", remedy="take feature_map='rbf'"
        )
