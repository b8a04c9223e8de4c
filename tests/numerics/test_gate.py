from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stream_hash.errors import UsageError
from stream_hash.numerics.codes import unpack_bits
from stream_hash.numerics.gate import Verdict, _groups, judge
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.learned import learned_model
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.numerics.ranking import exact_scores
from stream_hash.settings import IndexSettings, Metric

BUDGET = 30


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))  # the writers of the last ones are others
    return x[order].astype(np.float32), y[order]


def random_model(seed: int = 0, **options: Any) -> Model:
    return lsh_model(IndexSettings(64, bits=12, seed=seed, **options), digits()[0][:500])


def trained(x: np.ndarray, y: np.ndarray, seed: int = 0) -> Model:
    grh = GRH(12, n_components=100, random_state=seed).fit(x, y)
    return learned_model(IndexSettings(64, bits=12), grh, random_model().signature)


def ask(live: Model, challenger: Model, x: np.ndarray, y: Any, budget: int = BUDGET, **options: Any) -> Verdict:
    return judge(live, challenger, x, y, budget, rng=np.random.default_rng(0), **options)


def naive_precision(model: Model, x: np.ndarray, y: np.ndarray, budget: int, k: int, metric: Metric) -> float:
    """A query at a time; buckets are whole or wholly left out only where the budget falls between two."""
    items, queries = model.encode(x), model.encode_queries(x)
    ties = np.random.default_rng(0).permutation(len(x))
    right = 0.0
    for q in range(len(x)):
        cost = np.full(len(x), np.inf)
        for t in range(model.tables):
            margins = np.abs(queries.margins[q].reshape(model.tables, model.bits)[t].astype(float))
            for i in range(len(x)):
                differing = unpack_bits(items.codes[i : i + 1, t] ^ queries.codes[q, t], model.bits)[0]
                cost[i] = min(cost[i], round(float(margins[differing].sum()), 9))
        others = [int(i) for i in ties if i != q]
        candidates = np.array(sorted(others, key=lambda i: cost[i])[:budget])
        scores = exact_scores(x[q], x[candidates], metric)
        best = candidates[np.argsort(-scores, kind="stable")[:k]]
        right += float((y[best] == y[q]).mean())
    return right / len(x)


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner"])
@pytest.mark.parametrize("tables", [1, 2])
def test_precisions_are_those_of_the_loops(metric: Metric, tables: int) -> None:
    x, y = (part[:130] for part in digits())
    live, other = (random_model(seed, tables=tables, metric=metric) for seed in (0, 1))
    verdict = ask(live, other, x, y, budget=25)
    for model, precision in ((live, verdict.live_precision), (other, verdict.challenger_precision)):
        assert precision == pytest.approx(naive_precision(model, x, y, 25, 10, metric), abs=0.002)
    assert verdict.difference == pytest.approx(verdict.challenger_precision - verdict.live_precision)


def test_the_same_model_again_is_refused() -> None:
    x, y = digits()
    verdict = ask(random_model(), random_model(), x[500:], y[500:])
    assert (verdict.accepted, verdict.difference, verdict.lower_bound) == (False, 0.0, 0.0)
    assert not ask(random_model(), random_model(), x[500:], y[500:], margin=0).accepted


def test_true_labels_go_live() -> None:
    x, y = digits()
    verdict = ask(random_model(), trained(x[:800], y[:800]), x[800:], y[800:])
    assert verdict.accepted
    assert verdict.lower_bound > 0.05
    assert (verdict.queries, verdict.budget) == (997, BUDGET)


def test_a_challenger_worse_by_two_points_is_refused() -> None:
    x, y = digits()
    live = trained(x[:800], y[:800])
    rng = np.random.default_rng(0)
    assert live.network is not None
    last = live.network.layers[-1]
    for noise in np.geomspace(0.02, 3, 30):
        factor = 1 + noise * rng.standard_normal(last.weights.shape)
        blurred = replace(last, weights=last.weights * factor.astype(np.float32))
        worse = replace(live, network=replace(live.network, layers=(*live.network.layers[:-1], blurred)))
        verdict = ask(live, worse, x[800:], y[800:])
        if verdict.difference < -0.015:
            break
    assert -0.06 < verdict.difference < -0.015, "the noise should cost some two points"
    assert not verdict.accepted
    assert "not above" in verdict.reason
    assert ask(worse, live, x[800:], y[800:]).difference == pytest.approx(-verdict.difference)


@pytest.mark.parametrize("seed", range(20))
def test_random_labels_never_go_live(seed: int) -> None:
    """Over 200 seeds, at two budgets and against two live models, none of 800 did."""
    x, y = digits()
    rng = np.random.default_rng(seed)
    order, y = rng.permutation(len(x)), rng.permutation(y)
    x = x[order]
    challenger = trained(x[:800], y[:800], seed)
    assert not ask(random_model(seed), challenger, x[800:], y[800:]).accepted
    if seed < 3:
        true = digits()[1][order]
        assert not ask(trained(x[:800], true[:800]), challenger, x[800:], true[800:]).accepted
        assert not ask(random_model(seed), challenger, x[800:], true[800:]).accepted


