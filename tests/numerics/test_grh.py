from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from conventions import checks_of
from sklearn.base import clone

from stream_hash.errors import IntegrityError, UnlearnableError
from stream_hash.numerics.code_words import guaranteed_distance, least_distance
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.tutorial import TutorialGRH

CHECKED = [
    GRH(n_bits=8),
    GRH(n_bits=8, learner="svm", feature_map=None),
    GRH(n_bits=8, learner="pa"),
    GRH(n_bits=8, learner="mlp", n_hidden=8),
    GRH(n_bits=8, targets="smoothed", feature_map=None),
    GRH(n_bits=8, feature_map="posterior", targets="frames", n_learned=5),
    TutorialGRH(n_bits=4),
]

MODELS: list[dict[str, Any]] = [
    {"feature_map": None},
    {},
    {"learner": "svm"},
    {"learner": "pa"},
    {"learner": "pa", "feature_map": None},
    {"learner": "mlp"},
    {"learner": "mlp", "feature_map": "posterior"},
    {"feature_map": "posterior"},
    {"feature_map": "posterior", "targets": "frames"},
    {"feature_map": "posterior", "learner": "pa", "n_learned": 7},
    {"targets": "smoothed"},
    {"targets": "smoothed", "learner": "svm", "init": "itq", "feature_map": None},
    {"targets": "smoothed", "learner": "mlp"},
]


