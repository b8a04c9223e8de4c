"""From a fitted GRH to the model that an index serves.

Folded while building, so that a vector goes through fewer and smaller products: the Nyström map's whitening into the
hyperplanes behind it, one coefficient a landmark and bit; scales into gamma and weights; means into offsets. A map of
power 1 without landmarks is hyperplanes in the space of the vectors, and is served as such. Bits that GRH puts beside
the learned ones, in the space of prepared vectors, are the network's plain ones. The learned come first, and bits are
dealt out to the tables, so that each has its share of both.

Margins of different bits are left as they were learned: dividing each bit's by its standard deviation changed
precision@10 at budgets of 40 and 300 by −.003 to +.001, mostly down (CIFAR-10's GIST, 4,000 held-out items, ridge and
passive-aggressive, three seeds). Parameters are stored as float32: what is served is what is stored, and it differs
from the GRH, whose parameters are float64, where a margin is within rounding of 0.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import UsageError
from stream_hash.numerics.feature_maps import FeatureMap, Hidden, Joined, Nystrom, Posterior, Prepared
from stream_hash.numerics.model import Model, dealt, embedding_of
from stream_hash.numerics.network import Activation, Layer, Network
from stream_hash.numerics.signature import Signature
from stream_hash.settings import SIGNATURE_BITS, IndexSettings

SIGNATURE_COMPONENTS = 96
SIGNATURE_WHITENING = 0.1
"""What did well on CIFAR-10's GIST: see rotation.py."""


class Learned(Protocol):
    """What GRH has after `fit`. hyperplanes_ : (n_bits, n_map_features). offsets_ : (n_bits,)."""

    feature_map_: FeatureMap
    hyperplanes_: NDArray[Any]
    offsets_: NDArray[Any]


def itq_signature(settings: IndexSettings, sample: NDArray[np.float32], seed: int = 0) -> Signature:
    """39 hyperplanes by ITQ. sample : (n, dimension) float32, no labels needed; 2,000 items and more serve well.

    Raises UnlearnableError for fewer than two different vectors. Imports scikit-learn.
    """
    hyperplanes = itq_hyperplanes(
        settings,
        sample,
        SIGNATURE_BITS,
        n_components=SIGNATURE_COMPONENTS,
        whitening=SIGNATURE_WHITENING,
        seed=seed,
    )
    mean, scale = embedding_of(settings, sample)
    # the sample's mean is embedded as 0, so what ITQ found as offsets is rounding
    return Signature(settings.metric, hyperplanes, np.zeros(SIGNATURE_BITS, np.float32), mean, scale)


def itq_hyperplanes(
    settings: IndexSettings,
    sample: NDArray[np.float32],
    n_bits: int,
    *,
    n_components: int | None = None,
    whitening: float = 0.0,
    seed: int,
) -> NDArray[np.float32]:
    """ITQ's hyperplanes through the sample's mean, which is embedded as 0. Returns (n_bits, embedded dimension).

    Under `inner` they lie along SIMPLE-LSH's extra coordinate, so that the margins of queries have no offset.
    """
    from stream_hash.numerics.rotation import ITQ

    mean, scale = embedding_of(settings, sample)
    rotation = ITQ(n_bits, n_components=n_components, whitening=whitening, random_state=seed).fit(
        prepared(settings, sample, mean) / scale
    )
    hyperplanes = np.zeros((n_bits, settings.dimension + (settings.metric == "inner")), dtype=np.float32)
    # `l2` and `cosine` embed without the scale, which only made the numbers of a handy size here
    hyperplanes[:, : settings.dimension] = rotation.hyperplanes_
    return hyperplanes


