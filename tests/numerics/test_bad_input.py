"""Bad input, every kind for every learner: a defined behaviour, or an error that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stream_hash.errors import StreamHashError, UnlearnableError
from stream_hash.numerics.fused import FusedRank
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.lsh import LSH
from stream_hash.numerics.rotation import ITQ
from stream_hash.numerics.tutorial import TutorialGRH

BITS = 8
Make = Callable[..., Any]


def grh(*, learner: str = "ridge", targets: str = "code_words", feature_map: str | None = "rbf") -> Make:
    """Whatever GRH takes by default: what it is, is said here."""
    return lambda n_bits=BITS: GRH(n_bits, learner=learner, targets=targets, feature_map=feature_map, random_state=0)


LEARNED: dict[str, Make] = {
    f"{learner}-{targets}": grh(
        learner=learner, targets=targets, feature_map="posterior" if targets == "frames" else "rbf"
    )
    for learner in ("ridge", "svm", "pa", "mlp")
    for targets in ("code_words", "smoothed", "frames")
} | {
    "linear": grh(feature_map=None),
    "posterior-code_words": grh(feature_map="posterior"),
}
TUTORIAL: dict[str, Make] = {"tutorial": lambda n_bits=BITS: TutorialGRH(n_bits, random_state=0)}
FUSED: dict[str, Make] = {"fused": lambda n_bits=BITS: FusedRank(grh()(n_bits), random_state=0)}
ITQS: dict[str, Make] = {"itq": lambda n_bits=BITS: ITQ(n_bits, random_state=0)}
LSHS: dict[str, Make] = {"lsh": lambda n_bits=BITS: LSH(n_bits, random_state=0)}
SUPERVISED = LEARNED | TUTORIAL | FUSED
EVERY = SUPERVISED | ITQS | LSHS
ONLINE = [f"{learner}-{targets}" for learner in ("ridge", "pa") for targets in ("code_words", "frames")]


def of(models: dict[str, Make]) -> pytest.MarkDecorator:
    """A test of each model."""
    return pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in models.items()])


def items(count: int = 60, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Classes told apart by the first of 6 coordinates, overlapping."""
    y = np.arange(count) % classes
    x = np.random.default_rng(0).normal(size=(count, 6))
    x[:, :3] += 2 * np.eye(3)[y % 3]
    return x, y


def margins(model: Any, x: np.ndarray) -> np.ndarray:
    hasher = model.hasher_ if isinstance(model, FusedRank) else model
    return np.asarray(hasher.decision_function(x))


def assert_hashes(model: Any, x: np.ndarray, n_bits: int = BITS) -> None:
    """Finite hyperplanes and margins, as many bits as asked for, none of them constant."""
    found = margins(model, x)
    assert found.shape == (len(x), n_bits)
    assert np.isfinite(found).all()
    hasher = model.hasher_ if isinstance(model, FusedRank) else model
    assert np.isfinite(hasher.hyperplanes_).all()
    assert np.isfinite(hasher.offsets_).all()
    ones = (found >= 0).mean(axis=0)
    assert ((ones > 0) & (ones < 1)).all()


def assert_refused(call: Callable[[], object], *says: str) -> None:
    """A ValueError whose text holds all of `says`; if it is ours, with a remedy."""
    with pytest.raises(ValueError, match=r".") as raised:
        call()
    error = raised.value
    text = str(error)
    if isinstance(error, StreamHashError):
        text += f" ({error.why}) → {error.remedy}"
        assert error.remedy, text
    for part in says:
        assert part in text


# ---- labels


@of(SUPERVISED)
def test_one_class_is_refused(make: Make) -> None:
    x, y = items()
    assert_refused(lambda: make().fit(x, np.zeros_like(y)), "1 class", "two classes or more")


def test_the_one_class_is_named_as_it_was_given() -> None:
    x, y = items()
    assert_refused(lambda: grh()().fit(x, np.full_like(y, 5)), "1 class, 5")


@of(ITQS | LSHS)
def test_what_learns_without_labels_ignores_them(make: Make) -> None:
    x, y = items()
    alone = margins(make().fit(x), x)
    for labels in (np.zeros_like(y), y[:5], None):
        assert (margins(make().fit(x, labels), x) == alone).all()


@of(EVERY)
def test_one_item_a_class_is_learned_from(make: Make) -> None:
    x, y = items(12, 12)
    assert_hashes(make().fit(x, y), x)


