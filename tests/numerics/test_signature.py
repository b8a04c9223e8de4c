"""Signatures by product quantisation: 39 bits whose scores estimate distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stream_hash.errors import IntegrityError, UnlearnableError
from stream_hash.numerics import learned_signature as learned_signature_module
from stream_hash.numerics import product_quantiser
from stream_hash.numerics.asymmetric import table_scores
from stream_hash.numerics.embedded import EmbeddedHyperplanes
from stream_hash.numerics.learned import itq_signature
from stream_hash.numerics.learned_signature import SHARES, learned_signature
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.numerics.product_quantiser import CELLS, WIDTH
from stream_hash.numerics.ranking import exact_scores
from stream_hash.numerics.signature import Centroids, Signature
from stream_hash.numerics.unlabelled import itq_model
from stream_hash.settings import IndexSettings, Metric

METRICS: list[Metric] = ["cosine", "l2", "inner"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Centroids are learned from a few hundred vectors too."""
    monkeypatch.setattr(learned_signature_module, "LEAST", 0)


def digits() -> np.ndarray:
    x = load_digits(return_X_y=True)[0].astype(np.float32)
    return x[np.random.default_rng(0).permutation(len(x))]


def quantised(metric: Metric = "l2", seed: int = 0, dimension: int = 64) -> Signature:
    """One of random centroids."""
    rng = np.random.default_rng(seed)
    extra = metric == "inner"
    directions = rng.standard_normal((5 * WIDTH, dimension + extra)).astype(np.float32)
    directions[:, dimension:] = 0
    places = rng.standard_normal((sum(CELLS), WIDTH)).astype(np.float32)
    mean = rng.standard_normal(dimension).astype(np.float32)
    centroids = Centroids(places, rng.random(len(places), dtype=np.float32))
    return Signature(metric, directions, np.zeros(len(directions), np.float32), mean, 30.0, centroids)


def naive(signature: Signature, z: np.ndarray) -> tuple[int, list[int]]:
    """The code of a projected vector, and the row of each of its centroids."""
    assert signature.centroids is not None
    code, rows, start = 0, [], 0
    for group, cells in enumerate(CELLS):
        away = signature.centroids.places[start : start + cells].astype(float) - z[group * WIDTH : (group + 1) * WIDTH]
        nearest = int(np.square(away).sum(axis=1).argmin())
        code, rows, start = code * cells + nearest, [*rows, start + nearest], start + cells
    return code, rows


