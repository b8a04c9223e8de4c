"""Where learning starts from: hyperplanes at random, by ITQ, or those of another model."""

from __future__ import annotations

from typing import Any

import numpy as np

from stream_hash.errors import UnlearnableError
from stream_hash.numerics.feature_maps import Matrix, Nystrom, Prepared
from stream_hash.numerics.learners import Hyperplanes, Ridge

SAMPLE = 2_048


def first_hyperplanes(
    init: Any, base: Prepared | Nystrom, x: Matrix, n_bits: int, rng: np.random.Generator
) -> Hyperplanes:
    """Hyperplanes in the space of the features.

    init : "lsh", Gaussian through the features' mean; "itq"; or an object whose decision_function returns margins for
    x, whose bits are then imitated by ridge regression. x : (n, n_features).
    Raises UnlearnableError for margins of another shape than (n, n_bits).
    """
    if isinstance(init, str) and init == "lsh":
        mean = base.features(x[:SAMPLE]).mean(axis=0).astype(np.float64)
        weights = rng.standard_normal((n_bits, len(mean)))
        return weights, -weights @ mean
    features = base.features(x).astype(np.float64)
    if isinstance(init, str) and init == "itq":
        from stream_hash.numerics.rotation import ITQ

        rotation = ITQ(n_bits=n_bits, random_state=int(rng.integers(2**31))).fit(features)
        return rotation.hyperplanes_, rotation.offsets_
    margins = np.asarray(init.decision_function(x))
    if margins.shape != (len(x), n_bits):
        raise UnlearnableError(
            f"init returns margins of shape {margins.shape} where {(len(x), n_bits)} are needed",
            remedy=f"take a model of {n_bits} bits",
        )
    imitation = Ridge(features.shape[1], n_bits, 1e-3)
    imitation.add(features, np.where(margins >= 0, 1.0, -1.0))
    return imitation.hyperplanes()