@of(SUPERVISED)
@pytest.mark.parametrize("count", [0, 50, 61])
def test_labels_of_another_length_are_refused(make: Make, count: int) -> None:
    x, _ = items()
    assert_refused(lambda: make().fit(x, np.arange(count) % 3), f"{count} labels for 60 items", "one label an item")


GRAPH = {name: make for name, make in LEARNED.items() if "frames" not in name and "posterior" not in name}


@of(GRAPH)
@pytest.mark.parametrize("unknown", [-1, None])
def test_without_any_label_neighbours_are_followed(make: Make, unknown: Any) -> None:
    x, _ = items()
    model = make().fit(x, [unknown] * 60)
    assert_hashes(model, x)
    assert (margins(model, x) == margins(make().fit(x), x)).all()
    assert len(model.classes_) == 0


@of({name: make for name, make in SUPERVISED.items() if name not in GRAPH})
def test_without_any_label_what_needs_classes_refuses(make: Make) -> None:
    x, _ = items()
    assert_refused(lambda: make().fit(x, np.full(60, -1)), "label")


def test_the_tutorial_says_what_is_missing() -> None:
    x, y = items()
    assert_refused(lambda: TutorialGRH(BITS).fit(x, np.full_like(y, -1)), "no item has a label", "two classes or more")
    assert_refused(lambda: TutorialGRH(BITS).fit(x, None), "y is None", "give labels")
    assert_refused(lambda: TutorialGRH(BITS).fit(x, np.full_like(y, 5)), "1 class, 5", "two classes or more")


@of(SUPERVISED)
def test_labels_that_are_nan_are_refused(make: Make) -> None:
    x, y = items()
    assert_refused(lambda: make().fit(x, np.where(y == 1, np.nan, y)), "label is NaN", "-1 or None")


# ---- vectors


@of(EVERY)
def test_constant_features_are_learned_beside(make: Make) -> None:
    x, y = items()
    x[:, 4], x[:, 5] = 7.0, 0.0
    assert_hashes(make().fit(x, y), x)


@of(EVERY)
def test_vectors_that_are_all_the_same_are_refused(make: Make) -> None:
    _, y = items()
    assert_refused(lambda: make().fit(np.full((60, 6), 0.1), y), "vectors are")


WRONG: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
    "nan": (np.where(np.arange(360).reshape(60, 6) == 20, np.nan, items()[0]), ("NaN",)),
    "infinity": (np.where(np.arange(360).reshape(60, 6) == 20, np.inf, items()[0]), ("infinity",)),
    "minus-infinity": (np.where(np.arange(360).reshape(60, 6) == 20, -np.inf, items()[0]), ("infinity",)),
    "empty": (np.empty((0, 6)), ("0 sample(s)", "minimum of")),
    "no-features": (np.empty((60, 0)), ("0 feature(s)", "minimum of 1")),
    "one-dimensional": (items()[0][0], ("2D array", "reshape(")),
}


@of(EVERY)
@pytest.mark.parametrize("kind", WRONG)
def test_vectors_that_are_none_are_refused_in_learning(make: Make, kind: str) -> None:
    x, says = WRONG[kind]
    assert_refused(lambda: make().fit(x, np.arange(len(x)) % 3), *says)


@of(EVERY)
@pytest.mark.parametrize("kind", [kind for kind in WRONG if kind != "no-features"])
def test_vectors_that_are_none_are_refused_in_hashing(make: Make, kind: str) -> None:
    wrong, says = WRONG[kind]
    x, y = items()
    model = make().fit(x, y)
    assert_refused(lambda: model.scores(wrong, x) if isinstance(model, FusedRank) else margins(model, wrong), *says)


@of(EVERY)
def test_one_item_is_too_few_to_learn_from(make: Make) -> None:
    x, y = items()
    assert_refused(lambda: make().fit(x[:1], y[:1]), "1 sample", "minimum of 2")


@of(EVERY)
def test_another_number_of_features_is_refused_in_hashing(make: Make) -> None:
    x, y = items()
    model = make().fit(x, y)
    query = x[:, :5]
    assert_refused(lambda: model.scores(query, x) if isinstance(model, FusedRank) else margins(model, query), "5", "6")


@of(LEARNED | TUTORIAL)
@pytest.mark.parametrize(
    ("factor", "kind"),
    [(1e200, np.float64), (1e-200, np.float64), (1e-310, np.float64), (1e25, np.float32), (1e-25, np.float32)],
)
def test_the_length_of_a_vector_does_not_matter_however_large_or_small(make: Make, factor: float, kind: Any) -> None:
    x, y = items()
    model = make().fit(x, y)
    near = {"rel": 1e-3, "abs": 1e-3} if kind is np.float32 else {"rel": 1e-6, "abs": 1e-9}
    assert margins(model, (factor * x).astype(kind)) == pytest.approx(margins(model, x), **near)


