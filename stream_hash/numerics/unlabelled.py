"""A model that is learned without labels: the bits of the tables by ITQ (rotation.py).

Its bits keep apart what lies apart, whatever it is called: they find the nearest items, where GRH's find what shares
a label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.learned import itq_hyperplanes
from stream_hash.numerics.learned_signature import learned_signature
from stream_hash.numerics.model import Model
from stream_hash.settings import IndexSettings


def itq_model(settings: IndexSettings, sample: NDArray[np.float32], seed: int = 0) -> Model:
    """sample : (n, dimension) float32; under cosine none of zero length. 5,000 items and more serve well.

    Each table has a rotation of its own, begun from another random one: it cuts the same variance elsewhere.
    Raises UnlearnableError for fewer than two different vectors. Imports scikit-learn.
    """
    signature = learned_signature(settings, sample, seed)
    of_tables = [
        itq_hyperplanes(settings, sample, settings.bits, seed=seed + 1 + table) for table in range(settings.tables)
    ]
    hyperplanes = np.vstack([*of_tables, signature.hyperplanes])
    return Model(
        metric=settings.metric,
        tables=settings.tables,
        bits=settings.bits,
        hyperplanes=hyperplanes,
        offsets=np.zeros(len(hyperplanes), dtype=np.float32),
        mean=signature.mean,
        scale=signature.scale,
        centroids=signature.centroids,
    )
