from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as OracleRidge

from stream_hash.errors import IntegrityError, UnlearnableError
from stream_hash.numerics import learners
from stream_hash.numerics.feature_maps import (
    Hidden,
    Posterior,
    fit_nystrom,
    fit_prepared,
    map_from_arrays,
    map_to_arrays,
    rbf_kernel,
)
from stream_hash.numerics.learners import PassiveAggressive, Ridge, hidden_layer, svm_hyperplanes


def problem(count: int = 300, dimension: int = 8, outputs: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points and the sides of hyperplanes off the origin they are on, a tenth of them wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, dimension)) / np.sqrt(dimension)
    sides = np.where(x @ rng.normal(size=(dimension, outputs)) + rng.normal(size=outputs) * 0.3 >= 0, 1.0, -1.0)
    return x, sides * np.where(rng.random(sides.shape) < 0.1, -1.0, 1.0)


def agreement(x: np.ndarray, targets: np.ndarray, weights: np.ndarray, offsets: np.ndarray) -> float:
    return float(((x @ weights.T + offsets >= 0) == (targets > 0)).mean())


def naive_pa(x: np.ndarray, targets: np.ndarray, cap: float) -> np.ndarray:
    """PA-I of figure 1, a single output, with the constant coordinate."""
    w = np.zeros(x.shape[1] + 1)
    for row, target in zip(np.hstack([x, np.ones((len(x), 1))]), targets, strict=True):
        loss = max(0.0, 1.0 - target * (w @ row))
        w = w + min(cap, loss / (row @ row)) * target * row
    return w


def test_ridge_is_the_solution_of_scikit_learn() -> None:
    x, targets = problem()
    learner = Ridge(8, 4, 0.7)
    learner.add(x, targets)
    weights, offsets = learner.hyperplanes()
    oracle = OracleRidge(alpha=0.7).fit(x, targets)
    np.testing.assert_allclose(weights, oracle.coef_, atol=1e-9)
    np.testing.assert_allclose(offsets, oracle.intercept_, atol=1e-9)


def test_ridge_in_pieces_is_ridge_at_once() -> None:
    x, targets = problem()
    whole, pieces = Ridge(8, 4, 0.7), Ridge(8, 4, 0.7)
    whole.add(x, targets)
    for part in np.array_split(np.arange(len(x)), 20):
        pieces.add(x[part], targets[part])
    np.testing.assert_allclose(pieces.hyperplanes()[0], whole.hyperplanes()[0], atol=1e-9)


def test_an_output_that_ridge_grows_was_minus_one_for_all_items_before() -> None:
    x, targets = problem(outputs=3)
    targets[:200, 2] = -1.0
    whole, grown = Ridge(8, 3, 0.7), Ridge(8, 2, 0.7)
    whole.add(x, targets)
    grown.add(x[:200], targets[:200, :2])
    grown.grow(1)
    grown.add(x[200:], targets[200:])
    np.testing.assert_allclose(grown.hyperplanes()[0], whole.hyperplanes()[0], atol=1e-9)


def test_ridge_refuses_a_matrix_that_does_not_fit_into_memory() -> None:
    with pytest.raises(UnlearnableError, match="ridge on 16384 features") as raised:
        Ridge(16_384, 16, 1.0)
    assert "rbf" in raised.value.remedy


@pytest.mark.parametrize("block", [1, 7, 256])
def test_passive_aggressive_steps_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(learners, "BLOCK", block)
    x, targets = problem()
    learner = PassiveAggressive(8, 4, 0.2)
    learner.add(x, targets)
    same = learner.scale * (x - learner.middle)
    assert (same**2).sum(axis=1).mean() == pytest.approx(1.0)
    np.testing.assert_allclose(learner.weights, [naive_pa(same, column, 0.2) for column in targets.T], atol=1e-9)


def test_passive_aggressive_hands_out_the_mean_of_its_iterates() -> None:
    x, targets = problem(count=100)
    learner = PassiveAggressive(8, 1, 0.2)
    learner.add(x, targets[:, :1])
    same = learner.scale * (x - learner.middle)
    mean = np.mean([naive_pa(same[: i + 1], targets[: i + 1, 0], 0.2) for i in range(100)], axis=0)
    weights, offsets = learner.hyperplanes()
    np.testing.assert_allclose(x @ weights[0] + offsets[0], same @ mean[:-1] + mean[-1], atol=1e-9)


