from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.errors import IntegrityError
from stream_hash.numerics.network import Activation, Layer, Network

DIMENSION = 24
OUTPUTS = 7
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "powered": {"power": 0.5},
    "other-power": {"power": 0.3, "unit_length": False},
    "radial": {"landmarks": 300},
    "radial-powered": {"landmarks": 40, "power": 0.5},
    "radial-of-any-length": {"landmarks": 300, "unit_length": False},
    "hidden": {"landmarks": 150, "steps": ("relu",)},
    "posterior": {"landmarks": 150, "steps": ("softmax",)},
    "posterior-of-hidden": {"landmarks": 60, "steps": ("relu", "softmax")},
    "plain-hidden": {"steps": ("relu",)},
    "posterior-beside-plain": {"landmarks": 60, "steps": ("softmax",), "beside": 3},
    "powered-beside-plain": {"landmarks": 60, "power": 0.5, "unit_length": False, "beside": 2},
}


def network(
    seed: int,
    landmarks: int = 0,
    power: float = 1.0,
    unit_length: bool = True,
    steps: tuple[Activation, ...] = (),
    gamma: float = 1.0,
    beside: int = 0,
) -> Network:
    """Random; coefficients of landmarks are large and cancel, as those that are learned do."""
    rng = np.random.default_rng(seed)
    width, layers = landmarks or DIMENSION, []
    for step in (*steps, "none"):
        size = OUTPUTS - beside if step == "none" else 12
        weights = rng.standard_normal((size, width)).astype(np.float32)
        layers.append(Layer(weights, rng.standard_normal(size).astype(np.float32), step))
        width = size
    mean = rng.random(DIMENSION).astype(np.float32) / 5
    points = rng.standard_normal((landmarks, DIMENSION)).astype(np.float32) / 5
    plain = None
    if beside:
        weights = rng.standard_normal((beside, DIMENSION)).astype(np.float32)
        plain = Layer(weights, rng.standard_normal(beside).astype(np.float32))
    return Network(power, unit_length, mean, points if landmarks else None, gamma, tuple(layers), plain)


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32) / 4


def on_a_hyperplane(one: Network, x: np.ndarray) -> Network:
    """The same, shifted so that output j of x[j] is within rounding of 0."""
    last = one.layers[-1]
    here = np.array([one._exact(row)[j] for j, row in enumerate(x[:OUTPUTS].astype(np.float64))])
    learned = len(last.offsets)
    shifted = Layer(last.weights, (last.offsets - here[:learned]).astype(np.float32))
    plain = one.plain and Layer(one.plain.weights, (one.plain.offsets - here[learned:]).astype(np.float32))
    return replace(one, layers=(*one.layers[:-1], shifted), plain=plain)


def loops(one: Network, x: np.ndarray) -> list[float]:
    """The margins of one vector, as the head of network.py defines them."""
    y = [math.copysign(abs(float(v)) ** one.power, float(v)) for v in x]
    length = math.sqrt(math.fsum(v * v for v in y)) if one.unit_length else 1.0
    h = [v / (length or 1.0) - float(m) for v, m in zip(y, one.mean, strict=True)]
    beside = []
    if one.plain is not None:
        rows = zip(one.plain.weights, one.plain.offsets, strict=True)
        beside = [math.fsum(float(w) * v for w, v in zip(row, h, strict=True)) + float(b) for row, b in rows]
    if one.landmarks is not None:
        apart = [math.fsum((a - float(b)) ** 2 for a, b in zip(h, mark, strict=True)) for mark in one.landmarks]
        h = [math.exp(-one.gamma * d) for d in apart]
    for layer in one.layers:
        rows = zip(layer.weights, layer.offsets, strict=True)
        h = [math.fsum(float(w) * v for w, v in zip(row, h, strict=True)) + float(b) for row, b in rows]
        if layer.then == "relu":
            h = [max(0.0, v) for v in h]
        elif layer.then == "softmax":
            powers = [math.exp(v - max(h)) for v in h]
            h = [v / math.fsum(powers) for v in powers]
    return h + beside


