"""The measures against plain Python: each array function beside the loops that say what it means."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_hash.errors import StreamHashError, UsageError
from stream_hash.numerics import comparison
from stream_hash.numerics.bucket_table import BucketTable
from stream_hash.numerics.codes import pack_bits
from stream_hash.numerics.comparison import Data, Settings, Trial, What, compare
from stream_hash.numerics.evaluation import (
    budget_levels,
    expected_average_precisions,
    first_within,
    level_counts,
    precision_at_k,
    precisions,
    recall_at_k,
    recalls,
    semantic_accuracies,
)
from stream_hash.numerics.lsh import LSH
from stream_hash.numerics.methods import HYPERPLANES, METHODS, fitted, hyperplanes_of
from stream_hash.numerics.probing import directed
from stream_hash.numerics.protocol import Classes, Split, split, unit
from stream_hash.numerics.summary import spread_over, summarise

seeds = st.integers(0, 10_000)


def random_levels(seed: int, rows: int = 4, items: int = 40, levels: int = 6) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, levels, (rows, items)).astype(np.uint8)


# ---- measures on levels


@settings(max_examples=50, deadline=None)
@given(seed=seeds, k=st.integers(1, 50), n_levels=st.integers(1, 6))
def test_the_first_k_within_a_level_are_those_a_loop_finds(seed: int, k: int, n_levels: int) -> None:
    levels = random_levels(seed)
    found = first_within(levels, n_levels, k)
    for level, row in itertools.product(range(n_levels), range(len(levels))):
        wanted = [column for column in range(40) if levels[row, column] <= level][:k]
        assert found[level, row].tolist() == wanted + [40] * (k - len(wanted))


@given(seed=seeds)
def test_level_counts_are_those_a_loop_counts(seed: int) -> None:
    levels, among = random_levels(seed), random_levels(seed + 1, levels=2).astype(bool)
    for row, level in itertools.product(range(4), range(5)):
        assert level_counts(levels, 5)[row, level] == levels[row].tolist().count(level)
        assert level_counts(levels, 5, among)[row, level] == levels[row][among[row]].tolist().count(level)


@settings(max_examples=50, deadline=None)
@given(seed=seeds, k=st.integers(1, 50))
def test_measures_of_found_columns_are_those_of_lists(seed: int, k: int) -> None:
    levels, relevant = random_levels(seed), random_levels(seed + 1, levels=2).astype(bool)
    found = first_within(levels, 6, k)
    for level, row in itertools.product(range(6), range(4)):
        columns = [column for column in found[level, row].tolist() if column < 40]
        labels: list[Any] = [int(relevant[row, column]) for column in columns]
        assert precisions(found, relevant)[level, row] == pytest.approx(precision_at_k(labels, 1, k))
        assert semantic_accuracies(found, relevant)[level, row] == float(labels[:1] == [1])
        ids, truth = [str(column) for column in columns], [str(column) for column in range(k) if column < 40]
        assert recalls(found, 40)[level, row] == pytest.approx(recall_at_k(ids, truth, k))


def average_precision(relevant: list[bool]) -> float:
    precision = [sum(relevant[: at + 1]) / (at + 1) for at, hit in enumerate(relevant) if hit]
    return sum(precision) / max(1, sum(relevant))


def mean_over_all_orders(groups: list[list[bool]]) -> float:
    """Average precision, averaged over every order of the items within each group."""
    orders = itertools.product(*(list(itertools.permutations(group)) for group in groups))
    return float(np.mean([average_precision(list(itertools.chain(*order))) for order in orders]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=3))
def test_expected_average_precision_is_the_mean_over_every_order_of_the_ties(groups: list[list[bool]]) -> None:
    totals = np.array([[len(group) for group in groups]])
    relevant = np.array([[sum(group) for group in groups]])
    (expected,) = expected_average_precisions(totals, relevant)
    assert expected == pytest.approx(mean_over_all_orders(groups))


def test_average_precision_without_ties_and_without_anything_relevant() -> None:
    ones = np.ones((2, 4), dtype=np.int64)
    relevant = np.array([[1, 0, 1, 0], [0, 0, 0, 0]])
    assert expected_average_precisions(ones, relevant).tolist() == pytest.approx([(1 + 2 / 3) / 2, 0.0])


# ---- budgets and buckets


@settings(max_examples=40, deadline=None)
@given(seed=seeds, bits=st.integers(1, 64), items=st.integers(1, 80))
def test_budgets_take_the_buckets_that_a_directed_search_takes(seed: int, bits: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    table = BucketTable(pack_bits(rng.random((items, bits)) < 0.5), bits)
    codes, counts = table.directory
    margins = rng.normal(size=(3, bits)).astype(np.float32)
    budgets = [1, 7, 30, 200]
    levels = budget_levels(margins, codes, counts, budgets)
    for row, (at, budget) in itertools.product(range(3), enumerate(budgets)):
        code = int(pack_bits(margins[row : row + 1] >= 0)[0])
        (wanted,) = directed([table.directory], [code], margins[row : row + 1], budget)
        assert codes[levels[row] <= at].tolist() == sorted(wanted.tolist())


def test_buckets_of_equal_cost_are_taken_by_code() -> None:
    codes, counts = np.array([0, 1, 2, 3], dtype=np.uint64), np.array([1, 1, 1, 1])
    levels = budget_levels(np.array([[-1.0, -1.0]]), codes, counts, [1, 2])
    assert levels.tolist() == [[0, 1, 2, 2]]


@settings(max_examples=40, deadline=None)
@given(seed=seeds, bits=st.integers(1, 12), radius=st.integers(0, 12))
def test_a_probe_of_the_table_finds_every_item_within_the_radius(seed: int, bits: int, radius: int) -> None:
    rng = np.random.default_rng(seed)
    codes = pack_bits(rng.random((60, bits)) < 0.5)
    code = int(rng.integers(2**bits))
    found = BucketTable(codes, bits).probe(code, radius)
    assert sorted(found.tolist()) == [row for row in range(60) if (int(codes[row]) ^ code).bit_count() <= radius]


# ---- the protocol


def test_the_split_of_cifar_has_the_tutorial_s_sizes() -> None:
    parts = split(60_000)
    assert [len(part) for part in (parts.queries, parts.training, parts.database)] == [120, 1_198, 58_682]
    assert len(np.unique(np.concatenate([parts.queries, parts.training, parts.database]))) == 60_000


def test_sizes_can_be_chosen_and_seeds_give_other_splits() -> None:
    parts, others = split(100, 1, queries=20, training=30), split(100, 2, queries=20, training=30)
    assert [len(part) for part in (parts.queries, parts.training, parts.database)] == [20, 30, 50]
    assert parts.queries.tolist() != others.queries.tolist()
    assert parts.queries.tolist() == split(100, 1, queries=20, training=30).queries.tolist()


def test_a_split_that_leaves_nothing_to_search_is_refused() -> None:
    with pytest.raises(UsageError, match="there are 50 labelled items"):
        split(50, queries=20, training=30)


def test_items_are_relevant_that_share_a_label() -> None:
    labels: list[Any] = [3, "3", ["a", 3], ["b", "b"], "a"]
    classes = Classes.of(labels)
    assert classes.names == ["3", "3", "a", "b"]
    rows = np.arange(5)
    sets = [set(label) if isinstance(label, list) else {label} for label in labels]
    wanted = [[bool(one & other) for other in sets] for one in sets]
    assert classes.relevant(rows, rows).tolist() == wanted
    single = Classes.of([2, 10, 2])
    assert single.names == ["2", "10"]
    assert single.of_item is not None
    assert single.of_item.tolist() == [0, 1, 0]
    assert single.relevant(np.arange(3), np.arange(2)).tolist() == [[True, False], [False, True], [True, False]]


# ---- hashers


def blobs(seed: int = 0, items: int = 260) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, items)
    x = rng.normal(size=(4, 6))[y] + 0.8 * rng.normal(size=(items, 6))
    return unit(x.astype(np.float32)), y


def test_lsh_cuts_through_the_mean_and_follows_its_seed() -> None:
    x, _ = blobs()
    margins = LSH(12, random_state=3).fit(x).decision_function(x)
    assert margins.shape == (260, 12)
    np.testing.assert_allclose(margins.mean(axis=0), 0, atol=1e-5)
    again = LSH(12, random_state=np.random.default_rng(3)).fit(x).decision_function(x)
    np.testing.assert_array_equal(margins, again)


@pytest.mark.parametrize("method", HYPERPLANES)
def test_hyperplanes_are_read_off_a_linear_hasher(method: str) -> None:
    x, y = blobs()
    hasher = fitted(method, 8, 0, x, y)
    weights, offsets = hyperplanes_of(hasher, x[:50], method)
    np.testing.assert_allclose(x @ weights.T + offsets, hasher.decision_function(x), atol=1e-4)


class Curved:
    """A hasher with a feature map."""

    def fit(self, X: Any, y: Any = None) -> Curved:  # noqa: ARG002 - the estimators' signature
        return self

    def decision_function(self, X: Any) -> NDArray[np.floating[Any]]:
        return np.asarray(X**2 - 0.1)


def test_a_hasher_with_a_feature_map_has_none() -> None:
    with pytest.raises(StreamHashError, match="curved cannot be put into an index"):
        hyperplanes_of(Curved(), blobs()[0], "curved")


def test_what_cannot_be_trained_is_told_with_its_method() -> None:
    x, _ = blobs()
    with pytest.raises(StreamHashError, match="tutorial with 8 bits cannot be trained on these 10 items"):
        fitted("tutorial", 8, 0, x[:10], np.zeros(10, dtype=np.int64))
    with pytest.raises(UsageError, match="there is no method 'magic'"):
        fitted("magic", 8, 0, x, None)


# ---- the comparison as a whole


@pytest.fixture
def data() -> Data:
    x, y = blobs()
    parts = Split(np.arange(20), np.arange(20, 60), np.arange(60, 260))
    return Data.of(x, Classes.of(y.tolist()), parts, seed=1)


def naive(data: Data, method: str, bits: int, k: int) -> dict[What, list[dict[str, float]]]:
    """Every measure of every query, by loops: sort, filter, count."""
    hasher = fitted(method, bits, data.seed, data.training, data.target)
    stored = [pack_bits(np.asarray(hasher.decision_function(row[None]) >= 0))[0] for row in data.database]
    table = BucketTable(np.array(stored), bits)
    out: dict[What, list[dict[str, float]]] = {}
    for row, query in enumerate(data.queries):
        centred = (query - data.mean).astype(np.float64)
        vectors = (data.database - data.mean).astype(np.float64)
        scores = vectors @ centred / np.linalg.norm(vectors, axis=1)
        order = np.argsort(-scores, kind="stable").tolist()
        right = data.relevant(np.array([row]))[0]
        margins = hasher.decision_function(query[None])
        code = int(pack_bits(np.asarray(margins >= 0))[0])
        distance = [(int(one) ^ code).bit_count() for one in stored]
        plans = {What("exact", None, "exact"): set(order)}
        for radius in (0, 1, 3):
            plans[What(method, bits, "radius", radius)] = {i for i in order if distance[i] <= radius}
        for budget in (5, 50):
            (codes,) = directed([table.directory], [code], margins.astype(np.float32), budget)
            plans[What(method, bits, "budget", budget)] = {i for i in order if stored[i] in codes}
        for what, candidates in plans.items():
            found = [i for i in order if i in candidates][:k]
            out.setdefault(what, []).append(
                {
                    "precision_at_k": precision_at_k([int(right[i]) for i in found], 1, k),
                    "semantic_accuracy": float(bool(found) and right[found[0]]),
                    "recall_at_k": recall_at_k([str(i) for i in found], [str(i) for i in order], k),
                    "candidates": len(candidates),
                }
            )
        levels = [[i for i in order if distance[i] == d] for d in range(bits + 1)]
        counts = np.array([[len(level) for level in levels]])
        hits = np.array([[sum(bool(right[i]) for i in level) for level in levels]])
        expected = {"mean_average_precision": float(expected_average_precisions(counts, hits)[0])}
        out.setdefault(What(method, bits, "ranking"), []).append(expected)
    return out


@pytest.mark.parametrize("block_bytes", [1, 3 * 200 * 48, 2**28])
@pytest.mark.parametrize(("method", "bits"), [("lsh", 6), ("itq", 4), ("lsh", 64)])
def test_a_comparison_is_what_loops_find_whatever_the_block(
    data: Data, method: str, bits: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "BLOCK_BYTES", block_bytes)
    chosen = Settings([method], bits=[bits], radii=[0, 1, 3], budgets=[5, 50], k=7)
    trials = {trial.what: trial.measures for trial in compare(data, chosen)}
    wanted = naive(data, method, bits, 7)
    assert list(trials) == list(wanted)
    for what, rows in wanted.items():
        for name in rows[0]:
            assert trials[what][name].tolist() == pytest.approx([row[name] for row in rows]), (what, name)
        if what.plan != "ranking":
            assert (trials[what]["milliseconds"] > 0).all()


def test_radii_beyond_the_bits_are_left_out(data: Data) -> None:
    trials = list(compare(data, Settings(["lsh"], bits=[2, 4], radii=[1, 3], budgets=[], k=3)))
    radii = [(trial.what.bits, trial.what.at) for trial in trials if trial.what.plan == "radius"]
    assert radii == [(2, 1), (4, 1), (4, 3)]


def test_items_with_several_labels_can_be_compared() -> None:
    x, y = blobs()
    labels: list[Any] = [[int(label), "all"] if label == 0 else int(label) for label in y]
    data = Data.of(x, Classes.of(labels), Split(np.arange(20), np.arange(20, 60), np.arange(60, 260)), seed=0)
    trials = list(compare(data, Settings(["lsh", "tutorial"], bits=[6])))
    assert trials[0].measures["precision_at_k"].mean() > 0.5


def test_learned_hyperplanes_beat_random_ones_at_the_same_budget(data: Data) -> None:
    wide = Settings(["lsh", "tutorial"], bits=[8], budgets=[20])
    found = {trial.what: trial.measures for trial in compare(data, wide)}
    assert set(METHODS) >= {"lsh", "itq", "tutorial", "grh"}
    ranked = [found[What(method, 8, "ranking")]["mean_average_precision"].mean() for method in wide.methods]
    assert ranked[1] > ranked[0]


# ---- the summary


def test_one_split_is_spread_over_its_queries_and_several_over_the_splits() -> None:
    what = What("lsh", 8, "radius", 1)
    first, second = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    (alone,) = summarise([[Trial(what, {"precision_at_k": first})]])
    assert alone.means == {"precision_at_k": 0.5}
    assert alone.errors["precision_at_k"] == pytest.approx(first.std(ddof=1) / 2)
    both = [[Trial(what, {"precision_at_k": values})] for values in (first, second)]
    (row,) = summarise(both)
    assert row.what == what
    assert row.means == {"precision_at_k": 0.75}
    assert row.errors["precision_at_k"] == pytest.approx(0.25)
    assert [spread_over(1), spread_over(2)] == ["queries", "splits"]
