"""Precision@10 of searches: at radius 0, within budgets, online, and on digits."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality_data import Labelled, Part, digits, shown
from benchmarks.report import progress
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.lsh import LSH
from stream_hash.numerics.methods import TUTORIAL_ROUNDS
from stream_hash.numerics.rotation import ITQ
from stream_hash.numerics.selection import GRHCV
from stream_hash.numerics.tutorial import TutorialGRH

LABELS = 1_198
"""The tutorial's training items."""

CHUNKS = 20
MOST_AT_RADIUS_0 = 1_200
UNLABELLED = 1_000
LATE_CLASSES = 3
LATE_LABELS = 100
"""Labels of each class that comes late."""


def search(data: Labelled, queries: int, splits: int) -> list[list[str]]:
    """Radius 0 and budgets of 300 and 1,000, against exact search."""
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    exact = []
    for seed in range(1, splits + 1):
        part = Part(data, seed, queries, LABELS)
        exact.append(part.exact)
        share = {budget: budget / len(part.database) for budget in (300, 1_000, MOST_AT_RADIUS_0)}
        hashers = {
            "LSH": LSH(random_state=seed),
            "ITQ": ITQ(random_state=seed),
            "tutorial's GRH": TutorialGRH(n_iter=TUTORIAL_ROUNDS, random_state=seed),
            "GRH, defaults": GRH(random_state=seed),
            "GRH, all bits learned": GRH(n_learned=16, random_state=seed),
            "GRH, chosen for radius 0": GRHCV(
                budget_share=share[MOST_AT_RADIUS_0], fill=1.0, measure="bucket", random_state=seed
            ),
            "GRH, chosen for 300": GRHCV(budget_share=share[300], random_state=seed),
            "GRH, chosen for 1,000": GRHCV(budget_share=share[1_000], random_state=seed),
        }
        for name, hasher in hashers.items():
            progress(f"split {seed}: {name}")
            hasher.fit(part.training, part.labels)
            for plan, figure in part.search(hasher, (300, 1_000)).items():
                found[name, plan].append(figure)
            if hasattr(hasher, "params_"):
                progress(f"chosen: {hasher.params_}")
    rows = [["hasher", "plan", "precision@10", "of exact search's", "candidates"]]
    rows.append(["exact search", "", shown(exact), "1.000", f"{len(part.database):,}"])
    for (name, plan), figures in found.items():
        ratio = [figure.precision / best for figure, best in zip(figures, exact, strict=True)]
        rows.append(
            [
                name,
                plan,
                shown([figure.precision for figure in figures]),
                shown(ratio),
                f"{np.mean([figure.candidates for figure in figures]):,.0f}",
            ]
        )
    return rows


def online(data: Labelled, queries: int, splits: int) -> list[list[str]]:
    """One pass in chunks against the batch fit, and classes that come late, at a budget of 300."""
    rows = [["what", "labels", "online", "batch", "online / batch"]]
    for labels in (LABELS, 4 * LABELS, 16 * LABELS):
        pairs = []
        for seed in range(1, splits + 1):
            progress(f"online, {labels} labels, split {seed}")
            part = Part(data, seed, queries, labels)
            model = _streamed(part, "pa", np.array_split(np.arange(labels), CHUNKS))
            batch = _batch(part, "pa", np.arange(labels))
            pairs.append([part.search(hasher, (300,))["300 cut"].precision for hasher in (model, batch)])
        rows.append(_against("20 chunks, passive-aggressive", labels, pairs))
    for learner in ("pa", "ridge"):
        pairs = []
        for seed in range(1, splits + 1):
            progress(f"late classes, {learner}, split {seed}")
            part = Part(data, seed, queries, 4 * LABELS)
            pairs.append(_late(part, learner))
        rows.append(_against(f"late classes, {learner}", LATE_LABELS, pairs))
    return rows


def _against(name: str, labels: int, pairs: list[list[float]]) -> list[str]:
    ours, theirs = zip(*pairs, strict=True)
    ratios = [a / b for a, b in pairs]
    return [name, f"{labels:,}", shown(ours), shown(theirs), shown(ratios)]


def _with_unlabelled(part: Part, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What a stream has before its first labels are items without any: landmarks are drawn from these too."""
    items = part.database[:UNLABELLED]
    labels = np.concatenate([np.full(len(items), -1), part.labels[rows]])
    return np.concatenate([items, part.training[rows]]), labels


def _streamed(part: Part, learner: str, chunks: list[NDArray[np.intp]]) -> GRH:
    """One chunk of labels after another, each once."""
    model = GRH(learner=learner, random_state=part.seed).partial_fit(*_with_unlabelled(part, chunks[0]))
    for chunk in chunks[1:]:
        model.partial_fit(part.training[chunk], part.labels[chunk])
    return model


def _batch(part: Part, learner: str, rows: NDArray[np.intp]) -> GRH:
    """All labels at once."""
    return GRH(learner=learner, random_state=part.seed).fit(*_with_unlabelled(part, rows))


def _late(part: Part, learner: str) -> list[float]:
    """Precision@10 on queries of classes unseen until chunk 10: learned in chunks, and by a full refit."""
    late = np.isin(part.labels, np.unique(part.labels)[-LATE_CLASSES:])
    rank = np.zeros(len(part.labels), dtype=np.int64)
    for label in np.unique(part.labels):
        of_class = part.labels == label
        rank[of_class] = np.arange(of_class.sum())
    early = np.flatnonzero(~late)
    half = len(early) // 2
    coming = np.flatnonzero(late & (rank < LATE_LABELS))
    # with them come as many of the others as in the data: a stream does not fall silent
    share = round(len(coming) * (1 - late.mean()) / late.mean())
    mixed = np.random.default_rng(part.seed).permutation(np.concatenate([coming, early[half : half + share]]))
    chunks = np.array_split(early[:half], CHUNKS // 2) + np.array_split(mixed, CHUNKS // 2)
    model = _streamed(part, learner, chunks)
    seen = np.concatenate([early[:half], mixed])
    refit = _batch(part, learner, seen)
    among = np.isin(part.query_labels, np.unique(part.labels)[-LATE_CLASSES:])
    return [part.search(hasher, (300,), among)["300 cut"].precision for hasher in (model, refit)]


def digits_table(data: Labelled, queries: int, splits: int) -> list[list[str]]:  # noqa: ARG001  # as all sections
    """LSH < tutorial's GRH < GRH at equal candidates."""
    budgets = (20, 50, 100)
    rows = [["hasher", *(f"{budget} candidates" for budget in budgets)]]
    found: dict[str, list[list[float]]] = defaultdict(list)
    for seed in range(1, max(splits, 5) + 1):
        part = Part(digits(), seed, 200, 300)
        hashers = {
            "LSH": LSH(random_state=seed),
            "ITQ": ITQ(random_state=seed),
            "tutorial's GRH": TutorialGRH(n_iter=TUTORIAL_ROUNDS, random_state=seed),
            "GRH": GRH(random_state=seed),
        }
        for name, hasher in hashers.items():
            figures = part.search(hasher.fit(part.training, part.labels), budgets)
            found[name].append([figures[f"{budget} cut"].precision for budget in budgets])
        found["exact search"].append([part.exact] * len(budgets))
    return rows + [[name, *(shown(column) for column in zip(*figures, strict=True))] for name, figures in found.items()]