@pytest.mark.parametrize("kind", KINDS)
def test_margins_are_those_of_the_loops(kind: str) -> None:
    one, x = network(1, **KINDS[kind]), vectors(30)
    x[7] = 0
    expected = [loops(one, row) for row in x]
    assert np.allclose(one.margins(x), expected, rtol=1e-4, atol=1e-4)
    assert np.allclose([one._exact(row.astype(np.float64)) for row in x], expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 300), copies=st.integers(0, 40))
def test_a_bit_does_not_depend_on_the_batch(kind: str, seed: int, size: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    x = vectors(300, seed)
    one = on_a_hyperplane(network(seed, **KINDS[kind]), x)
    x[size : size + copies] = x[rng.integers(OUTPUTS, size=len(x[size : size + copies]))]
    order = rng.permutation(300)
    whole = one.margins(x) >= 0
    assert (one.margins(x[order]) >= 0).tolist() == whole[order].tolist()
    assert (one.margins(x[:size]) >= 0).tolist() == whole[:size].tolist()
    assert (one.margins(np.asfortranarray(x)) >= 0).tolist() == whole.tolist()
    for row in (*range(OUTPUTS), size - 1, 299):
        alone = one.margins(x[row : row + 1])[0] >= 0
        assert alone.tolist() == whole[row].tolist()
        assert alone.tolist() == (one._exact(x[row].astype(np.float64)) >= 0).tolist()


@pytest.mark.parametrize("kind", ["plain", "radial", "hidden"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 60))
def test_not_even_bits_that_are_nothing_but_rounding_depend_on_the_batch(kind: str, seed: int, size: int) -> None:
    one = network(seed, **KINDS[kind])
    last = one.layers[-1]
    # output j takes away again what it adds: w·h − w·h, in an order that is not the one of adding
    x, order = vectors(60, seed), np.random.default_rng(seed).permutation(2 * last.weights.shape[1])
    both = Layer(np.hstack([last.weights, -last.weights])[:, order], last.offsets * 0)
    if one.landmarks is not None and len(one.layers) == 1:
        one = replace(one, landmarks=np.vstack([one.landmarks] * 2)[order], layers=(both,))
    elif len(one.layers) == 2:
        first = one.layers[0]
        twice = Layer(np.vstack([first.weights] * 2)[order], np.hstack([first.offsets] * 2)[order], "relu")
        one = replace(one, layers=(twice, both))
    else:
        one = replace(one, layers=(Layer(last.weights * 0, last.offsets * 0),))
    whole = one.margins(x) >= 0
    assert (one.margins(x[:size]) >= 0).tolist() == whole[:size].tolist()
    assert whole.tolist() == [(one._exact(row) >= 0).tolist() for row in x.astype(np.float64)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", ["random", "constant", "a landmark", "far", "very far", "tiny", "nothing", "integers", "mixed sizes"]
)
def test_rounding_stays_within_its_bound(kind: str, precision: type, shape: str) -> None:
    one, x = network(5, **KINDS[kind]), vectors(200)
    if shape == "constant":
        x[:] = np.linspace(0.1, 3, len(x), dtype=np.float32)[:, None]
    elif shape == "a landmark":
        x[:40] = (one.mean if one.landmarks is None else one.landmarks[:40] + one.mean)[:40]
    elif shape == "mixed sizes":
        x *= np.float32(10) ** np.random.default_rng(1).integers(-6, 6, x.shape).astype(np.float32)
    elif shape == "integers":
        x = np.round(16 * x)
    else:
        x *= np.float32({"far": 30, "very far": 1e15, "tiny": 1e-20, "nothing": 0}.get(shape, 1))
    with np.errstate(all="ignore"):
        margins, slack = one._rounded(x.astype(precision))
    exact = np.array([one._exact(row) for row in x.astype(np.float64)])
    certain = np.isfinite(margins) & np.isfinite(slack)
    assert (np.abs(margins - exact) <= slack)[certain].all()
    if shape == "random":
        assert certain.all()
        assert (np.abs(margins) > slack).mean() > 0.99, "a bound that leaves much in doubt is no use"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1.0, 30.0, 1e-20, 1e15, 0.0])