def prepared(settings: IndexSettings, sample: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sample about its mean, as it is embedded but for a scale. Returns (n, dimension)."""
    exact = sample.astype(np.float64)
    if settings.metric == "cosine":
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact - mean)


def learned_model(settings: IndexSettings, learned: Learned, signature: Signature) -> Model:
    """The model of a generation.

    learned : a fitted GRH of tables · bits bits, bit j for table j mod tables, whose `unit_length` is True under cosine
    and False under l2. Under inner either will do, and items and queries go through the same map, as the vectors that
    they are.
    signature : learned_signature.py, or the `signature` of the model before.

    Raises UsageError when these do not fit together.
    """
    network = network_of(learned)
    wanted = settings.tables * settings.bits, settings.dimension
    if (network.n_out, network.dimension) != wanted:
        raise UsageError(
            f"the learned map makes {network.n_out} bits of {network.dimension} coordinates",
            why=f"the index has {settings.tables} tables of {settings.bits} bits, and {settings.dimension} coordinates",
            remedy=f"learn {wanted[0]} bits",
        )
    if settings.metric != "inner" and network.unit_length != (settings.metric == "cosine"):
        raise UsageError(
            f"the map was learned with unit_length={network.unit_length}",
            why=f"the metric is {settings.metric}",
            remedy=f"learn with unit_length={settings.metric == 'cosine'}",
        )
    if (signature.metric, signature.dimension) != (settings.metric, settings.dimension):
        raise UsageError(
            f"the signature is for {signature.metric} and {signature.dimension} coordinates",
            why=f"the index has {settings.metric} and {settings.dimension}",
        )
    hyperplanes, offsets, rest = signature.hyperplanes, signature.offsets, [network]
    linear = network.power == 1.0 and network.landmarks is None and len(network.layers) == 1
    if settings.metric != "inner" and linear:
        weights = dealt(network.layers[0].weights, settings.tables).astype(np.float64)
        own = dealt(network.layers[0].offsets, settings.tables)
        # the learned mean gives way to the signature's
        shift = weights @ (signature.mean.astype(np.float64) - network.mean)
        hyperplanes = np.vstack([weights.astype(np.float32), hyperplanes])
        offsets = np.concatenate([(own + shift).astype(np.float32), offsets])
        rest = []
    return Model(
        metric=settings.metric,
        tables=settings.tables,
        bits=settings.bits,
        hyperplanes=hyperplanes,
        offsets=offsets,
        mean=signature.mean,
        scale=signature.scale,
        network=rest[0] if rest else None,
        centroids=signature.centroids,
    )


def network_of(learned: Learned) -> Network:
    """A fitted GRH as a network of the same margins, up to rounding. Raises UsageError for maps it does not know."""
    weights, offsets = learned.hyperplanes_, learned.offsets_
    feature_map, then = learned.feature_map_, "none"
    layers: list[Layer] = []
    plain: tuple[NDArray[Any], NDArray[Any]] | None = None
    if isinstance(feature_map, Joined):
        (weights, offsets), plain = _parted(feature_map, weights, offsets)
        feature_map = feature_map.base
    while isinstance(feature_map, (Posterior, Hidden)):
        if isinstance(feature_map, Posterior):
            layers.insert(0, _layer(weights, offsets - weights @ feature_map.mean, then))
            weights, offsets = (feature_map.temperature * part for part in (feature_map.weights, feature_map.offsets))
            then = "softmax"
        else:
            layers.insert(0, _layer(weights, offsets, then))
            weights, offsets, then = feature_map.weights, feature_map.offsets, "relu"
        feature_map = feature_map.base
    landmarks: NDArray[Any] | None = None
    gamma = 0.0
    if isinstance(feature_map, Nystrom):
        weights = weights @ feature_map.whitening.T
        landmarks, gamma = feature_map.landmarks, feature_map.gamma
        feature_map = feature_map.base
    if not isinstance(feature_map, Prepared):
        raise UsageError(f"a feature map is a {type(feature_map).__name__}", why="an index cannot serve that kind")
    scale = feature_map.scale
    beside = None if plain is None else _layer(scale * plain[0], plain[1], "none")
    if landmarks is None:
        weights = scale * weights
    else:
        landmarks, gamma = (landmarks / scale).astype(np.float32), gamma * scale**2
    layers.insert(0, _layer(weights, offsets, then))
    if beside is not None and landmarks is None and len(layers) == 1:  # all are hyperplanes
        layers = [
            Layer(np.vstack([layers[0].weights, beside.weights]), np.concatenate([layers[0].offsets, beside.offsets]))
        ]
        beside = None
    mean = feature_map.mean.astype(np.float32)
    return Network(feature_map.power, feature_map.unit_length, mean, landmarks, gamma, tuple(layers), beside)


def _parted(
    joined: Joined, weights: NDArray[Any], offsets: NDArray[Any]
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Weights and offsets of the bits that are learned, then of those that are plain.

    Raises UsageError for a bit that is both, and for plain bits before learned ones.
    """
    is_plain = np.count_nonzero(weights[:, joined.width :], axis=1) > 0
    count = len(weights) - int(is_plain.sum())
    if is_plain[:count].any() or weights[count:, : joined.width].any() or not count:
        raise UsageError("a joined map's bits are not learned ones first and plain ones after them")
    learned, plain = weights[:count, : joined.width], weights[count:, joined.width :]
    return (learned, offsets[:count]), (plain, offsets[count:])


def _layer(weights: NDArray[Any], offsets: NDArray[Any], then: str) -> Layer:
    step: Activation = then  # type: ignore[assignment]  # texts of ours
    return Layer(np.ascontiguousarray(weights, dtype=np.float32), np.asarray(offsets, dtype=np.float32), step)