def test_every_learner_finds_hyperplanes_off_the_origin() -> None:
    x, targets = problem(count=800)
    ridge, online = Ridge(8, 4, 0.3), PassiveAggressive(8, 4, 0.03)
    ridge.add(x, targets)
    for _ in range(5):
        online.add(x, targets)
    for weights, offsets in (ridge.hyperplanes(), online.hyperplanes(), svm_hyperplanes(x, targets, 1.0, 0)):
        assert agreement(x, targets, weights, offsets) > 0.85
    _, through_the_origin = svm_hyperplanes(x, targets, 1.0, 0, intercept=False)
    assert (through_the_origin == 0).all()


def test_a_network_learns_what_no_hyperplane_separates() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    targets = np.sign(x[:, :1] * x[:, 1:])
    (inner, shifts), outer = hidden_layer(x, targets, 0.01, 32, 0)
    assert agreement(np.maximum(0, x @ inner.T + shifts), targets, *outer) > 0.9
    ridge = Ridge(2, 1, 0.1)
    ridge.add(x, targets)
    assert agreement(x, targets, *ridge.hyperplanes()) < 0.7


def test_prepared_features_have_mean_zero_and_length_one_on_the_average() -> None:
    x = np.random.default_rng(0).random((200, 7))
    features = fit_prepared(x, 0.5, unit_length=True).features(x)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-12)
    assert (features**2).sum(axis=1).mean() == pytest.approx(1.0)


def test_nystrom_is_exact_on_its_landmarks() -> None:
    x = np.random.default_rng(1).random((60, 5))
    base = fit_prepared(x, 1.0, unit_length=False)
    features = fit_nystrom(base, x, np.random.default_rng(0), 60, 0.8).features(x)
    prepared = base.features(x)
    np.testing.assert_allclose(features @ features.T, rbf_kernel(prepared, prepared, 0.8), atol=1e-4)


def test_gamma_is_by_default_two_over_the_median_squared_distance() -> None:
    x = np.random.default_rng(1).random((60, 5))
    base = fit_prepared(x, 1.0, unit_length=False)
    prepared = base.features(x)
    distances = [((a - b) ** 2).sum() for i, a in enumerate(prepared) for b in prepared[:i]]
    assert fit_nystrom(base, x, np.random.default_rng(0), 20, None).gamma == pytest.approx(2 / np.median(distances))


def test_fewer_samples_than_components_make_a_map_of_the_samples() -> None:
    x = np.random.default_rng(1).random((9, 5))
    nystrom = fit_nystrom(fit_prepared(x, 1.0, unit_length=True), x, np.random.default_rng(0), 500, None)
    assert nystrom.features(x).shape == (9, 9)


def test_repeated_samples_do_not_break_the_kernel_map() -> None:
    x = np.repeat(np.random.default_rng(1).random((3, 5)), 10, axis=0)
    nystrom = fit_nystrom(fit_prepared(x, 1.0, unit_length=True), x, np.random.default_rng(0), 30, None)
    assert np.isfinite(nystrom.features(x)).all()


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("unit_length", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_margins_are_those_of_the_features_for_every_map(power: float, unit_length: bool, dtype: type) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 6)).astype(dtype)
    x[0] = 0
    prepared = fit_prepared(x, power, unit_length)
    nystrom = fit_nystrom(prepared, x, rng, 10, None)
    hidden = Hidden(nystrom, rng.normal(size=(7, 10)), rng.normal(size=7))
    posterior = Posterior(hidden, rng.normal(size=(3, 7)), rng.normal(size=3), 2.0, np.full(3, 0.3))
    for feature_map, width in ((prepared, 6), (nystrom, 10), (hidden, 7), (posterior, 3)):
        weights, offsets = rng.normal(size=(4, width)), rng.normal(size=4)
        margins = feature_map.margins(x, weights, offsets)
        assert margins.dtype == dtype
        expected = feature_map.features(x) @ weights.T + offsets
        np.testing.assert_allclose(margins, expected, atol=1e-9 if dtype is np.float64 else 2e-3)
        same = map_from_arrays(map_to_arrays(feature_map))
        assert (same.margins(x, weights, offsets) == margins).all()


def test_posteriors_sum_to_one() -> None:
    x = np.random.default_rng(3).normal(size=(20, 4))
    prepared = fit_prepared(x, 1.0, unit_length=True)
    weights = np.random.default_rng(4).normal(size=(3, 4))
    posterior = Posterior(prepared, weights, np.zeros(3), 5.0, np.zeros(3)).features(x)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)


def test_arrays_of_something_else_are_not_a_map() -> None:
    with pytest.raises(IntegrityError):
        map_from_arrays({"map.kind": np.array("prepared")})
