from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stream_hash.errors import IntegrityError, UsageError
from stream_hash.numerics.codes import pack_bits, unpack_bits
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.learned import itq_signature, learned_model
from stream_hash.numerics.model import Model, dealt, lsh_model
from stream_hash.settings import SIGNATURE_BITS, IndexSettings, Metric

MAPS: list[dict[str, Any]] = [
    {},
    {"feature_map": None},
    {"feature_map": None, "power": 0.5},
    {"power": 0.5},
    {"learner": "pa"},
    {"learner": "svm", "feature_map": None},
    {"learner": "mlp", "n_hidden": 16},
    {"feature_map": "posterior"},
    {"feature_map": "posterior", "learner": "mlp", "n_hidden": 16},
    {"n_learned": 14},
    {"n_learned": 9, "power": 0.5},
    {"n_learned": 9, "targets": "code_words", "feature_map": "rbf"},
    {"n_learned": 9, "targets": "code_words", "feature_map": None},
    {"learner": "mlp", "n_hidden": 16, "n_learned": 5},
]
METRICS: tuple[Metric, ...] = ("cosine", "l2", "inner")


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y


@cache
def trained(metric: Metric = "cosine", **options: Any) -> tuple[IndexSettings, GRH, Model]:
    x, y = digits()
    settings = IndexSettings(64, bits=7, tables=2, metric=metric)
    options = {"n_components": 120, "random_state": 0, "unit_length": metric == "cosine"} | options
    grh = GRH(14, **options).fit(x[:600], y[:600])
    return settings, grh, learned_model(settings, grh, lsh_model(settings, x).signature)


@pytest.mark.parametrize("options", MAPS)
@pytest.mark.parametrize("metric", METRICS)
def test_codes_are_those_of_the_estimator(metric: Metric, options: dict[str, Any]) -> None:
    x, _ = digits()
    _, grh, model = trained(metric, **options)
    margins = dealt(grh.decision_function(x.astype(np.float64)).T, 2).T
    clear = np.abs(margins) > 1e-4 * margins.std()
    for encoded in (model.encode(x), model.encode_queries(x)):
        bits = encoded.margins >= 0
        assert (bits == (margins >= 0))[clear].all()
        codes = [pack_bits(bits[:, :7]), pack_bits(bits[:, 7:])]
        assert encoded.codes.T.tolist() == [table.tolist() for table in codes]
    assert clear.mean() > 0.999


@pytest.mark.parametrize("options", MAPS)
def test_a_single_vector_hashes_as_in_any_batch(options: dict[str, Any]) -> None:
    x, _ = digits()
    _, _, model = trained(**options)
    whole = model.encode(x)
    order = np.random.default_rng(0).permutation(len(x))
    shuffled = model.encode(x[order])
    assert (shuffled.codes == whole.codes[order]).all()
    assert (shuffled.signatures == whole.signatures[order]).all()
    for row in range(0, len(x), 40):
        alone = model.encode(x[row : row + 1])
        assert (alone.codes[0], alone.signatures[0]) == (pytest.approx(whole.codes[row]), whole.signatures[row])


@pytest.mark.parametrize("options", [{}, {"feature_map": None, "targets": "code_words", "n_learned": 10}])
def test_each_table_has_its_share_of_learned_bits_and_of_plain_ones(options: dict[str, Any]) -> None:
    x, y = digits()
    settings = IndexSettings(64, bits=4, tables=3)
    grh = GRH(12, n_components=50, random_state=0, **options).fit(x[:600], y[:600])
    count = len(grh.words_[0])
    model = learned_model(settings, grh, lsh_model(settings, x).signature)
    bits = np.hstack([unpack_bits(codes, 4) for codes in model.encode(x).codes.T])
    order = [table + 3 * bit for table in range(3) for bit in range(4)]
    assert (bits == (grh.decision_function(x.astype(np.float64)) >= 0)[:, order]).mean() > 0.9999
    shares = [sum(one < count for one in order[4 * table : 4 * table + 4]) for table in range(3)]
    assert shares == {9: [3, 3, 3], 10: [4, 3, 3]}[count]


def test_a_linear_map_is_served_as_hyperplanes_where_the_metric_allows() -> None:
    assert trained("cosine", feature_map=None)[2].network is None
    assert trained("l2", feature_map=None)[2].network is None
    assert trained("inner", feature_map=None)[2].network is not None


@pytest.mark.parametrize("metric", METRICS)
def test_signatures_of_the_model_before_can_be_kept(metric: Metric) -> None:
    x, _ = digits()
    settings, grh, first = trained(metric)
    before = lsh_model(settings, x)
    assert (first.encode(x).signatures == before.encode(x).signatures).all()
    second = learned_model(settings, grh, first.signature)
    assert (second.encode_queries(x).signature_tables == before.encode_queries(x).signature_tables).all()


