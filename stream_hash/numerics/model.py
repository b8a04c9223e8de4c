"""A model: all that hashes. Vectors in, codes and signatures out.

The bits of the tables are the sides of hyperplanes that an embedded vector is on (embedded.py), or the signs of a
learned network's margins (network.py): [margin ≥ 0]. The signature's 39 bits are sides of hyperplanes too, or the
numbers of the nearest centroids (signature.py). No bit depends on what else was in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast, get_args

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError
from stream_hash.numerics.codes import pack_bits
from stream_hash.numerics.embedded import EmbeddedHyperplanes
from stream_hash.numerics.hyperplanes import gaussian_hyperplanes
from stream_hash.numerics.network import Network
from stream_hash.numerics.product_quantiser import TOTAL, WIDTH
from stream_hash.numerics.signature import Centroids, Signature, rows_of
from stream_hash.numerics.stored import stored_array, stored_float32, stored_number
from stream_hash.settings import MAX_BITS, MAX_TABLES, SIGNATURE_BITS, IndexSettings, Metric

_NETWORK: Final = "network."
"""What the names of a network's arrays begin with."""


@dataclass(frozen=True)
class Encoded:
    """Hashed vectors. codes : (n, tables) uint64. signatures : (n,) uint64.

    margins : (n, tables · bits) float32, what the codes are the signs of: distances from hyperplanes, or those which a
    network has learned.
    """

    codes: NDArray[np.uint64]
    signatures: NDArray[np.uint64]
    margins: NDArray[np.float32]