@of(LEARNED | TUTORIAL | ITQS)
@pytest.mark.parametrize("factor", [2.0**600, 2.0**-600])
def test_all_vectors_may_be_large_or_small_in_learning(make: Make, factor: float) -> None:
    x, y = items()
    model = make().fit(factor * x, y)
    assert_hashes(model, factor * x)
    assert (margins(model, factor * x) >= 0).tolist() == (margins(make().fit(x, y), x) >= 0).tolist()


def test_vectors_may_be_longer_than_the_largest_float() -> None:
    x, y = items()
    model = grh()().fit(x, y)
    largest = (np.finfo(np.float32).max / np.abs(x).max(axis=1, keepdims=True) * x * 0.999).astype(np.float32)
    assert (np.linalg.norm(largest.astype(np.float64), axis=1) > np.finfo(np.float32).max).any()
    assert margins(model, largest) == pytest.approx(margins(model, x), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_where_length_counts_learning_does_not_depend_on_the_unit(factor: float) -> None:
    x, y = items()
    one, other = (grh()().set_params(unit_length=False).fit(unit * x, y) for unit in (1.0, factor))
    assert margins(other, factor * x) == pytest.approx(margins(one, x), rel=1e-5, abs=1e-7)


def test_a_power_that_overflows_is_named() -> None:
    x, y = items()
    with np.errstate(over="ignore", invalid="ignore"):
        assert_refused(lambda: grh()().set_params(power=2.0).fit(1e200 * x, y), "power of 2.0", "smaller power")


def test_itq_does_not_call_large_vectors_equal() -> None:
    x, _ = items()
    x[3, 2] = 1e200
    model = ITQ(BITS, random_state=0).fit(x)
    assert np.isfinite(model.hyperplanes_).all()
    outlier = model.transform(x)[3]
    assert (np.delete(model.transform(x), 3, axis=0) == 1 - outlier).all()


def test_lsh_refuses_a_mean_that_float32_cannot_hold() -> None:
    x, _ = items()
    assert_refused(lambda: LSH(BITS).fit(1e200 * x), "e+200", "float32", "divide the vectors by a constant")


@of(EVERY)
def test_zero_vectors_are_hashed(make: Make) -> None:
    x, y = items()
    x[:3] = 0.0
    model = make().fit(x, y)
    assert_hashes(model, x)
    assert len(np.unique(margins(model, x)[:3] >= 0, axis=0)) == 1


# ---- sizes


@of(EVERY)
def test_more_bits_than_rank_are_all_different_from_constant(make: Make) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (rng.normal(size=(90, 2)) + 2 * np.eye(3)[y, :2]) @ rng.normal(size=(2, 6))
    assert np.linalg.matrix_rank(x) == 2
    assert_hashes(make(20).fit(x, y), x, 20)


@of({name: make for name, make in LEARNED.items() if name != "linear"})
def test_with_fewer_samples_than_nystrom_components_every_sample_is_a_landmark(make: Make) -> None:
    x, y = items(20)
    model = make().set_params(n_components=1_000).fit(x, y)
    assert_hashes(model, x)
    nystrom = model.feature_map_
    while not hasattr(nystrom, "landmarks"):
        nystrom = nystrom.base
    assert nystrom.landmarks.shape == (20, 6)


@of(EVERY)
@pytest.mark.parametrize("n_bits", [0, -3])
def test_no_bits_are_refused(make: Make, n_bits: int) -> None:
    x, y = items()
    assert_refused(lambda: make(n_bits).fit(x, y), "n_bits", str(n_bits), "1")


@of(EVERY)
@pytest.mark.parametrize("n_bits", [2.5, "8", np.float64(2.5), None])
def test_bits_that_are_no_whole_number_are_refused(make: Make, n_bits: Any) -> None:
    x, y = items()
    assert_refused(lambda: make(n_bits).fit(x, y), "n_bits is", "2.5" if n_bits == 2.5 else str(n_bits), "whole number")


@pytest.mark.parametrize(
    ("parameter", "value"), [("n_bits", 0), ("n_components", 0), ("n_iter", -1), ("n_iter", 1.5), ("whitening", 0.7)]
)
def test_itq_names_the_parameter_that_is_wrong_and_no_other(parameter: str, value: float) -> None:
    x, _ = items()
    with pytest.raises(UnlearnableError) as raised:
        ITQ().set_params(**{parameter: value}).fit(x)
    assert str(raised.value) == f"{parameter} is {value}"
    assert raised.value.remedy


# ---- online


@pytest.mark.parametrize("name", ONLINE)
def test_an_unseen_class_gets_a_word_and_the_others_keep_theirs(name: str) -> None:
    x, y = items()
    model = LEARNED[name]().partial_fit(x, y)
    before = model.words_
    model.partial_fit(x, y + 5)
    assert model.classes_.tolist() == [0, 1, 2, 5, 6, 7]
    assert (model.words_[:3] == before).all()
    assert len(np.unique(model.words_, axis=0)) == 6
    assert np.isfinite(margins(model, x)).all()


@pytest.mark.parametrize("name", [name for name in ONLINE if "frames" in name])
def test_more_classes_than_codes_share_words_where_bits_are_of_posteriors(name: str) -> None:
    x, y = items()
    model = LEARNED[name](2).partial_fit(x, y)
    before = model.words_
    model.partial_fit(x, y + 5)
    assert (model.words_[:3] == before).all()
    assert model.words_.shape == (6, 2)
    assert np.isfinite(margins(model, x)).all()


@pytest.mark.parametrize("name", [name for name in ONLINE if "frames" not in name])
def test_more_classes_than_codes_are_refused_and_nothing_is_forgotten(name: str) -> None:
    x, y = items()
    model = LEARNED[name](2).partial_fit(x, y)
    before = margins(model, x)
    assert_refused(
        lambda: model.partial_fit(x, y + 5), "6 classes cannot have different codes of 2 bits", "at least 3 bits"
    )
    with pytest.raises(UnlearnableError) as raised:
        model.partial_fit(x, y + 5)
    assert "smoothed" not in raised.value.remedy  # which cannot learn online
    assert (margins(model, x) == before).all()
    model.partial_fit(x, y)
    assert model.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("kind", ["nan", "infinity", "empty", "one-dimensional"])
def test_a_refused_piece_changes_nothing(name: str, kind: str) -> None:
    wrong, says = WRONG[kind]
    x, y = items()
    model, other = (LEARNED[name]().partial_fit(x, y) for _ in range(2))
    assert_refused(lambda: model.partial_fit(wrong, np.arange(len(wrong)) % 3), *says)
    assert_refused(lambda: model.partial_fit(x, y[:5]), "5 labels for 60 items")
    assert_refused(lambda: model.partial_fit(x[:, :5], y), "5 features", "6 features")
    assert_refused(lambda: model.partial_fit(x, np.array(list("abc"))[y]), "another kind", "all labels as text")
    assert (margins(model.partial_fit(x, y), x) == margins(other.partial_fit(x, y), x)).all()


def test_a_label_of_another_kind_is_named_as_it_was_given() -> None:
    x, y = items()
    model = grh()().partial_fit(x, y)
    assert_refused(lambda: model.partial_fit(x, np.array(list("abc"))[y]), "label 'a' is of another kind than 0")


@pytest.mark.parametrize("name", [name for name in ONLINE if "frames" not in name])
def test_one_class_first_and_the_others_later_is_learned(name: str) -> None:
    x, y = items()
    model = LEARNED[name]().partial_fit(x[y == 0], y[y == 0])
    assert_hashes(model, x)
    assert_hashes(model.partial_fit(x, y), x)


@pytest.mark.parametrize("name", [name for name in ONLINE if "frames" in name])
def test_posteriors_of_one_class_say_nothing_until_a_second_comes(name: str) -> None:
    x, y = items()
    model = LEARNED[name]().partial_fit(x[y == 0], y[y == 0])
    assert np.isfinite(margins(model, x)).all()
    assert_hashes(model.partial_fit(x, y), x)


@pytest.mark.parametrize("name", ONLINE)
def test_a_first_piece_without_labels(name: str) -> None:
    x, y = items()
    model, unknown = LEARNED[name](), np.full(60, -1)
    if "frames" in name:
        assert_refused(lambda: model.partial_fit(x, unknown), "no item has a label", "classes")
    else:
        assert_hashes(model.partial_fit(x, unknown), x)
    assert_hashes(model.partial_fit(x, y), x)


@pytest.mark.parametrize("name", ONLINE)
def test_a_first_piece_of_one_item_is_refused(name: str) -> None:
    x, y = items()
    assert_refused(lambda: LEARNED[name]().partial_fit(x[:1], y[:1]), "all 1 vectors are the same", "check the vectors")
