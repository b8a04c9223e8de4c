from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.errors import IntegrityError
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.settings import IndexSettings, Metric

METRICS: tuple[Metric, ...] = ("cosine", "l2", "inner")


def vectors(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, dimension)).astype(np.float32) + 0.5


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize(("tables", "bits"), [(1, 1), (1, 16), (3, 7), (2, 62)])
def test_codes_are_those_of_the_loops(metric: Metric, tables: int, bits: int) -> None:
    x = vectors(60, 9)
    model = lsh_model(IndexSettings(9, bits=bits, tables=tables, metric=metric), x)
    naive = oracle.naive_codes(x, model.hyperplanes, model.mean, tables, bits, normalise=metric == "cosine")
    assert model.encode(x).codes.tolist() == naive


def test_inner_product_items_are_lifted_onto_the_unit_sphere() -> None:
    x = vectors(50, 6)
    model = lsh_model(IndexSettings(6, bits=20, metric="inner"), x)
    y = (x.astype(float) - model.mean) / model.scale
    lifted = np.hstack([y, np.sqrt(np.maximum(0, 1 - (y**2).sum(1)))[:, None]])
    bits = lifted @ model.hyperplanes[:20].T.astype(float) >= 0
    assert model.encode(x).codes[:, 0].tolist() == [int("".join("01"[int(b)] for b in row), 2) for row in bits]


def test_an_inner_product_item_longer_than_the_sample_is_scaled_down_not_refused() -> None:
    model = lsh_model(IndexSettings(6, metric="inner"), vectors(50, 6))
    far = model.mean + (vectors(3, 6) - model.mean) * np.float32(1000)
    assert np.isfinite(model.encode(far).margins).all()


def test_an_inner_product_query_is_hashed_by_its_direction_alone() -> None:
    model = lsh_model(IndexSettings(6, bits=40, metric="inner"), vectors(50, 6))
    query = vectors(1, 6, seed=3) - 1
    once, scaled = model.encode_queries(query), model.encode_queries(query * np.float32(512))
    assert once.codes == scaled.codes
    directions = query[0].astype(float) @ model.hyperplanes[:40, :6].T.astype(float)
    assert once.codes[0, 0] == int("".join("01"[int(d >= 0)] for d in directions), 2)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 40))
def test_a_code_does_not_depend_on_the_batch(metric: Metric, seed: int, size: int) -> None:
    x = vectors(40, 33, seed)
    # near-ties on purpose: vectors that lie almost on a hyperplane
    model = lsh_model(IndexSettings(33, bits=24, metric=metric, seed=seed), x)
    normals = model.hyperplanes[:20, :33].astype(np.float64)
    base = x[:20].astype(np.float64)
    base -= ((base - model.mean) * normals).sum(1, keepdims=True) * normals / (normals**2).sum(1, keepdims=True)
    x[:20] = base
    whole, part = model.encode(x), model.encode(x[:size])
    assert (whole.codes[:size] == part.codes).all()
    assert (whole.signatures[:size] == part.signatures).all()


def test_hyperplanes_depend_on_the_seed_alone() -> None:
    one = lsh_model(IndexSettings(8, seed=1), vectors(10, 8))
    same = lsh_model(IndexSettings(8, seed=1), vectors(10, 8, seed=9))
    other = lsh_model(IndexSettings(8, seed=2), vectors(10, 8))
    assert (one.hyperplanes == same.hyperplanes).all()
    assert (one.hyperplanes != other.hyperplanes).any()


def test_two_vectors_collide_on_a_bit_with_probability_one_minus_their_angle_over_pi() -> None:
    """Charikar 2002, section 3: the statistical truth of the hash, within four standard errors."""
    angle = 1.0
    pair = np.array([[1, 0, 0], [np.cos(angle), np.sin(angle), 0]], dtype=np.float32)
    trials = 400 * 62
    same = 0
    for seed in range(400):
        model = lsh_model(IndexSettings(3, bits=62, seed=seed), np.empty((0, 3), np.float32))
        first, second = model.encode(pair).codes[:, 0].tolist()
        same += 62 - (first ^ second).bit_count()
    expected = 1 - angle / np.pi
    assert abs(same / trials - expected) < 4 * np.sqrt(expected * (1 - expected) / trials)


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_survives_its_arrays(metric: Metric) -> None:
    x = vectors(20, 5)
    model = lsh_model(IndexSettings(5, bits=9, tables=2, metric=metric), x)
    again = Model.from_arrays(model.to_arrays())
    assert (again.encode(x).codes == model.encode(x).codes).all()
    assert again.scale == model.scale


def test_arrays_of_another_shape_are_refused() -> None:
    arrays = lsh_model(IndexSettings(5), np.empty((0, 5), np.float32)).to_arrays()
    with pytest.raises(IntegrityError, match="shape"):
        Model.from_arrays(arrays | {"hyperplanes": arrays["hyperplanes"][:-1]})
    with pytest.raises(IntegrityError):
        Model.from_arrays({"mean": arrays["mean"]})