@dataclass(frozen=True)
class EncodedQueries:
    """Hashed queries. codes, margins : as those of items.

    signature_tables : (n, 5, 256) float32, what each byte of an item's signature adds to a query's score.
    """

    codes: NDArray[np.uint64]
    margins: NDArray[np.float32]
    signature_tables: NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """hyperplanes : (n_hyperplanes, embedded dimension) float32, offsets : (n_hyperplanes,) float32. The last 39 are
    the signature's, or its 40 directions if it has centroids; before them come those of the tables, tables · bits of
    them, unless there is a network.

    mean : (dimension,) float32. scale : largest norm of an item about the mean, used by `inner` only.
    network : its outputs are the margins of the tables' bits, dealt out: output j is a bit of table j mod tables, so
    that each table has its share of the first and of the last; None for hyperplanes. Under `inner` items and queries
    go through it alike, as the vectors that they are.
    """

    metric: Metric
    tables: int
    bits: int
    hyperplanes: NDArray[np.float32]
    offsets: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: float = 1.0
    network: Network | None = None
    centroids: Centroids | None = None

    @property
    def dimension(self) -> int:
        return len(self.mean)

    @cached_property
    def signature(self) -> Signature:
        """What makes signatures: the next generation may carry it on."""
        last = slice(len(self.offsets) - rows_of(self.centroids), None)
        return Signature(self.metric, self.hyperplanes[last], self.offsets[last], self.mean, self.scale, self.centroids)

    @cached_property
    def _of_tables(self) -> EmbeddedHyperplanes:
        first = slice(len(self.offsets) - rows_of(self.centroids))
        return EmbeddedHyperplanes(self.metric, self.hyperplanes[first], self.offsets[first], self.mean, self.scale)

    @cached_property
    def _of_all_bits(self) -> EmbeddedHyperplanes:
        """Those of the tables and of a signature that is signs."""
        return EmbeddedHyperplanes(self.metric, self.hyperplanes, self.offsets, self.mean, self.scale)

    def encode(self, vectors: NDArray[np.float32]) -> Encoded:
        """Hash items. vectors : (n, dimension) float32, finite; under cosine none of zero length."""
        if self.network is None and self.centroids is None:  # all of it is one product
            margins, of_signature = np.split(self._of_all_bits.margins(vectors), [-SIGNATURE_BITS], axis=1)
            signatures = pack_bits(of_signature >= 0)
        else:
            margins, signatures = self._margins(vectors, query=False), self.signature.codes(vectors)
        return Encoded(self._codes(margins), signatures, margins.astype(np.float32))

    def encode_queries(self, vectors: NDArray[np.float32]) -> EncodedQueries:
        """Hash queries; the same as `encode` except for hyperplanes under `inner`, which is asymmetric."""
        margins = self._margins(vectors, query=self.metric == "inner")
        return EncodedQueries(self._codes(margins), margins.astype(np.float32), self.signature.tables(vectors))

    def _margins(self, vectors: NDArray[np.float32], *, query: bool) -> NDArray[np.float64]:
        """Of the tables' bits."""
        if self.network is None:
            return self._of_tables.margins(vectors, query=query)
        return dealt(self.network.margins(vectors).T, self.tables).T

    def _codes(self, margins: NDArray[np.float64]) -> NDArray[np.uint64]:
        return pack_bits((margins >= 0).reshape(-1, self.bits)).reshape(len(margins), self.tables)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The model as arrays, to be stored; `from_arrays` is the way back."""
        arrays: dict[str, NDArray[Any]] = {
            "metric": np.array(self.metric),
            "shape": np.array([self.tables, self.bits], dtype=np.int64),
            "hyperplanes": self.hyperplanes,
            "offsets": self.offsets,
            "mean": self.mean,
            "scale": np.array(self.scale, dtype=np.float64),
        }
        if self.centroids is not None:
            arrays |= {"centroids": self.centroids.places, "centroids.taken_off": self.centroids.taken_off}
        return arrays if self.network is None else arrays | self.network.to_arrays(_NETWORK)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Model:
        """Raises IntegrityError when the arrays are not those of a model."""
        metric = str(stored_array(arrays, "metric", "U", 0))
        shape = stored_array(arrays, "shape", "i", 1).tolist()
        scale = stored_number(arrays, "scale")
        limits = len(shape) == 2 and 1 <= shape[0] <= MAX_TABLES and 1 <= shape[1] <= MAX_BITS
        if metric not in get_args(Metric) or not limits or scale <= 0:
            raise IntegrityError(f"a model is of metric {metric!r}, shape {shape}, scale {scale}")
        tables, bits = shape
        network = None
        if any(name.startswith(_NETWORK) for name in arrays):
            network = Network.from_arrays(arrays, _NETWORK)
        mean = stored_float32(arrays, "mean", (-1,))
        if network is not None and (network.n_out, network.dimension) != (tables * bits, len(mean)):
            raise IntegrityError(
                f"a model's network makes {network.n_out} margins of {network.dimension} coordinates",
                why=f"expected {tables * bits} of {len(mean)}",
            )
        centroids = None
        if "centroids" in arrays:
            centroids = Centroids(
                stored_float32(arrays, "centroids", (TOTAL, WIDTH)),
                stored_float32(arrays, "centroids.taken_off", (TOTAL,)),
            )
        rows = rows_of(centroids) + (tables * bits if network is None else 0)
        return cls(
            metric=cast("Metric", metric),
            tables=tables,
            bits=bits,
            hyperplanes=stored_float32(arrays, "hyperplanes", (rows, len(mean) + (metric == "inner"))),
            offsets=stored_float32(arrays, "offsets", (rows,)),
            mean=mean,
            scale=scale,
            network=network,
            centroids=centroids,
        )


def dealt(rows: NDArray[Any], tables: int) -> NDArray[Any]:
    """Rows by table, dealt out as cards are: row j goes to table j mod tables. len(rows) is a multiple of tables."""
    return np.concatenate([rows[table::tables] for table in range(tables)])


def lsh_model(settings: IndexSettings, sample: NDArray[np.float32]) -> Model:
    """Generation 1: seeded Gaussian hyperplanes through the mean of a sample.

    sample : (n, dimension) float32, finite; under cosine none of zero length. n = 0 means no mean is known:
    zero, and unit scale.

    The hyperplanes depend on the settings alone; the sample fixes the mean and, for `inner`, the scale.
    """
    rng = np.random.default_rng(settings.seed)
    rows = settings.tables * settings.bits + SIGNATURE_BITS
    hyperplanes = gaussian_hyperplanes(rng, rows, settings.dimension + (settings.metric == "inner"))
    mean, scale = embedding_of(settings, sample)
    return Model(
        metric=settings.metric,
        tables=settings.tables,
        bits=settings.bits,
        hyperplanes=hyperplanes,
        offsets=np.zeros(rows, dtype=np.float32),
        mean=mean,
        scale=scale,
    )


def embedding_of(settings: IndexSettings, sample: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The mean and the scale of a sample, as `lsh_model` takes it."""
    if not len(sample):
        return np.zeros(settings.dimension, dtype=np.float32), 1.0
    exact = sample.astype(np.float64)
    if settings.metric == "cosine":
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    mean = exact.mean(axis=0)
    scale = float(np.linalg.norm(exact - mean, axis=1).max()) or 1.0
    return mean.astype(np.float32), scale