@pytest.mark.parametrize("metric", METRICS)
def test_codes_name_the_nearest_centroids_and_tables_score_them(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    signature = quantised(metric)
    assert signature.centroids is not None
    x = rng.standard_normal((50, 64)).astype(np.float32)
    codes = signature.codes(x)
    z = EmbeddedHyperplanes.margins(signature, x)
    oracle = [naive(signature, one) for one in z]
    assert codes.tolist() == [code for code, _ in oracle]
    assert codes.max() < 2**39
    queries = rng.standard_normal((4, 64)).astype(np.float32)
    asked = EmbeddedHyperplanes.margins(signature, queries, query=metric == "inner")
    scores = table_scores(signature.tables(queries), codes)
    for q, item in np.ndindex(4, 50):
        _, rows = oracle[item]
        stood_for = signature.centroids.places[rows].astype(float).ravel()
        expected = 2 * asked[q] @ stood_for - float(signature.centroids.taken_off[rows].sum())
        assert scores[q, item] == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_no_code_and_no_score_depends_on_the_batch(metric: Metric) -> None:
    signature = quantised(metric)
    x = np.random.default_rng(1).standard_normal((300, 64)).astype(np.float32)
    codes = signature.codes(x)
    for row in range(300):
        assert signature.codes(x[row : row + 1])[0] == codes[row]
    assert (signature.codes(x[::-1].copy()) == codes[::-1]).all()
    for one in (signature, lsh_model(IndexSettings(64, metric=metric), x).signature):
        tables = one.tables(x)
        assert all((one.tables(x[row : row + 1])[0] == tables[row]).all() for row in range(300))


def test_what_lies_between_two_centroids_goes_to_the_first_in_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The projections of these vectors are 0 but for rounding, and two centroids lie as far from there."""
    rng = np.random.default_rng(2)
    base = quantised()
    places = base.centroids.places.copy()  # type: ignore[union-attr]  # it has some
    starts = np.cumsum((0, *CELLS))
    for start in starts[:-1]:
        places[start + 3] = 1e-3 * rng.standard_normal(WIDTH)
        places[start + 9] = -places[start + 3]
    signature = Signature(
        "l2", base.hyperplanes, base.offsets, base.mean, 1.0, Centroids(places, base.centroids.taken_off)
    )  # type: ignore[union-attr]
    x = np.repeat(base.mean[None], 200, axis=0)
    x[::2] += rng.standard_normal((100, 64)).astype(np.float32)
    first = sum(3 * 256 ** (4 - group) for group in range(5))
    codes = signature.codes(x)
    assert set(codes[1::2].tolist()) == {first}
    assert all(signature.codes(x[row : row + 1])[0] == codes[row] for row in range(200))
    exact = []
    monkeypatch.setattr(
        product_quantiser,
        "nearest_cells_exactly",
        lambda z, _: exact.append(len(z)) or np.zeros(len(z), np.uint64),
    )
    signature.codes(x)
    assert exact == [100], "what rounding may have decided is settled exactly, and nothing else"


@pytest.mark.parametrize(("rows", "dimension"), [(300, 64), (400, 3)])
def test_few_items_and_few_dimensions_are_learned_from(rows: int, dimension: int) -> None:
    x = np.random.default_rng(0).standard_normal((rows, dimension)).astype(np.float32)
    signature = learned_signature(IndexSettings(dimension, metric="l2"), x)
    codes = signature.codes(x)
    assert all(signature.codes(x[row : row + 1])[0] == codes[row] for row in range(rows))
    assert signature.centroids is None or len(np.unique(codes)) > 100


def test_equal_vectors_cannot_be_learned_from() -> None:
    with pytest.raises(UnlearnableError, match="equal"):
        learned_signature(IndexSettings(8, metric="l2"), np.ones((300, 8), np.float32))
    with pytest.raises(UnlearnableError, match="equal"):
        product_quantiser.learned_directions(np.zeros((50, 8)))


def share_found(signature: Signature, items: np.ndarray, queries: np.ndarray, metric: Metric) -> float:
    scores = table_scores(signature.tables(queries), signature.codes(items))
    hits = 0
    for query, own in zip(queries, scores, strict=True):
        true = np.argsort(-exact_scores(query, items, metric))[:10]
        hits += len(set(true.tolist()) & set(np.argsort(-own)[:20].tolist()))
    return hits / 10 / len(queries)


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_learned_finds_more_than_random_signs_and_no_less_than_itq(metric: Metric) -> None:
    x = digits()
    settings = IndexSettings(64, metric=metric)
    items, queries = x[:1_500], x[1_500:1_600]
    found = {
        name: share_found(signature, items, queries, metric)
        for name, signature in (
            ("random", lsh_model(settings, items).signature),
            ("itq", itq_signature(settings, items)),
            ("learned", learned_signature(settings, items)),
        )
    }
    assert found["learned"] > found["random"] + 0.15
    assert found["learned"] > found["itq"] - 0.02, found


def test_where_distances_from_the_mean_differ_more_of_the_lengths_is_taken_off() -> None:
    """Signs are blind to what decides there."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((3_000, 24))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    same = direction.astype(np.float32)
    differing = (direction * rng.uniform(0.2, 2.0, size=(3_000, 1))).astype(np.float32)
    settings = IndexSettings(24, metric="l2")
    taken = []
    for x in (same, differing):
        signature = learned_signature(settings, x[:2_500])
        assert signature.centroids is not None
        lengths = product_quantiser.squared_lengths(signature.centroids.places)
        taken.append(float(signature.centroids.taken_off.sum() / lengths.sum()))
    assert taken[0] < taken[1]
    assert taken == pytest.approx([SHARES[np.abs(np.array(SHARES) - one).argmin()] for one in taken])
    itq = itq_signature(settings, differing[:2_500])
    found, signs = (share_found(one, differing[:2_500], differing[2_500:2_600], "l2") for one in (signature, itq))
    assert found > signs + 0.1


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_with_centroids_survives_its_arrays(metric: Metric) -> None:
    x = digits()[:1_000]
    model = itq_model(IndexSettings(64, bits=9, tables=2, metric=metric), x)
    assert model.centroids is not None
    again = Model.from_arrays(model.to_arrays())
    first, second = model.encode_queries(x), again.encode_queries(x)
    for name in ("codes", "margins", "signature_tables"):
        assert (getattr(first, name) == getattr(second, name)).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"centroids": np.zeros((sum(CELLS), WIDTH + 1), np.float32)},
        {"centroids": np.full((sum(CELLS), WIDTH), np.nan, np.float32)},
        {"centroids.taken_off": np.zeros(5, np.float32)},
        {"hyperplanes": np.zeros((39 + 9, 64), np.float32)},
    ],
)
def test_damaged_centroids_are_no_model(changes: dict[str, Any]) -> None:
    arrays = itq_model(IndexSettings(64, bits=9), digits()[:600]).to_arrays()
    with pytest.raises(IntegrityError):
        Model.from_arrays(arrays | changes)
    del arrays["centroids.taken_off"]
    with pytest.raises(IntegrityError) as caught:
        Model.from_arrays(arrays)
    assert "taken_off" in caught.value.why
