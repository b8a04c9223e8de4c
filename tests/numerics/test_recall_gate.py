"""The gate of what is learned without labels: more of the nearest items among as many candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stream_hash.errors import UsageError
from stream_hash.numerics import recall_gate
from stream_hash.numerics.codes import unpack_bits
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.numerics.ranking import exact_scores
from stream_hash.numerics.recall_gate import RecallVerdict, judge_recall
from stream_hash.numerics.unlabelled import itq_model
from stream_hash.settings import IndexSettings, Metric

METRICS: list[Metric] = ["cosine", "l2", "inner"]


def digits() -> np.ndarray:
    return load_digits(return_X_y=True)[0].astype(np.float32)


def random_model(seed: int = 0, **options: Any) -> Model:
    return lsh_model(IndexSettings(64, bits=12, seed=seed, **options), digits()[:500])


def ask(live: Model, challenger: Model, x: np.ndarray, budget: int = 30, **options: Any) -> RecallVerdict:
    return judge_recall(live, challenger, x, budget, rng=np.random.default_rng(0), **options)


def naive_recall(model: Model, x: np.ndarray, budget: int, metric: Metric) -> float:
    """A query at a time."""
    items, queries = model.encode(x), model.encode_queries(x)
    ties = np.random.default_rng(0).permutation(len(x)).tolist()
    found = 0
    for q in range(len(x)):
        margins = np.abs(queries.margins[q].reshape(model.tables, model.bits).astype(float))
        cost = [
            min(
                round(
                    float(
                        margins[t][unpack_bits(items.codes[i : i + 1, t] ^ queries.codes[q, t], model.bits)[0]].sum()
                    ),
                    9,
                )
                for t in range(model.tables)
            )
            for i in range(len(x))
        ]
        candidates = sorted((i for i in ties if i != q), key=cost.__getitem__)[:budget]
        scores = exact_scores(x[q], x, metric)
        nearest = sorted((i for i in range(len(x)) if i != q), key=lambda i: -scores[i])[:10]
        found += len(set(candidates) & set(nearest))
    return found / 10 / len(x)


@pytest.mark.parametrize(("metric", "tables"), [("cosine", 2), ("l2", 1), ("inner", 1)])
def test_recalls_are_those_of_the_loops(metric: Metric, tables: int) -> None:
    x = digits()[500:620]
    live, other = (random_model(seed, tables=tables, metric=metric) for seed in (0, 1))
    verdict = ask(live, other, x, budget=25)
    assert verdict.live_recall == pytest.approx(naive_recall(live, x, 25, metric), abs=0.002)
    assert verdict.challenger_recall == pytest.approx(naive_recall(other, x, 25, metric), abs=0.002)
    assert verdict.difference == pytest.approx(verdict.challenger_recall - verdict.live_recall)


@pytest.mark.parametrize("metric", METRICS)
def test_itq_goes_live_in_place_of_random_hyperplanes_and_not_the_other_way_round(metric: Metric) -> None:
    x = digits()
    random = random_model(metric=metric)
    learned = itq_model(IndexSettings(64, bits=12, metric=metric), x[:1_000])
    verdict = ask(random, learned, x[1_000:])
    assert verdict.accepted, verdict
    assert verdict.difference > verdict.lower_bound > 0.05
    back = ask(learned, random, x[1_000:])
    assert not back.accepted
    assert "not above" in back.reason


def test_the_same_model_again_is_refused_even_without_a_margin() -> None:
    verdict = ask(random_model(), random_model(), digits()[500:], margin=0)
    assert (verdict.accepted, verdict.difference, verdict.lower_bound) == (False, 0.0, 0.0)


def test_the_margin_is_asked_of_the_bound() -> None:
    x = digits()
    learned = itq_model(IndexSettings(64, bits=12), x[:1_000])
    bound = ask(random_model(), learned, x[1_000:]).lower_bound
    assert ask(random_model(), learned, x[1_000:], margin=bound - 1e-3).accepted
    assert not ask(random_model(), learned, x[1_000:], margin=bound + 1e-3).accepted


def test_too_few_items_decide_nothing() -> None:
    verdict = ask(random_model(), random_model(1), digits()[:99])
    assert (verdict.accepted, verdict.queries) == (False, 99)
    assert "too few" in verdict.reason
    assert np.isnan(verdict.difference)


def test_the_bound_is_no_narrower_than_the_difference_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gains of queries alone it is, by a third: an item that is missed is missed by many queries."""
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((8, 64)).astype(np.float32)
    errors: list[float] = []

    def noted(gains: np.ndarray, *_: object) -> float:
        errors.append(float(gains.std()) / len(gains) ** 0.5)
        return 0.0

    monkeypatch.setattr(recall_gate, "lower_bound", noted)
    models = [
        lsh_model(IndexSettings(64, bits=8, seed=seed, metric="l2"), np.zeros((1, 64), np.float32)) for seed in (0, 1)
    ]
    draws = [rng.standard_normal((150, 8)).astype(np.float32) @ basis for _ in range(60)]
    differences = [ask(*models, x, budget=15).difference for x in draws]
    assert 0.9 < np.mean(errors) / np.std(differences) < 1.4


def test_bad_requests_are_refused() -> None:
    x = digits()
    for options in ({"budget": 9}, {"margin": -0.1}, {"confidence": 0.4}):
        with pytest.raises(UsageError, match=next(iter(options))):
            ask(random_model(), random_model(1), x, **options)
    with pytest.raises(UsageError, match="different indexes"):
        ask(random_model(), random_model(metric="l2"), x)


def test_each_table_has_hyperplanes_of_its_own() -> None:
    x = digits()
    model = itq_model(IndexSettings(64, bits=10, tables=3), x[:1_000])
    first, second, third = model.encode(x).codes.T
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    alone = itq_model(IndexSettings(64, bits=10), x[:1_000])
    assert ask(alone, model, x[1_000:], budget=40).difference > 0.0
