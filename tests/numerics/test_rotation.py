from __future__ import annotations

import numpy as np
import pytest
from conventions import checks_of

from stream_hash.errors import UsageError
from stream_hash.numerics.rotation import ITQ


def clustered(count: int = 400, dimension: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, dimension + 1) ** -0.7
    return (rng.standard_normal((count, dimension)) + 2 * rng.integers(0, 2, (count, dimension))) * spectrum + 3


@checks_of([ITQ(n_bits=3, random_state=0), ITQ(n_bits=16, n_components=5, whitening=0.2)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_takes_it_for_an_estimator(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


@pytest.mark.parametrize("options", [{}, {"n_components": 3}, {"n_components": 11}, {"whitening": 0.3}])
@pytest.mark.parametrize("bits", [1, 6, 12, 30])
def test_no_turn_raises_the_loss_and_the_turns_lower_it(bits: int, options: dict[str, float]) -> None:
    losses = ITQ(bits, random_state=1, **options).fit(clustered()).quantisation_losses_  # type: ignore[arg-type]
    assert len(losses) == 51
    assert np.diff(losses).max() < 1e-9 * losses[0]
    assert losses[-1] < losses[0] or bits == 1


def test_the_loss_is_the_papers_and_hyperplanes_are_the_rotated_principal_directions() -> None:
    x = clustered()
    model = ITQ(5, random_state=0).fit(x)
    total = 0.0
    for margins in model.decision_function(x).tolist():
        total += sum(((1 if m >= 0 else -1) - m) ** 2 for m in margins)
    assert model.quantisation_losses_[-1] == pytest.approx(total / len(x))
    assert model.hyperplanes_ @ model.hyperplanes_.T == pytest.approx(np.eye(5))
    _, _, principal = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    assert np.linalg.norm(model.hyperplanes_ @ principal[:5].T, axis=1) == pytest.approx(np.ones(5))
    assert model.hyperplanes_ @ x.mean(axis=0) + model.offsets_ == pytest.approx(np.zeros(5))


def test_bits_are_the_signs_of_margins_from_the_stated_hyperplanes() -> None:
    x = clustered(50)
    model = ITQ(7, random_state=0).fit(x)
    bits = model.transform(x)
    assert bits.dtype == np.uint8
    for row, vector in enumerate(x.tolist()):
        for bit in range(7):
            margin = sum(w * v for w, v in zip(model.hyperplanes_[bit].tolist(), vector, strict=True))
            assert bits[row, bit] == (margin + model.offsets_[bit] >= 0)


def test_two_clusters_a_direction_end_on_two_sides() -> None:
    """The corners of a square, rotated: ITQ turns back what PCA cannot tell, as the directions are equal."""
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=float)
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    x = np.repeat(corners, 25, axis=0) @ turn + np.random.default_rng(0).normal(0, 0.05, (100, 2))
    model = ITQ(2, random_state=0).fit(x)
    assert len({tuple(code) for code in model.transform(x).tolist()}) == 4
    assert model.quantisation_losses_[-1] < 0.02


def test_more_bits_than_rank_are_a_tight_frame_without_repeats() -> None:
    x = clustered(dimension=4)
    model = ITQ(20, random_state=0).fit(x)
    # rows of an orthogonal matrix: each coordinate is seen with the same weight
    assert model.hyperplanes_.T @ model.hyperplanes_ == pytest.approx(np.eye(4))
    assert len({tuple(column) for column in model.transform(x).T.tolist()}) == 20


def test_the_seed_decides_and_turns_zero_keep_the_first_rotation() -> None:
    x = clustered()
    one, same, other = (ITQ(6, random_state=seed).fit(x) for seed in (0, 0, 1))
    assert (one.hyperplanes_ == same.hyperplanes_).all()
    assert (one.hyperplanes_ != other.hyperplanes_).any()
    assert len(ITQ(6, n_iter=0, random_state=0).fit(x).quantisation_losses_) == 1


def test_float32_vectors_have_the_bits_of_float64_but_at_the_hyperplanes() -> None:
    x = clustered().astype(np.float32)
    model = ITQ(8, random_state=0).fit(x)
    clear = np.abs(model.decision_function(x.astype(np.float64))) > 1e-5
    assert (model.transform(x) == model.transform(x.astype(np.float64)))[clear].all()


@pytest.mark.parametrize(
    "options",
    [{"n_bits": 0}, {"n_iter": -1}, {"n_components": 0}, {"whitening": -0.1}, {"whitening": 0.6}],
)
def test_parameters_outside_their_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        ITQ(**options).fit(clustered())  # type: ignore[arg-type]


def test_vectors_without_a_direction_are_refused() -> None:
    with pytest.raises(UsageError, match="equal"):
        ITQ(4).fit(np.full((10, 3), 0.1))
    with pytest.raises(ValueError, match="minimum of 2"):
        ITQ(4).fit(np.ones((1, 3)))
    with pytest.raises(ValueError, match="NaN"):
        ITQ(4).fit(np.full((10, 3), np.nan))


def test_a_constant_feature_gets_no_weight() -> None:
    x = clustered()
    x[:, 3] = 7.0
    assert np.abs(ITQ(8, random_state=0).fit(x).hyperplanes_[:, 3]).max() < 1e-9
