"""The ways of hashing that can be compared, by name.

A hasher is an estimator: `fit(X, y)` with the training items and their classes, and
`decision_function(X)`, whose signs are the bits. It is given vectors of unit length, and centres them by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import StreamHashError, UsageError

TUTORIAL_ROUNDS: Final = 2
"""What gives the tutorial's figure: precision@10 of 0.27 at radius 0 (mean of six seeds; one round 0.20, four 0.33)."""


class Hasher(Protocol):
    """What can be fitted, and gives margins."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """X : (n_samples, n_features). y : (n_samples,) classes, or (n_samples, n_classes) membership."""

    def decision_function(self, X: Any) -> NDArray[np.floating[Any]]:
        """Returns (n_samples, bits)."""


def _lsh(bits: int, seed: int) -> Hasher:
    from stream_hash.numerics.lsh import LSH

    return LSH(n_bits=bits, random_state=seed)


def _itq(bits: int, seed: int) -> Hasher:
    from stream_hash.numerics.rotation import ITQ

    return ITQ(n_bits=bits, random_state=seed)


def _tutorial(bits: int, seed: int) -> Hasher:
    from stream_hash.numerics.tutorial import TutorialGRH

    return TutorialGRH(n_bits=bits, n_iter=TUTORIAL_ROUNDS, random_state=seed)


def _grh(bits: int, seed: int) -> Hasher:
    from stream_hash.numerics.grh import GRH

    return GRH(n_bits=bits, random_state=seed)


def _grh_cv(bits: int, seed: int) -> Hasher:
    from stream_hash.numerics.selection import GRHCV

    return GRHCV(n_bits=bits, random_state=seed)


METHODS: Final[dict[str, Callable[[int, int], Hasher]]] = {
    "lsh": _lsh,
    "itq": _itq,
    "tutorial": _tutorial,
    "grh": _grh,
    "grh-cv": _grh_cv,
}
"""For each name, what makes a hasher of so many bits from a seed. Importing the learners takes a second: it waits."""

DEFAULTS: Final = ("lsh", "itq", "tutorial", "grh")
"""Those compared unless others are asked for: grh-cv fits some sixty times before it has chosen."""

HYPERPLANES: Final = ("lsh", "itq", "tutorial")
"""Those that are hyperplanes in the space of the vectors, as `hyperplanes_of` wants them."""


def fitted(method: str, bits: int, seed: int, X: NDArray[np.float32], y: Any) -> Hasher:
    """The hasher of that name, trained. X : (n, dimension) float32, of unit length; y : as in `Hasher.fit`.

    Raises UsageError for an unknown name, and StreamHashError when these items cannot be learned from.
    """
    if method not in METHODS:
        raise UsageError(
            f"there is no method {method!r}", why=f"there are {', '.join(METHODS)}", remedy="choose among them"
        )
    hasher = METHODS[method](bits, seed)
    try:
        hasher.fit(X, y)
    except ValueError as error:
        raise StreamHashError(
            f"{method} with {bits} bits cannot be trained on these {len(X)} items",
            why=f"{error}: {error.why}" if isinstance(error, StreamHashError) and error.why else str(error),
            remedy=(error.remedy if isinstance(error, StreamHashError) else "")
            or "give more training items (--train), or fewer bits",
        ) from error
    return hasher


def hyperplanes_of(
    hasher: Hasher, examples: NDArray[np.float32], name: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """W and b of a hasher whose margins of unit vectors x are W·x + b: (bits, dimension) and (bits,) float32.

    examples : (n, dimension) unit vectors, on which that is checked. name : for the message.
    Raises StreamHashError when it is not so.
    """
    axes = np.eye(examples.shape[1])
    forward, backward = hasher.decision_function(axes), hasher.decision_function(-axes)
    weights = (forward - backward).T / 2
    offsets = (forward + backward).mean(axis=0) / 2
    margins = hasher.decision_function(examples)
    error = np.abs(examples @ weights.T + offsets - margins).max(initial=0.0)
    if error > 1e-3 * np.abs(margins).max(initial=0.0):
        raise StreamHashError(
            f"{name} cannot be put into an index",
            why="its hyperplanes come after a feature map, which an index cannot hold in this release",
            remedy="leave the method out (--methods), or leave out --index",
        )
    return weights.astype(np.float32), offsets.astype(np.float32)
