"""A stream with drift: classes arrive one after another, and half-way one of the first changes its look.

Four classes are there from the beginning, START items each. Then come phases: in each, one class brings its items, in
random order among half as many of the classes that were there before. In the middle phase no new class comes, but
one of the first four changes its look: its items are, from then on, those of a class of the data that the stream
otherwise leaves out, under the label of the old one. What was stored before stays. All items are labelled.

Of every class, and of the new look, twice REFERENCE items that the stream does not hold are set aside: a reference is
learned from one half of their labels, as if all that is to come were known beforehand, and its twin from the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST_CLASSES = 4
ARRIVALS = 4
REFERENCE = 300


@dataclass(frozen=True)
class Phase:
    """rows : of the stream, in the order of arrival. own : (n,) bool, those of the class that arrives or changes."""

    name: str
    rows: NDArray[np.intp]
    own: NDArray[np.bool_]


@dataclass(frozen=True)
class Aside:
    """vectors : (n, dimension) float32, labels : (n,) int64; REFERENCE of each class and of the new look."""

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Drifting:
    """vectors : (n, dimension) float32, labels : (n,) int64: the first items, then the phases'. first : how many are
    there at the beginning. references : what is set aside, for the reference and for its twin.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    first: int
    phases: list[Phase]
    references: tuple[Aside, Aside]


def drifting(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], start: int, length: int, rng: np.random.Generator
) -> Drifting:
    """A stream drawn from labelled data of ten classes or more. start : items of each first class. length : items of
    the class that arrives, in each phase.
    """
    classes = rng.permutation(np.unique(labels))[: FIRST_CLASSES + ARRIVALS + 1].tolist()
    *known, look = classes
    left = {one: rng.permutation(np.flatnonzero(labels == one)).tolist() for one in classes}

    def take(one: int, count: int) -> list[int]:
        taken, left[one] = left[one][:count], left[one][count:]
        return taken

    aside = [{one: take(one, REFERENCE) for one in classes} for _ in range(2)]
    present = known[:FIRST_CLASSES]
    changing = present[0]
    source = dict(zip(known, known, strict=True))
    rows = rng.permutation([row for one in present for row in take(one, start)]).tolist()
    given = [int(labels[row]) for row in rows]
    phases = []
    coming: list[int | None] = [*known[FIRST_CLASSES:]]
    coming.insert(len(coming) // 2, None)
    for new in coming:
        if new is None:
            source[changing] = look
        own = changing if new is None else new
        others = [one for one in present if one != own]
        drawn = [(row, own) for row in take(source[own], length)]
        for place in range(length // 2):
            one = others[place % len(others)]
            drawn += [(row, one) for row in take(source[one], 1)]
        drawn = [drawn[at] for at in rng.permutation(len(drawn))]
        begin = len(rows)
        rows += [row for row, _ in drawn]
        given += [one for _, one in drawn]
        name = f"class {own} as {look}" if new is None else f"class {own}"
        phases.append(Phase(name, np.arange(begin, len(rows)), np.array([one == own for _, one in drawn])))
        if new is not None:
            present.append(new)
    references = []
    for half in aside:
        named = [(row, changing if one == look else one) for one, rows_ in half.items() for row in rows_]
        references.append(Aside(vectors[[row for row, _ in named]], np.array([one for _, one in named])))
    return Drifting(vectors[rows], np.array(given), FIRST_CLASSES * start, phases, (references[0], references[1]))
