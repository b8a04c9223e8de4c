"""Items that nobody can store, each bad in one of many ways, made up from a generator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSION = 8


@dataclass
class Raw:
    """An item as it is in a batch: label and metadata are texts of JSON."""

    item_id: str
    vector: NDArray[np.float32]
    label: str = ""
    metadata: str = ""


def good_item(rng: np.random.Generator, number: int) -> Raw:
    vector = rng.normal(size=DIMENSION).astype(np.float32)
    return Raw(f"good-{number}", vector, json.dumps(f"class {number % 3}"), json.dumps({"n": number}))


def bad_item(rng: np.random.Generator, number: int) -> tuple[str, Raw]:
    """What is wrong with it, and the item."""
    what = list(_SPOILING)[number % len(_SPOILING)]
    item = good_item(rng, number)
    item.item_id = f"bad-{number}"
    _SPOILING[what](rng, item)
    return what, item


def _number(value: float) -> Callable[[np.random.Generator, Raw], None]:
    def spoil(rng: np.random.Generator, item: Raw) -> None:
        item.vector[rng.integers(DIMENSION)] = value

    return spoil


def _texts(field: str, *values: str) -> Callable[[np.random.Generator, Raw], None]:
    def spoil(rng: np.random.Generator, item: Raw) -> None:
        setattr(item, field, values[rng.integers(len(values))])

    return spoil


def _zero(_: np.random.Generator, item: Raw) -> None:
    item.vector[:] = 0


def _noise(rng: np.random.Generator, item: Raw) -> None:
    """Bytes that may be any text; a mark in front makes sure that they are no JSON."""
    item.metadata = "}" + rng.bytes(int(rng.integers(1, 200))).decode("latin-1")


_SPOILING: dict[str, Callable[[np.random.Generator, Raw], None]] = {
    "a coordinate that is no number": _number(np.nan),
    "an infinite coordinate": _number(np.inf),
    "a coordinate of minus infinity": _number(-np.inf),
    "a vector of zeros, of which there is no cosine": _zero,
    "an empty id": _texts("item_id", ""),
    "an id too long": _texts("item_id", "x" * 129, "ü" * 65, "x" * 100_000),
    "a label that is no JSON": _texts("label", "{", "nul", "'a'", "[1", "\0"),
    "a label that is none": _texts("label", "{}", "true", "1.5", "[]", "[[1]]", "[null]", "1e400"),
    "a label too long": _texts("label", json.dumps("x" * 1_025), json.dumps(["y" * 100] * 11)),
    "a label nested deeply": _texts("label", "[" * 1_000 + "]" * 1_000, "[" * 500),
    "metadata that are no JSON": _texts("metadata", "{", "{'a': 1}", '{"a": }', "\0\0"),
    "metadata that are no object": _texts("metadata", "[]", "1", '"a"', "true"),
    "metadata with a number that JSON lacks": _texts("metadata", '{"a": NaN}', '{"a": [Infinity]}', '{"a": -Infinity}'),
    "metadata too long": _texts("metadata", json.dumps({"a": "x" * 9_000})),
    "metadata nested deeply": _texts("metadata", '{"a":' * 17 + "1" + "}" * 17, '{"a":' * 1_300 + "1" + "}" * 1_300),
    "metadata of noise": _noise,
}
KINDS = len(_SPOILING)


def as_line(item: Raw) -> bytes:
    """The item as a line of JSON, or what its writer made of it."""
    vector: list[Any] = [float(value) for value in item.vector]
    line = json.dumps({"id": item.item_id, "vector": vector, "label": None, "metadata": None}, ensure_ascii=True)
    line = line.replace('"label": null', f'"label": {item.label or "null"}')
    line = line.replace('"metadata": null', f'"metadata": {item.metadata or "null"}')
    return line.replace("\n", " ").replace("\r", " ").encode("utf-8", "replace") + b"\n"