def blobs(count: int = 400, classes: int = 5, dimension: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap, around centres that no seed changes."""
    centres = np.random.default_rng(99).normal(size=(classes, dimension))
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=count)
    return centres[y] + 0.7 * rng.normal(size=(count, dimension)), y


def collision_gain(bits: np.ndarray, y: np.ndarray) -> float:
    """How much nearer in Hamming distance items of one class are than items of two, as a share of the bits."""
    distances = (bits[:, None, :] != bits[None, :, :]).mean(axis=2)
    same = y[:, None] == y[None, :]
    return float(distances[~same].mean() - distances[same].mean())


def share_of_own(bits: np.ndarray, y: np.ndarray, label: int) -> float:
    """Of the ten items nearest in Hamming distance to one of the class, how many are of it."""
    distances = (bits[:, None, :] != bits[None, :, :]).sum(axis=2) + 1.0 * np.eye(len(bits)) * bits.shape[1]
    nearest = np.argsort(distances[y == label], axis=1, kind="stable")[:, :10]
    return float((y[nearest] == label).mean())


@checks_of(CHECKED)
def test_estimators_keep_the_conventions_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_every_model_brings_a_class_together_more_than_lsh_does(settings: dict[str, Any]) -> None:
    x, y = blobs()
    fresh, fresh_y = blobs(seed=1)
    model = GRH(16, n_components=100, random_state=0, **settings).fit(x, y)
    bits = model.transform(fresh)
    assert bits.shape == (400, 16)
    assert bits.dtype == np.uint8
    by_chance = np.random.default_rng(0).normal(size=(12, 16))
    lsh = collision_gain((fresh @ by_chance >= 0).astype(np.uint8), fresh_y)
    assert collision_gain(bits, fresh_y) > 1.1 * lsh
    margins = model.feature_map_.features(fresh) @ model.hyperplanes_.T + model.offsets_
    np.testing.assert_allclose(model.decision_function(fresh), margins, atol=1e-6)


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_a_model_is_arrays_and_comes_back_from_them(settings: dict[str, Any]) -> None:
    x, y = blobs()
    model = GRH(16, n_components=100, random_state=0, **settings).fit(x, np.array(list("abcde"))[y])
    arrays = model.to_arrays()
    assert all(value.dtype.kind in "iufUb" for value in arrays.values())
    same = GRH.from_arrays(arrays)
    assert (same.decision_function(x) == model.decision_function(x)).all()
    assert same.classes_.tolist() == list("abcde")


def test_arrays_of_something_else_are_not_a_model() -> None:
    with pytest.raises(IntegrityError):
        GRH.from_arrays({"params": np.array("{}")})


@pytest.mark.parametrize("learner", ["pa", "ridge"])
@pytest.mark.parametrize("feature_map", ["rbf", "posterior"])
def test_a_stored_online_model_learns_on_as_if_it_had_never_been_stored(learner: str, feature_map: str) -> None:
    x, y = blobs()
    model = GRH(16, learner=learner, feature_map=feature_map, random_state=0).partial_fit(x[:200], y[:200])
    stored = GRH.from_arrays(model.to_arrays())
    later = y[200:] + (y[200:] == 4) * 5
    model.partial_fit(x[200:], later)
    stored.partial_fit(x[200:], later)
    assert stored.classes_.tolist() == [0, 1, 2, 3, 4, 9]
    assert (stored.decision_function(x) == model.decision_function(x)).all()


def test_arrays_that_lack_one_are_not_a_model() -> None:
    x, y = blobs()
    arrays = GRH(8, n_components=50, random_state=0).partial_fit(x, y).to_arrays()
    for name in ("rest.weights", "first.offsets", "map.kind", "map.base.base.gamma"):
        with pytest.raises(IntegrityError):
            GRH.from_arrays({other: value for other, value in arrays.items() if other != name})


def test_parameters_may_be_numbers_of_numpy() -> None:
    x, y = blobs()
    model = GRH(np.int64(8), n_components=np.int32(50), C=np.float64(2.0), random_state=0).fit(x, y)
    assert (GRH.from_arrays(model.to_arrays()).transform(x) == model.transform(x)).all()


@pytest.mark.parametrize("learner", ["pa", "ridge"])
@pytest.mark.parametrize("n_learned", [None, 16])
def test_one_item_or_one_class_more_does_not_turn_the_codes_over(learner: str, n_learned: int | None) -> None:
    x, y = blobs()
    model = GRH(16, learner=learner, n_learned=n_learned, n_components=100, random_state=0).partial_fit(x, y)
    before, sizes = model.transform(x), model.decision_function(x).std(axis=0)
    fresh, fresh_y = blobs(seed=1)
    model.partial_fit(fresh[:1], fresh_y[:1])
    assert (model.transform(x) != before).mean() < 0.02
    model.partial_fit(fresh[fresh_y == 2][:20], fresh_y[fresh_y == 2][:20])
    assert (model.transform(x) != before).mean() < 0.1
    if n_learned is None:
        assert model.decision_function(x)[:, 12:].std(axis=0) == pytest.approx(sizes[12:], rel=0.3)


def test_a_stream_that_names_one_class_first_learns_from_those_that_come() -> None:
    x, y = blobs()
    model = GRH(16, n_components=100, random_state=0).partial_fit(x[y == 0], y[y == 0], classes=[0])
    model.partial_fit(x, y)
    assert model.words_.shape == (5, 1)
    assert model.classes_.tolist() == [0, 1, 2, 3, 4]


def test_the_order_of_the_items_does_not_decide_what_the_rest_divide() -> None:
    x, y = blobs(count=9_000, classes=8)
    by_class = np.argsort(y, kind="stable")
    models = [GRH(16, n_components=50, random_state=0).fit(x[rows], y[rows]) for rows in (np.arange(9_000), by_class)]
    sizes = []
    for model in models:
        margins = model.decision_function(x)
        sizes.append(margins[:, 12:].std(axis=0).mean() / margins[:, :12].std(axis=0).mean())
        assert np.abs((margins[:, 12:] >= 0).mean(axis=0) - 0.5).max() < 0.1
    assert sizes == pytest.approx([0.5, 0.5], rel=0.1)


@pytest.mark.parametrize("learner", ["pa", "ridge"])
def test_arrays_that_are_missing_from_a_stored_online_model_are_found(learner: str) -> None:
    x, y = blobs()
    arrays = GRH(8, learner=learner, n_components=50, random_state=0).partial_fit(x, y).to_arrays()
    inner = [name for name in arrays if name.startswith(("online.", "book."))]
    assert len(inner) > 8
    for name in inner:
        with pytest.raises(IntegrityError) as raised:
            GRH.from_arrays({other: value for other, value in arrays.items() if other != name})
        assert raised.value.why == "missing or unknown: " + name.split(".")[1]


# ---- the update


def test_a_one_sided_bit_keeps_its_hyperplane_and_offsets_are_kept() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    x[:, 0] += np.repeat([4, 9], [30, 10])

    class Start:
        """A first bit on which nearly all agree, and a second one that splits the items."""

        def decision_function(self, x: np.ndarray) -> np.ndarray:
            return np.column_stack([x[:, 0] - x[:, 0].min() - 1e-9, x[:, 0] - 6.5])

    options: dict[str, Any] = {"targets": "smoothed", "feature_map": None, "unit_length": False, "random_state": 0}
    model = GRH(2, init=Start(), alpha=1.0, n_iter=1, **options).fit(x, np.repeat([0, 1], [30, 10]))
    assert np.abs(model.codes_.sum(axis=0)).tolist() == [40, 20]
    assert np.abs(model.hyperplanes_).max(axis=1).all()
    assert np.abs(model.offsets_).min() > 0
    assert (model.transform(x)[:, 1] == np.repeat([0, 1], [30, 10])).all()


def test_bits_that_repeat_are_drawn_again() -> None:
    x, y = blobs(classes=8)
    model = GRH(24, targets="smoothed", feature_map=None, alpha=1.0, n_iter=1, random_state=0).fit(x, y)
    correlations = np.abs(np.corrcoef(model.codes_.T.astype(float)) - np.eye(24))
    assert correlations.max() < 1 - 1e-9


def test_two_classes_are_told_apart_by_one_bit_and_the_others_keep_theirs() -> None:
    x, y = blobs(classes=2)
    for learner in ("ridge", "svm", "pa", "mlp"):
        bits = GRH(8, learner=learner, n_components=100, random_state=0).fit(x, y).transform(x)
        assert len(np.unique(bits, axis=1).T) == 8
        assert max((bits == y[:, None]).mean(axis=0).max(), (bits != y[:, None]).mean(axis=0).max()) > 0.95


@pytest.mark.parametrize("feature_map", [None, "rbf", "posterior"])
def test_bits_that_are_not_learned_from_classes_divide_the_items_by_angle(feature_map: str | None) -> None:
    x, y = blobs()
    model = GRH(16, n_learned=12, feature_map=feature_map, n_components=100, random_state=0).fit(x, y)
    centred = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = centred @ centred.T
    margins = model.decision_function(x)
    agreement = ((margins[:, None, 12:] >= 0) == (margins[None, :, 12:] >= 0)).mean(axis=2)
    same = (y[:, None] == y) & ~np.eye(len(y), dtype=bool)
    assert np.corrcoef(agreement[same], cosines[same])[0, 1] > 0.3
    assert margins[:, 12:].std(axis=0).mean() == pytest.approx(0.5 * margins[:, :12].std(axis=0).mean())
    assert model.words_.shape == (5, 12)
    learned = GRH(12, n_learned=12, feature_map=feature_map, n_components=100, random_state=0).fit(x, y)
    assert (learned.transform(x) == model.transform(x)[:, :12]).all()


def test_how_many_bits_are_learned_follows_from_bits_and_classes() -> None:
    for classes, learned in ((2, 1), (3, 3), (4, 6), (8, 12)):
        x, y = blobs(classes=classes)
        assert GRH(16, n_components=50, random_state=0).fit(x, y).words_.shape == (classes, learned)


def test_without_classes_codes_are_smoothed_and_with_them_posteriors_are_learned() -> None:
    x, y = blobs()
    assert GRH(8, n_components=50, random_state=0).fit(x, y).feature_map_.base.__class__.__name__ == "Posterior"
    assert GRH(8, n_components=50, random_state=0).fit(x).feature_map_.__class__.__name__ == "Nystrom"


def test_learning_starts_from_another_model() -> None:
    x, y = blobs()
    first = GRH(16, feature_map=None, random_state=0).fit(x, y)
    # no graph to follow: with alpha 0 what is learned is what it started from
    again = GRH(16, targets="smoothed", init=first, alpha=0.0, random_state=1).fit(x, y)
    assert (again.transform(x) == first.transform(x)).mean() > 0.95


def test_code_words_are_far_apart_and_are_the_targets() -> None:
    x, y = blobs()
    model = GRH(16, targets="code_words", random_state=0).fit(x, y)
    assert least_distance(model.words_) >= guaranteed_distance(5, 16)
    assert (model.codes_ == model.words_[y]).all()


def test_an_item_of_several_classes_gets_the_majority_of_their_words() -> None:
    x, _ = blobs(count=60)
    y = [[i % 3, 3, 4] if i % 2 else [i % 3] for i in range(60)]
    model = GRH(16, random_state=0).fit(x, y)
    first = model.words_[[1, 3, 4]].sum(axis=0)
    assert (model.codes_[1] == np.sign(first)).all()


@pytest.mark.parametrize("given", ["neighbours", "affinity"])
def test_without_labels_the_graph_of_neighbours_or_the_one_given_is_followed(given: str) -> None:
    x, y = blobs()
    affinity = sp.csr_array((y[:, None] == y[None, :]).astype(float)) if given == "affinity" else None
    before = GRH(16, init="lsh", targets="smoothed", alpha=0.0, random_state=0).fit(x, affinity=affinity)
    after = GRH(16, targets="smoothed", alpha=0.95, random_state=0).fit(x, affinity=affinity)
    assert collision_gain(after.transform(x), y) > collision_gain(before.transform(x), y)


def test_items_without_labels_join_through_their_neighbours() -> None:
    x, y = blobs(seed=3)
    partly = np.where(np.arange(400) % 4 == 0, y, -1)
    model = GRH(16, targets="smoothed", alpha=0.95, random_state=0).fit(x, partly)
    assert collision_gain(model.codes_[partly < 0], y[partly < 0]) > 0.1
    assert (GRH(16, random_state=0).fit(x, partly).codes_[partly < 0] == 0).all()


# ---- online


@pytest.mark.parametrize("feature_map", [None, "rbf", "posterior"])
def test_one_pass_in_pieces_comes_close_to_the_batch_fit(feature_map: str | None) -> None:
    x, y = blobs(count=1_000)
    fresh, fresh_y = blobs(seed=1)
    model = GRH(16, learner="pa", feature_map=feature_map, n_components=100, random_state=0)
    batch = clone(model).fit(x, y)
    for part in np.array_split(np.arange(1_000), 20):
        model.partial_fit(x[part], y[part], classes=range(5))
    reached = collision_gain(model.transform(fresh), fresh_y)
    assert reached >= 0.95 * collision_gain(batch.transform(fresh), fresh_y)


def test_ridge_in_pieces_is_the_batch_fit() -> None:
    x, y = blobs()
    model = GRH(16, feature_map="rbf", n_components=50, random_state=0)
    model.partial_fit(np.vstack([x[:50], x]), np.concatenate([y[:50], np.full(400, -1)]), classes=range(5))
    for start in range(50, 400, 50):
        model.partial_fit(x[start : start + 50], y[start : start + 50])
    batch = clone(model)
    batch.partial_fit(np.vstack([x[:50], x]), np.concatenate([y[:50], np.full(400, -1)]), classes=range(5))
    batch.partial_fit(x[50:], y[50:])
    np.testing.assert_allclose(model.decision_function(x), batch.decision_function(x), atol=1e-6)


@pytest.mark.parametrize("learner", ["pa", "ridge"])
@pytest.mark.parametrize(
    "settings", [{}, {"feature_map": "posterior"}, {"feature_map": "posterior", "targets": "frames"}]
)
def test_an_unseen_class_is_learned_and_the_words_of_the_others_stay(learner: str, settings: dict[str, Any]) -> None:
    x, y = blobs(count=1_200)
    fresh, fresh_y = blobs(seed=1)
    model = GRH(16, learner=learner, n_components=100, random_state=0, **settings)
    early = np.flatnonzero(y < 4)
    for part in np.array_split(early[:700], 10):
        model.partial_fit(x[part], y[part])
    before = model.words_
    late = np.concatenate([early[700:], np.flatnonzero(y == 4)[:100]])
    model.partial_fit(x[late], y[late])
    assert model.classes_[-1] == 4
    assert (model.words_[:4] == before).all()
    assert sorted(model.classes_.tolist()) == [0, 1, 2, 3, 4]
    refit = clone(model).fit(x[np.concatenate([early[:700], late])], y[np.concatenate([early[:700], late])])
    ours, theirs = (share_of_own(m.transform(fresh), fresh_y, 4) for m in (model, refit))
    assert ours >= 0.9 * theirs


@pytest.mark.parametrize("settings", [{"learner": "svm"}, {"learner": "mlp"}, {"targets": "smoothed"}])
def test_what_cannot_learn_online_says_so(settings: dict[str, Any]) -> None:
    model = GRH(**settings)
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError) as raised:
        getattr(model, "partial_fit")  # noqa: B009  # the look-up is what fails
    assert "take learner='pa' or 'ridge'" in str(raised.value.__cause__)


@pytest.mark.parametrize("learner", ["pa", "ridge"])
@pytest.mark.parametrize("feature_map", [None, "posterior"])
def test_items_without_labels_change_nothing_that_was_learned(learner: str, feature_map: str | None) -> None:
    x, y = blobs()
    model = GRH(16, learner=learner, feature_map=feature_map, n_components=100, random_state=0)
    model.partial_fit(x, np.full(400, -1), classes=range(5))
    assert np.isfinite(model.decision_function(x)).all()
    model.partial_fit(x, y)
    weights = model.hyperplanes_
    before = model.transform(x)
    model.partial_fit(x, np.full(400, -1))
    learned = model.words_.shape[1]
    assert (model.hyperplanes_[:learned] == weights[:learned]).all()
    assert model.hyperplanes_[learned:] == pytest.approx(weights[learned:], rel=0.01)  # in size only
    assert (model.transform(x) == before).mean() > 0.98


# ---- bad input


@pytest.mark.parametrize(
    ("settings", "change", "says"),
    [
        ({}, {"y": np.zeros(400)}, "1 class"),
        ({}, {"X": np.ones((400, 12))}, "all 400 vectors are the same"),
        ({}, {"y": np.zeros(3)}, "3 labels for 400 items"),
        ({}, {"X": np.full((400, 12), np.nan)}, "NaN"),
        ({"n_bits": 2, "targets": "code_words"}, {}, "5 classes cannot have different codes of 2 bits"),
        ({"n_bits": 0}, {}, "n_bits is 0"),
        ({"alpha": 1.5}, {}, "alpha is 1.5"),
        ({"C": -1.0}, {}, "C is -1.0"),
        ({"learner": "forest"}, {}, "learner is 'forest'"),
        ({"n_learned": 20}, {}, "n_learned is 20"),
        ({"n_learned": 0}, {}, "n_learned is 0"),
        ({"n_learned": 2.5}, {}, "n_learned is 2.5"),
        ({"targets": "frames", "feature_map": "rbf"}, {}, "frames"),
        ({"targets": "smoothed", "feature_map": "posterior"}, {}, "smoothed"),
        ({"feature_map": "posterior"}, {"y": None}, "without classes"),
        ({"init": "pca"}, {}, "init is 'pca'"),
        ({}, {"affinity": np.eye(3)}, "joins 3 items of 400"),
    ],
)
def test_bad_input_is_named_with_what_to_do(settings: dict[str, Any], change: dict[str, Any], says: str) -> None:
    x, y = blobs()
    with pytest.raises(ValueError, match=says) as raised:
        GRH(**settings).fit(**({"X": x, "y": y} | change))
    assert not isinstance(raised.value, UnlearnableError) or raised.value.remedy


def test_nan_is_refused_when_hashing_too() -> None:
    x, y = blobs()
    model = GRH(feature_map=None).fit(x, y)
    x[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.transform(x)


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_one_item_a_class_a_constant_feature_and_more_bits_than_rank_are_learned_from(settings: dict[str, Any]) -> None:
    x, _ = blobs(count=12)
    x[:, 3] = 7.0
    x[:, 5] = 0.0
    model = GRH(40, random_state=0, **settings).fit(x, np.arange(12))
    assert np.isfinite(model.decision_function(x)).all()
    assert len(np.unique(model.transform(x), axis=0)) > 6


# ---- cost


def test_memory_grows_linearly_with_the_items() -> None:
    peaks = []
    for count in (1_000, 2_000):
        x, y = blobs(count=count, classes=10, dimension=64)
        tracemalloc.start()
        GRH(64, n_components=200, random_state=0).fit(x, y)
        GRH(64, feature_map=None, targets="smoothed", random_state=0).fit(x, y)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2.2 * peaks[0]
    # 20,000 items with a thousand landmarks are ten times five times as much
    assert 50 * peaks[1] < 2 * 2**30


def test_the_tutorial_thresholds_before_it_blends_and_drops_the_intercept() -> None:
    x, y = blobs()
    half = TutorialGRH(16, n_iter=1, alpha=0.5, random_state=0).fit(x, y)
    none = TutorialGRH(16, n_iter=1, alpha=0.4, random_state=0).fit(x, y)
    only = TutorialGRH(16, n_iter=1, alpha=0.6, random_state=0).fit(x, y)
    # below one half there is no supervision, above it nothing else, and at one half a disagreement is +1
    assert (half.codes_ == np.maximum(none.codes_, only.codes_)).all()
    assert all(len(np.unique(only.codes_[y == label], axis=0)) == 1 for label in range(5))
    assert (only.offsets_ == 0).all()


def test_learning_beats_the_tutorial_and_the_tutorial_beats_chance_on_digits() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    train, rest = np.arange(400), np.arange(400, 1_400)
    lsh = np.random.default_rng(0).normal(size=(64, 16))
    chance = ((x - x.mean(axis=0))[rest] @ lsh >= 0).astype(np.uint8)
    tutorial = TutorialGRH(16, random_state=0).fit(x[train], y[train]).transform(x[rest])
    ours = GRH(16, random_state=0).fit(x[train], y[train]).transform(x[rest])
    gains = [collision_gain(bits, y[rest]) for bits in (chance, tutorial, ours)]
    assert gains == sorted(gains)
