"""A signature that prunes well, chosen among a few by what they find of each other's nearest in a sample.

The signs of ITQ's hyperplanes see twice as many directions as product quantisation, and weigh what varies little nearly
like what varies much; product quantisation sees how far off an item lies. Which of them prunes better is the data's to
say, and so is what share of the centroids' lengths is to be taken off.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics import product_quantiser
from stream_hash.numerics.asymmetric import table_scores
from stream_hash.numerics.embedded import EmbeddedHyperplanes
from stream_hash.numerics.held_out import nearest_first
from stream_hash.numerics.learned import itq_signature, prepared
from stream_hash.numerics.model import embedding_of
from stream_hash.numerics.signature import Centroids, Signature
from stream_hash.settings import IndexSettings

SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of centroids' squared lengths, taken off. Of the true ten the best 200 of 40,000 GIST descriptors held .29, .48, .66,
.77 and .79; of those at one distance from their mean .81, .85, .86, .84 and .76 (ITQ: .63 and .73)."""

LEAST: Final = 2_000
"""Vectors in a sample from which hundreds of centroids are worth learning. Among fewer there is little to prune."""

ASKED: Final = 200
"""Vectors of the sample that are queries to the judges."""

JUDGES: Final = 0.25
"""Share of the sample that nothing is learned from, to choose by."""

NEAREST: Final = 10
KEPT_SHARE: Final = 0.02
"""Of the judges, that is kept for a query."""


def learned_signature(settings: IndexSettings, sample: NDArray[np.float32], seed: int = 0) -> Signature:
    """The one that finds most. sample : (n, dimension) float32, no labels needed; 5,000 items and more serve well.

    Raises UnlearnableError for fewer than two different vectors. Imports scikit-learn.
    """
    if len(sample) < LEAST:
        return itq_signature(settings, sample, seed)
    order = np.random.default_rng(seed).permutation(len(sample))[: product_quantiser.LEARNED_FROM]
    queries, judges, items = np.split(sample[order], [ASKED, ASKED + round(JUDGES * len(order))])
    nearest = nearest_first(np.concatenate([queries, judges]), np.arange(len(queries)), settings.metric)
    nearest = nearest[nearest >= len(queries)].reshape(len(queries), -1)[:, :NEAREST] - len(queries)
    signs, *quantised = candidates = [itq_signature(settings, items, seed), *_quantised(settings, items, seed)]
    # what is taken off changes scores and no code
    codes = [signs.codes(judges)] + [quantised[0].codes(judges)] * len(quantised)
    found = [_found(one.tables(queries), own, nearest) for one, own in zip(candidates, codes, strict=True)]
    return candidates[int(np.argmax(found))]


def _quantised(settings: IndexSettings, sample: NDArray[np.float32], seed: int) -> list[Signature]:
    """By product quantisation, with each share of the lengths taken off; under `inner` with none."""
    mean, scale = embedding_of(settings, sample)
    # along SIMPLE-LSH's extra coordinate, if there is one, so that queries have no offset
    directions = np.zeros((product_quantiser.ROWS, settings.dimension + (settings.metric == "inner")), np.float32)
    directions[:, : settings.dimension] = product_quantiser.learned_directions(prepared(settings, sample, mean))
    none = np.zeros(len(directions), np.float32)
    projected, _ = EmbeddedHyperplanes(settings.metric, directions, none, mean, scale).rounded(sample)
    places = product_quantiser.learned_centroids(projected, seed)
    lengths = product_quantiser.squared_lengths(places)
    return [
        Signature(settings.metric, directions, none, mean, scale, Centroids(places, np.float32(share) * lengths))
        for share in (SHARES if settings.metric != "inner" else SHARES[:1])
    ]


def _found(tables: NDArray[np.float32], codes: NDArray[np.uint64], nearest: NDArray[np.intp]) -> float:
    """The share of the nearest that is among the best by signature. tables : of the queries. codes : of the judges."""
    kept = max(NEAREST, round(KEPT_SHARE * len(codes)))
    hits = 0
    for own, true in zip(tables, nearest, strict=True):
        scores = table_scores(own[None], codes)[0]
        hits += int(np.isin(np.argpartition(-scores, kept - 1)[:kept], true).sum())
    return hits / nearest.size