def test_rounding_of_a_vector_that_comes_alone_stays_within_its_bound(kind: str, size: float) -> None:
    one, x = network(5, **KINDS[kind]), vectors(100) * np.float32(size)
    certain = 0
    for row in x:
        found = one._alone.rounded(row)
        if found is not None:
            margins, slack = found
            assert (np.abs(margins - one._exact(row.astype(np.float64))) <= slack).all()
            certain += int((np.abs(margins) > slack).all())
    if size == 1.0:
        assert certain > 95, "a bound that leaves much in doubt is no use"


def test_a_vector_that_comes_alone_and_is_certain_needs_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    one, (x,) = network(1, **KINDS["posterior-beside-plain"]), vectors(1)
    expected = one.margins(np.stack([x, x]))[0]
    monkeypatch.setattr(Network, "_settled", lambda *_: pytest.fail("computed as a batch"))
    assert np.allclose(one.margins(x[None])[0], expected, rtol=1e-4, atol=1e-4)


def test_vectors_beyond_all_landmarks_are_settled_without_single_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    one = network(2, landmarks=50, unit_length=False, gamma=5.0)
    monkeypatch.setattr(Network, "_exact", lambda *_: pytest.fail("computed one row at a time"))
    far = one.margins(vectors(50) * np.float32(1e12))
    assert np.allclose(far, one.layers[-1].offsets)


def test_single_sums_are_done_once_for_vectors_that_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.repeat(vectors(OUTPUTS), 100, axis=0)
    one = on_a_hyperplane(network(3, landmarks=20), x[::100])
    asked = []
    exact = Network._exact

    def counted(self: Network, row: np.ndarray) -> np.ndarray:
        asked.append(row)
        return exact(self, row)

    monkeypatch.setattr(Network, "_exact", counted)
    one = replace(one, layers=(Layer(one.layers[0].weights * 0, one.layers[0].offsets * 0),))
    assert (one.margins(x) == 0).all()
    assert len(asked) == OUTPUTS


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_survives_its_arrays(kind: str) -> None:
    one, x = network(1, **KINDS[kind]), vectors(30)
    arrays = one.to_arrays()
    assert all(array.dtype.kind in "fUb" for array in arrays.values())
    assert (Network.from_arrays(arrays).margins(x) == one.margins(x)).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", np.array(["softmax"])),
        ("layers", np.array(["none", "none"])),
        ("layers", np.array(["tanh", "none"])),
        ("layers", np.array([], dtype="U4")),
        ("layers", np.array(["relu", "relu", "none"])),
        ("layers", np.array([None, None])),
        ("power", np.array(0.0)),
        ("power", np.array(np.nan)),
        ("power", np.array([1.0])),
        ("gamma", np.array(-1.0)),
        ("unit_length", np.array(1.0)),
        ("mean", np.zeros(DIMENSION)),
        ("mean", np.zeros(DIMENSION - 1, np.float32)),
        ("mean", np.full(DIMENSION, np.inf, np.float32)),
        ("landmarks", np.zeros((3, DIMENSION), np.float32)),
        ("landmarks", np.zeros((60, DIMENSION), np.float32).astype(object)),
        ("0.weights", np.full((12, 60), np.nan, np.float32)),
        ("0.weights", np.zeros((12, 60))),
        ("1.offsets", np.zeros((OUTPUTS, 1), np.float32)),
        ("1.weights", None),
    ],
)
def test_arrays_of_no_network_are_refused(name: str, value: np.ndarray | None) -> None:
    arrays = network(1, landmarks=60, steps=("relu",)).to_arrays()
    arrays = {key: array for key, array in arrays.items() if key != "network." + name}
    with pytest.raises(IntegrityError):
        Network.from_arrays(arrays | ({} if value is None else {"network." + name: value}))