@pytest.mark.parametrize("metric", METRICS)
def test_itq_signatures_find_near_items_better_than_random_ones(metric: Metric) -> None:
    x, _ = digits()
    settings = IndexSettings(64, metric=metric)
    random = lsh_model(settings, x[:1000]).signature
    learned = itq_signature(settings, x[:1000])
    assert learned.hyperplanes.shape == (SIGNATURE_BITS, 64 + (metric == "inner"))
    overlap = []
    for signature in (random, learned):
        items = signature.margins(x[100:]) >= 0
        near = signature.margins(x[:100], query=metric == "inner") @ (2.0 * items - 1).T
        true = x[:100] @ x[100:].T
        if metric != "inner":
            squares = (x[100:] ** 2).sum(axis=1)
            true = 2 * true - squares if metric == "l2" else true / np.sqrt(squares)
        first, best = np.argsort(-near)[:, :15], np.argsort(-true)[:, :10]
        overlap.append(np.mean([len(set(f) & set(b)) for f, b in zip(first, best, strict=True)]))
    assert overlap[1] > overlap[0] + 0.2


@pytest.mark.parametrize("options", MAPS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_learned_model_survives_its_arrays(metric: Metric, options: dict[str, Any]) -> None:
    x, _ = digits()
    _, _, model = trained(metric, **options)
    arrays = model.to_arrays()
    assert all(array.dtype != object for array in arrays.values())
    again = Model.from_arrays(arrays)
    assert (again.encode(x).codes == model.encode(x).codes).all()
    assert (again.encode(x).signatures == model.encode(x).signatures).all()


def test_a_model_of_a_thousand_landmarks_takes_little_over_two_megabytes() -> None:
    rng = np.random.default_rng(0)
    x, settings = rng.random((1100, 512)).astype(np.float32), IndexSettings(512)
    grh = GRH(16, random_state=0).fit(x, rng.integers(10, size=1100))
    model = learned_model(settings, grh, lsh_model(settings, x).signature)
    assert sum(array.nbytes for array in model.to_arrays().values()) < 2.3e6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (IndexSettings(64, bits=8, tables=2), "bits"),
        (IndexSettings(63, bits=7, tables=2), "coordinates"),
        (IndexSettings(64, bits=7, tables=2, metric="l2"), "unit_length"),
        (IndexSettings(64, bits=7, tables=2, metric="inner"), "signature"),
    ],
)
def test_what_does_not_fit_the_index_is_refused(settings: IndexSettings, message: str) -> None:
    _, grh, model = trained()
    with pytest.raises(UsageError, match=message):
        learned_model(settings, grh, model.signature)


@pytest.mark.parametrize(
    "change",
    [
        {"metric": np.array("manhattan")},
        {"metric": np.array([1])},
        {"shape": np.array([2, 7, 1])},
        {"shape": np.array([14, 1000])},
        {"shape": np.array([2.0, 7.0])},
        {"shape": np.array([7, 3])},
        {"scale": np.array(np.nan)},
        {"scale": np.array(0.0)},
        {"mean": np.zeros((64, 1), np.float32)},
        {"offsets": np.full(SIGNATURE_BITS, np.nan, np.float32)},
        {"hyperplanes": np.zeros((SIGNATURE_BITS + 14, 64), np.float32)},
        {"network.mean": np.zeros(63, np.float32)},
        {"network.layers": np.array(["none", "none"])},
    ],
)
def test_arrays_that_are_odd_are_refused(change: dict[str, np.ndarray]) -> None:
    arrays = trained()[2].to_arrays()
    Model.from_arrays(arrays)
    with pytest.raises(IntegrityError):
        Model.from_arrays(arrays | change)


def test_half_a_network_is_refused() -> None:
    arrays = trained()[2].to_arrays()
    for name in [name for name in arrays if name.startswith("network.") and name != "network.landmarks"]:
        with pytest.raises(IntegrityError):
            Model.from_arrays({key: value for key, value in arrays.items() if key != name})


def test_serving_imports_neither_scikit_learn_nor_scipy(tmp_path: Path) -> None:
    _, _, model = trained(learner="mlp", n_hidden=16)
    np.savez(tmp_path / "model.npz", **model.to_arrays())  # type: ignore[arg-type]  # names of arrays, not an option
    program = """
import sys, numpy as np
from stream_hash.numerics.model import Model
model = Model.from_arrays(dict(np.load(sys.argv[1], allow_pickle=False)))
codes = model.encode_queries(np.ones((3, model.dimension), np.float32)).codes
print(codes.tolist(), [name for name in sys.modules if name.split(".")[0] in ("sklearn", "scipy")])
"""
    command: Sequence[str] = [sys.executable, "-c", program, str(tmp_path / "model.npz")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    codes = model.encode_queries(np.ones((3, 64), np.float32)).codes.tolist()
    assert shown == f"{codes} []\n"