def one_class(newcomers: np.ndarray) -> np.ndarray:
    return np.where(newcomers, 0, -1)


def newcomer_verdict(seed: int, *, known: bool) -> Verdict:
    """Of a challenger that learned a class that the live model has not; or a tenth of all items called a class."""
    x, y = digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    x, y = x[order], y[order].copy()
    late = int(rng.integers(10)) if known else 10
    if not known:
        y[rng.random(len(y)) < 0.1] = late
    held_out = np.flatnonzero((y[900:] != late) | (rng.random(len(y) - 900) < 0.5)) + 900
    early = np.flatnonzero(y[:900] != late)
    live, challenger = trained(x[early], y[early], seed), trained(x[:900], y[:900], seed)
    return ask(live, challenger, x[held_out], y[held_out], newcomers=one_class(y[held_out] == late))


def test_a_new_class_may_pass_by_its_own_queries() -> None:
    verdicts = [newcomer_verdict(seed, known=True) for seed in range(8)]
    passed = [one for one in verdicts if one.accepted]
    assert len(passed) >= 4
    for one in verdicts:
        assert one.newcomers_bound <= one.newcomers_difference
        alone = one.newcomers_bound > 0.01 and one.difference > -0.01
        assert one.accepted == (one.lower_bound > 0.01 or alone)


def test_a_new_class_given_at_random_seldom_passes() -> None:
    assert sum(newcomer_verdict(seed, known=False).accepted for seed in range(10)) <= 1


def test_each_new_class_is_asked_about_alone_and_those_of_few_queries_together() -> None:
    new = np.repeat([-1, 0, 1, 2, 3], [100, 20, 15, 8, 9])
    assert [np.unique(new[one]).tolist() for one in _groups(new)] == [[0], [1], [2, 3]]
    assert _groups(np.repeat([-1, 0, 1], [100, 7, 7])) == []
    assert _groups(np.zeros(100, dtype=np.intp)) == [], "if all are new, the mean over all shows it"


def test_a_new_class_passes_beside_another_that_gains_nothing() -> None:
    x, y = digits()
    early = np.flatnonzero(y[:800] != 8)
    live, challenger = trained(x[early], y[early]), trained(x[:800], y[:800])
    apart, joint = (
        ask(live, challenger, x[800:], y[800:], 15, newcomers=np.select([y[800:] == 8, y[800:] < 6], numbers, -1))
        for numbers in ([0, 1], [0, 0])
    )
    assert apart.newcomers == joint.newcomers
    assert apart.newcomers_bound > joint.newcomers_bound


def test_what_newcomers_lose_by_passes_neither_way() -> None:
    x, y = digits()
    ours = y[800:] < 2

    def verdict_on(newcomers: np.ndarray | None) -> Verdict:
        """Of a challenger that learned two classes at random against a live model that learned the others so."""
        at_random = np.random.default_rng(0).integers(2, 10, size=800)
        live = trained(x[:800], np.where(y[:800] < 2, y[:800], at_random))
        challenger = trained(x[:800], np.where(y[:800] < 2, at_random, y[:800]))
        return ask(live, challenger, x[800:], y[800:], budget=15, newcomers=newcomers)

    assert verdict_on(None).accepted
    verdict = verdict_on(one_class(ours))
    assert verdict.lower_bound > 0.01
    assert verdict.newcomers_difference < 0
    assert not verdict.accepted
    assert "less well" in verdict.reason


def test_few_newcomers_are_not_asked_about_alone() -> None:
    x, y = digits()
    live, challenger = random_model(), trained(x[:800], y[:800])
    for count in (0, 14, 997):
        verdict = ask(live, challenger, x[800:], y[800:], newcomers=one_class(np.arange(997) < count))
        assert verdict.newcomers == count
        assert np.isnan(verdict.newcomers_bound)
    verdict = ask(live, challenger, x[800:], y[800:], newcomers=one_class(np.arange(997) < 15))
    assert not np.isnan(verdict.newcomers_bound)


def test_items_of_several_classes_and_of_none_can_be_held_out() -> None:
    x, y = digits()
    labels = [None if i % 5 == 0 else [int(c), int(c) + 100] for i, c in enumerate(y[500:])]
    verdict = ask(random_model(), trained(x[:500], y[:500]), x[500:], labels)
    assert verdict.queries == sum(label is not None for label in labels)
    assert verdict.accepted


def test_too_few_items_decide_nothing() -> None:
    x, y = digits()
    verdict = ask(random_model(), trained(x[:800], y[:800]), x[800:890], y[800:890])
    assert not verdict.accepted
    assert "too few" in verdict.reason
    assert not ask(random_model(), random_model(1), x[:300], y[:300], budget=299).accepted, "all items are candidates"


@pytest.mark.parametrize("options", [{"budget": 9}, {"margin": -0.1}, {"confidence": 1.0}, {"confidence": 0.4}])
def test_what_cannot_be_judged_by_is_refused(options: dict[str, Any]) -> None:
    x, y = digits()
    with pytest.raises(UsageError):
        ask(random_model(), random_model(1), x, y, **options)
    with pytest.raises(UsageError, match="different indexes"):
        ask(random_model(), random_model(metric="l2"), x, y)
